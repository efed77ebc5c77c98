"""Every command of the README, run as it stands: in a fresh copy, by a user with photos in ~/Pictures."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.test_architecture import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PORT = 8000


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would hold: the files that git tracks, or would, without the virtual environment."""
    target = tmp_path_factory.mktemp("clone") / "crosslens"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    pictures = target.parent / "home" / "Pictures"
    pictures.mkdir(parents=True)
    for photo in (ROOT / "examples" / "media").glob("*.jpg"):
        shutil.copy(photo, pictures)
    return target


def environment(copy: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CROSSLENS_", "VIRTUAL_ENV", "MAKE"))
    }
    return {**kept, "HOME": str(copy.parent / "home")}


def bash(copy: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done


def block(beginning: str) -> str:
    found = [each for each in BLOCKS if each.startswith(beginning)]
    assert len(found) == 1, f"The README has {len(found)} blocks that begin with {beginning!r}."
    return str(found[0])


def test_every_block_is_run_here() -> None:
    assert [each.split()[0] for each in BLOCKS] == ["make", ".", "crosslens", "curl", "make"]


@pytest.mark.timeout(900)
def test_the_commands_do_what_the_readme_says(copy: Path) -> None:
    commands = [line.split("#")[0].strip() for line in block("make demo").splitlines()]
    assert commands == ["make demo", "make test"]  # the second one runs this very test
    for _ in range(2):
        shown = bash(copy, commands[0])
        assert "coffee.webp" in shown.stdout
        assert (copy / "crosslens-demo" / "contact-sheet.html").stat().st_size > 10_000

    first = bash(copy, block(". .venv"))
    assert "cat.jpg" in first.stdout
    assert (copy / "cats.html").exists()

    serving = f". .venv/bin/activate; exec {block('crosslens serve')}"
    server = subprocess.Popen(["bash", "-c", serving], cwd=copy, env=environment(copy), start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < deadline
            assert server.poll() is None, f"`crosslens serve` ended; is port {PORT} taken?"
            time.sleep(0.1)
        answers = bash(copy, block("curl")).stdout
        assert '"ready"' in answers
        assert '"results"' in answers
        assert '"created"' in answers
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.timeout(600)
def test_a_larger_model_is_exported_from_the_hubs_cache_and_used(copy: Path) -> None:
    """As the README has it, but for the weights: random ones of the same model, where the hub's cache has them."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    stamp = ROOT / ".venv" / ".export"
    lock = ROOT / "requirements" / "export.lock"
    if not stamp.exists() or stamp.stat().st_mtime < max(
        lock.stat().st_mtime, (ROOT / "pyproject.toml").stat().st_mtime
    ):
        pytest.skip("the virtual environment is older than its lock; `make models` renews it")
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = copy.parent / "hf" / "hub" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    weights = repository / "snapshots" / revision / "open_clip_model.safetensors"
    weights.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), weights)
    cached = f"export HF_HOME='{copy.parent / 'hf'}' HF_HUB_OFFLINE=1 VENV='{ROOT / '.venv'}'\n"
    done = bash(copy, f"{cached}export PATH='{ROOT / '.venv' / 'bin'}':$PATH\n{block('make models')}")
    assert "Of the ten nearest neighbours" in done.stdout
    assert ".jpg" in done.stdout.splitlines()[-1]  # random weights find something, not what was meant


def ready() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/readyz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
