"""A server as its users start it, with a worker and a key, for tests that ask it over HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bundles import COLOURS, picture

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]


@dataclass(frozen=True)
class Served:
    """A server's address, its admin key, and a folder of pictures that its workers reach."""

    url: str
    key: str
    photos: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    photos = home / "photos"
    photos.mkdir()
    for colour in COLOURS:
        (photos / f"{colour}.png").write_bytes(picture(colour))
    (photos / "broken.png").write_bytes(b"no picture")
    key = "0123456789abcdef0123456789abcdef"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CROSSLENS_")} | {
        "CROSSLENS_DATA": str(home / "data"),
        "CROSSLENS_MODEL": str(colours),
        "CROSSLENS_ADMIN_KEY": key,
        "CROSSLENS_KEY_RATE": "1000000",
        "CROSSLENS_KEY_BURST": "1000000",
        "CROSSLENS_ADDRESS_FAILURES": "1000000",
    }
    process = subprocess.Popen(
        [*CLI, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert process.stdout is not None
    yield Served(json.loads(process.stdout.readline())["url"], key, photos)
    process.terminate()
    process.wait(60)
