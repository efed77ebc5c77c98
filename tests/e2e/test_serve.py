"""`crosslens serve` as its users run it: it answers, comes back from SIGKILL, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from indexer.settings import Settings
from tests.bundles import picture
from tests.waiting import until

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]


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
    """The API's process, the queue's, and the index process."""
    index = json.loads((settings.index_folder / "address.json").read_text())["pid"]
    children = sorted(psutil.Process(process.pid).children(), key=lambda child: "search_api" not in words_of(child))
    return [*children, psutil.Process(index)]


def words_of(process: psutil.Process) -> str:
    """A process' command line; nothing once it is dead."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def child(process: subprocess.Popen[str], words: str) -> psutil.Process:
    """The child with these words in its command line."""
    return next(each for each in psutil.Process(process.pid).children() if words in words_of(each))


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

    api, *_ = family(process, settings)
    api.kill()
    until(lambda: answers(url))
    assert search(url, "a red photo") == ["red", "blue"]
    *_, index = family(process, settings)  # the first may have ended with its last lease, the killed API's
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


def job_over(url: str, job: str) -> dict[str, object]:
    until(lambda: httpx.get(f"{url}/v1/jobs/{job}", timeout=30).json()["state"] in {"done", "failed", "cancelled"}, 90)
    return dict(httpx.get(f"{url}/v1/jobs/{job}", timeout=30).json())


def test_jobs_over_http_survive_the_death_of_every_process(server, settings, tmp_path: Path) -> None:
    process, url = server
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(400):
        colour = ("red", "green", "blue")[number % 3]
        (photos / f"{number:03}.png").write_bytes(picture(colour, mark=number))
    (photos / "bad.jpg").write_bytes(b"no picture")
    answer = httpx.post(f"{url}/v1/collections/media/ingest", json={"source": str(photos)}, timeout=30)
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert answer.headers["Location"] == f"/v1/jobs/{job}"
    for words in ("--queues embed", "valkey-server", "--queues plan", "search_api.server"):
        until(lambda: any(words in words_of(c) for c in psutil.Process(process.pid).children()))  # noqa: B023
        child(process, words).kill()
    until(lambda: answers(url))
    done = job_over(url, job)
    assert (done["state"], done["indexed"], done["skipped"], done["failed"]) == ("done", 400, 0, 1), done
    assert httpx.get(f"{url}/v1/collections/media", timeout=30).json()["count"] == 400
    failures = httpx.get(f"{url}/v1/jobs/{job}/failures", timeout=30).json()["failures"]
    assert [(Path(each["source"]).name, each["code"]) for each in failures] == [("bad.jpg", "not_an_image")]
    (photos / "bad.jpg").write_bytes(picture("white", mark=7, form="JPEG"))
    again = httpx.post(f"{url}/v1/jobs/{job}/retry", timeout=30).json()["job"]
    assert (job_over(url, again)["indexed"], httpx.get(f"{url}/v1/jobs", timeout=30).json()["jobs"][0]["job"]) == (
        1,
        again,
    )
    with httpx.stream("GET", f"{url}/v1/jobs/{again}/events", timeout=30) as stream:
        lines = [line for line in stream.iter_lines() if line]
    assert lines[0] == "event: job"
    assert json.loads(lines[1].removeprefix("data: "))["state"] == "done"
    listed = subprocess.run([*CLI, "jobs", "list", "--json"], check=True, capture_output=True, text=True)
    assert {each["job"] for each in json.loads(listed.stdout)["jobs"]} == {job, again}


def test_jobs_are_refused_with_a_reason(server, settings) -> None:
    _, url = server
    assert httpx.get(f"{url}/v1/jobs/none", timeout=30).json()["code"] == "job_not_found"
    for body in ({}, {"source": ""}, {"source": []}, {"source": ["a"] * 1001}, {"source": 1}, {"sources": "a"}):
        answer = httpx.post(f"{url}/v1/collections/media/ingest", json=body, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), body
    gone = httpx.post(f"{url}/v1/collections/media/ingest", json={"source": "/no/such/folder"}, timeout=30).json()
    failed = job_over(url, gone["job"])
    assert (failed["state"], failed["error"]["code"]) == ("failed", "source_not_found")  # type: ignore[index]
    stopped = httpx.post(f"{url}/v1/jobs/{gone['job']}/cancel", timeout=30).json()
    assert stopped["state"] == "failed"  # it was over


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
