"""`crosslens serve` as its users run it: it answers, comes back from SIGKILL, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from indexer.settings import Settings
from tests.bundles import picture

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen([*CLI, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, json.loads(process.stdout.readline())["url"]
    process.kill()
    process.wait()


def family(process: subprocess.Popen[str], settings: Settings) -> list[psutil.Process]:
    """The API's process and the index process."""
    index = json.loads((settings.index_folder / "address.json").read_text())["pid"]
    return [*psutil.Process(process.pid).children(), psutil.Process(index)]


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def search(url: str, text: str) -> list[str]:
    body = {"query": [{"text": text}], "kind": "image"}
    return [
        each["id"]
        for each in httpx.post(f"{url}/v1/collections/media/search", json=body, timeout=30)
        .raise_for_status()
        .json()["results"]
    ]


def test_it_serves_comes_back_and_leaves_nothing_behind(server, settings) -> None:
    process, url = server
    files = [("file", (f"{colour}.png", picture(colour), "image/png")) for colour in ("red", "blue")]
    items = [{"file": f"{colour}.png", "id": colour} for colour in ("red", "blue")]
    form = {"request": json.dumps({"items": items})}
    assert httpx.post(f"{url}/v1/collections/media/items", files=files, data=form).status_code == 201
    assert search(url, "a blue photo") == ["blue", "red"]

    api, _ = family(process, settings)
    api.kill()
    until(lambda: answers(url))
    assert search(url, "a red photo") == ["red", "blue"]
    _, index = family(process, settings)  # the first may have ended with its last lease, the killed API's
    index.kill()
    until(lambda: answers(url))
    assert search(url, "a red photo") == ["red", "blue"]

    left = family(process, settings)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    until(lambda: all(gone(each) for each in left))


def test_killed_itself_it_takes_everything_along(server, settings) -> None:
    process, url = server
    assert answers(url)
    left = family(process, settings)
    process.kill()
    until(lambda: all(gone(each) for each in left))


def test_the_command_line_searches_what_the_server_holds(server, settings, tmp_path: Path) -> None:
    _, url = server
    (tmp_path / "red.png").write_bytes(picture("red"))
    subprocess.run([*CLI, "ingest", str(tmp_path / "red.png")], check=True, capture_output=True)
    assert len(search(url, "red")) == 1
    done = subprocess.run(
        [*CLI, "search", "red", "--json", "--sheet", str(tmp_path / "s.html")], check=True, capture_output=True
    )
    assert json.loads(done.stdout)["results"][0]["source"] == str(tmp_path / "red.png")
    assert "data:image/webp;base64," in (tmp_path / "s.html").read_text()
    plain = subprocess.run(
        [*CLI, "search", "--image", str(tmp_path / "red.png")], check=True, capture_output=True, text=True
    )
    assert plain.stdout.startswith("1\t1.0000\timage\t")
    assert plain.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve", "--host", "0.0.0.0"], "does not listen on"),
        (["serve", "--host", "no.such.host.invalid"], "no address of this machine"),
        (["search", "x"], "There is nothing in"),
        (["search"], "Say what to look for"),
        (["search", "--image", "gone.jpg"], "cannot be read"),
        (["search", "x", "--filter", "{"], "is not JSON"),
        (["search", "x", "-k", "0"], "not in the range"),
        (["models", "verify", "gone"], "There is no bundle"),
        (["nonsense"], "No such command"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(settings: Settings, arguments: list[str], sentence: str) -> None:
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_said(server) -> None:
    _, url = server
    done = subprocess.run([*CLI, "serve", "--port", url.rsplit(":", 1)[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "address already in use" in done.stderr
    assert os.environ["CROSSLENS_DATA"]
