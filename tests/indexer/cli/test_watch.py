"""`crosslens watch` and `crosslens ingest --prune` as processes and from the command line."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indexer.cli import main
from indexer.models.encoder import Encoder
from indexer.store import Store, open_store
from tests.bundles import picture
from tests.waiting import until

# A shell that runs the tests in the background has them, and so their children, ignore Ctrl-C.
HEEDS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "red.png").write_bytes(picture("red"))
    (folder / "green.png").write_bytes(picture("green"))
    return folder


@contextmanager
def watching(*arguments: str, **more: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", f"{HEEDS}; from indexer.cli import main; main()", "watch", *arguments]
    child = subprocess.Popen(
        command,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},  # type: ignore[call-overload]
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def best(store: Store, encoder: Encoder, text: str) -> str:
    (hit,) = store.get("media").search(encoder.encode_texts([text]).vectors[0], 1)
    return Path(hit.record.locations[0].source).name


def count(store: Store) -> int:
    return store.get("media").count() if store.list() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_files_dropped_in_are_found_and_a_signal_ends_it_cleanly(settings, encoder, photos, number) -> None:
    with open_store(settings) as store, watching(str(photos), "--json") as child:
        until(lambda: count(store) == 2)
        (photos / "blue.png").write_bytes(picture("blue"))
        until(lambda: count(store) == 3)
        assert best(store, encoder, "a blue photo") == "blue.png"
        (photos / "red.png").unlink()
        until(lambda: count(store) == 2)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (0, "")
    batches = [json.loads(line) for line in out.splitlines()]
    assert [(each["indexed"], each["removed"]) for each in batches] == [(2, 0), (1, 0), (0, 1)]
    assert all(each["collection"] == "media" and each["failures"] == [] for each in batches)


def test_what_is_in_work_is_stored_when_it_ends(settings, photos) -> None:
    for number in range(400):
        (photos / f"{number}.png").write_bytes(picture("blue", mark=number))
    few = {**os.environ, "CROSSLENS_BATCH_SIZE": "4"}
    with open_store(settings) as store, watching(str(photos), "--json", env=few) as child:
        until(lambda: count(store) >= 20)
        child.send_signal(signal.SIGINT)
        (report,) = map(json.loads, child.communicate(timeout=60)[0].splitlines())
        assert child.returncode == 0
        assert report["interrupted"] is True
        assert count(store) == report["indexed"]


def test_people_get_a_line_a_batch_and_failures_by_name(settings, photos) -> None:
    with open_store(settings) as store, watching(str(photos)) as child:
        until(lambda: count(store) == 2)
        (photos / "bad\n.jpg").write_bytes(b"no picture")
        lines = iter(child.stderr.readline, "")
        assert next(lines) == "2 indexed, 0 removed\n"
        assert next(lines).startswith("Following 1 folder")
        assert next(lines) == "0 indexed, 0 removed, 1 failed\n"
        assert "bad\\n.jpg" in next(lines)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out, err) == (0, "", "")


def test_a_terminal_sees_the_first_walk_and_then_lines(settings, photos) -> None:
    master, terminal = pty.openpty()
    with watching(str(photos), stderr=terminal, env={**os.environ, "TERM": "xterm"}) as child:
        os.close(terminal)
        seen = b""
        while b"Following" not in seen:
            seen += os.read(master, 1 << 16)
        assert b"2 indexed, 0 removed" in seen
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0
    os.close(master)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("named", ["gone", "photos/red.png"])
def test_what_is_no_folder_is_refused(settings, photos, named) -> None:
    refused = run("watch", str(photos.parent / named))
    assert refused.exit_code == 2
    assert "There is no" in refused.stderr or "is no folder" in refused.stderr


def test_ingest_prunes_on_request_alone(settings, photos) -> None:
    assert run("ingest", str(photos)).exit_code == 0
    (photos / "red.png").unlink()
    assert json.loads(run("ingest", str(photos), "--json").stdout)["removed"] == 0
    pruned = run("ingest", str(photos), "--prune")
    assert pruned.exit_code == 0
    assert "0 indexed, 1 already there, 0 failed; 1 removed." in pruned.stderr


@pytest.mark.parametrize("state", ["gone", "empty"])
def test_ingest_refuses_to_prune_what_may_be_unmounted_unless_told_so(settings, photos, state) -> None:
    other = photos.parent / "other"
    other.mkdir()
    (other / "blue.png").write_bytes(picture("blue"))
    assert run("ingest", str(photos)).exit_code == 0
    shutil.rmtree(photos)
    if state == "empty":
        photos.mkdir()
    refused = run("ingest", str(other), str(photos), "--prune")
    assert refused.exit_code == 2
    assert f"is {state}, but the index holds items of it" in refused.stderr
    assert "--prune-all" in refused.stderr
    with open_store(settings) as store:
        assert count(store) == 2  # nothing was indexed either
    done = json.loads(run("ingest", str(other), str(photos), "--prune-all", "--json").stdout)
    assert (done["indexed"], done["removed"]) == (1, 2)


def test_what_never_was_there_is_not_found_as_ever(settings, photos) -> None:
    refused = run("ingest", str(photos.parent / "typo"), "--prune")
    assert refused.exit_code == 2
    assert "There is no" in refused.stderr


def test_patterns_and_files_may_stand_beside_folders(settings, photos) -> None:
    (photos / "texts.txt").write_text("a red car\n")
    done = run("ingest", str(photos), str(photos / "*.png"), str(photos / "texts.txt"), "--prune", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["removed"] == 0
    done = run("ingest", str(photos / "*.png"), "--prune-all", "--json")
    assert (done.exit_code, json.loads(done.stdout)["removed"]) == (0, 0)
