"""What many tests share: a tiny bundle, and settings of a fresh data folder that uses it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog

from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.settings import Settings
from tests.bundles import make_bundle

_IN_MEMORY = Path("/dev/shm")
_ROOM = 8 * 2**30


def pytest_configure() -> None:
    """Keep the tests' folders in memory where there is room: hundreds of indexes are made, and each syncs its files."""
    if _IN_MEMORY.is_dir() and min(shutil.disk_usage(_IN_MEMORY).free, psutil.virtual_memory().available) > _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_IN_MEMORY))


@pytest.fixture(autouse=True)
def _logs_as_they_are() -> Iterator[None]:
    """What a test makes of the process' logs (a level, a format) ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that knows colours by name."""
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def encoder(colours: Path) -> Encoder:
    """Its encoder."""
    return Encoder(load_bundle(colours))


@pytest.fixture
def settings(tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a fresh data folder, also in the environment, so that child processes have them."""
    monkeypatch.setenv("CROSSLENS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CROSSLENS_MODEL", str(colours))
    return Settings()
