"""The container images, as far as they can be held without an engine: their files, their locks, their user."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_architecture import PACKAGES, ROOT

IMAGES = ("Dockerfile", "Dockerfile.cuda")


def instructions(image: str) -> list[tuple[str, str]]:
    """Keyword and argument of each instruction, continued lines joined."""
    text = re.sub(r"\\\n", " ", (ROOT / image).read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps a path out of the build; it lets in by name alone."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    return name.split("/", maxsplit=1)[0] not in kept


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_copies_is_there_and_every_package_is_copied(image: str) -> None:
    copied = [
        path
        for keyword, argument in instructions(image)
        if keyword == "COPY" and "--from" not in argument
        for path in shlex.split(argument)[:-1]
    ]
    assert set(PACKAGES) <= set(copied)
    assert [path for path in copied if not (ROOT / path).exists() or ignored(path)] == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_nobody_special_and_says_when_it_is_ready(image: str) -> None:
    last = dict(instructions(image))
    assert last["USER"] == "crosslens"
    assert "/readyz" in last["HEALTHCHECK"]
    assert (last["ENTRYPOINT"], last["CMD"]) == ('["crosslens"]', '["serve"]')
    installs = [argument for keyword, argument in instructions(image) if keyword == "RUN" and "-r " in argument]
    assert all("--require-hashes" in argument for argument in installs)
    assert installs


def pinned(lock: str) -> dict[str, str]:
    """Version by package."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE))


def test_the_gpu_lock_is_the_run_lock_with_the_other_runtime() -> None:
    run, gpu = pinned("run.lock"), pinned("gpu.lock")
    assert "onnxruntime" in run
    assert run.keys() - gpu.keys() == {"onnxruntime"}
    assert {name: version for name, version in gpu.items() if name in run} == {
        name: version for name, version in run.items() if name != "onnxruntime"
    }
    assert "onnxruntime-gpu" in gpu
    assert any(name.startswith("nvidia-cudnn") for name in gpu)


def test_no_lock_of_what_runs_holds_what_trains() -> None:
    training = {"torch", "transformers", "open-clip-torch", "sentence-transformers", "onnx", "onnxscript"}
    for lock in ("run.lock", "gpu.lock"):
        assert not training & pinned(lock).keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[>\[]", each)[0].replace("_", "-") for each in project["export"]}
    assert training <= wanted
    assert wanted <= pinned("export.lock").keys()


@pytest.mark.parametrize("command", ["export", "build-bridge"])
def test_without_the_extra_a_sentence_says_how_to_get_it(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None;"
        "from indexer.cli import main; main()"
    )  # fmt: skip
    arguments = ["clip-b32"] if command == "export" else ["--train", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, "models", command, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "crosslens[export]" in done.stderr
    assert "Traceback" not in done.stderr
