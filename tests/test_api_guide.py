"""Every example of docs/api.md, run as it stands against a server."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.bundles import picture
from tests.search_api.conftest import Served, served  # noqa: F401  a fixture
from tests.test_architecture import ROOT

GUIDE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)


def environment(served: Served) -> dict[str, str]:  # noqa: F811
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROSSLENS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "CROSSLENS_URL": served.url, "CROSSLENS_KEY": served.key}


def run(command: list[str], served: Served, folder: Path) -> str:  # noqa: F811
    done = subprocess.run(
        command, cwd=folder, env=environment(served), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_block_is_run_here() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    assert len(BLOCKS) >= 14


def test_the_examples_do_what_the_guide_says(served: Served, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "photo.png").write_bytes(picture("red"))
    python = "\n".join(text for language, text in BLOCKS if language == "python")
    said = run([sys.executable, "-c", python], served, tmp_path)
    assert "item_not_found" in said
    assert "409 no_reranker Run `crosslens models export blip2-itm`." in said
    assert (tmp_path / "copy.png").read_bytes() == picture("red")
    shell = [text for language, text in BLOCKS if language == "sh"]
    answers = [run(["bash", "-euo", "pipefail", "-c", text], served, tmp_path) for text in shell]
    assert '"holidays"' in answers[0]
    assert '"weather"' in answers[1]
    assert "people: integer" in answers[1]
    assert '"beach"' in answers[2]
    assert '"results"' in answers[3]
    assert (tmp_path / "small.webp").read_bytes()[8:12] == b"WEBP"
    assert '"state": "done"' in answers[-1]
