"""The client against a real server; and what it does when there is none, or one that fails."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from search_api.client import ApiError, Crosslens, File, ServerUnreachable, Text
from search_api.client import transport as transports
from tests.bundles import COLOURS, picture
from tests.search_api.conftest import CLI, Served


@pytest.fixture
def client(served: Served, request: pytest.FixtureRequest) -> Iterator[Crosslens]:
    """A client with a collection of its own."""
    name = f"client-{abs(hash(request.node.name))}"
    with Crosslens(served.url, served.key, collection=name) as client:
        client.collections.create(name)
        yield client
        client.collections.delete(name)


def test_importing_it_loads_neither_server_nor_models() -> None:
    heavy = ["flask", "onnxruntime", "qdrant_client", "numpy", "PIL", "celery", "redis"]
    code = f"import search_api.client, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_uploaded_can_be_found_changed_and_removed(client: Crosslens, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture("red"))
    made = client.upload(
        tmp_path / "red.png",
        File(picture("green"), payload={"tag": "fresh"}, id="a/b c", name="green.png"),
        Text("so much blue", id="words", payload={"tag": "own"}),
        File(b"no picture", name="bad.png"),
        payload={"tag": "all", "batch": 1},
    )
    assert made.failed == 1
    assert [each.error.code if each.error else None for each in made.items] == [None, None, None, "not_an_image"]
    assert made.items[1].id == "a/b c" or made.items[1].created

    red = client.search("red", kind="image", limit=1).results[0]
    assert red.source.startswith("upload:")
    assert red.payload == {"tag": "all", "batch": 1}
    assert client.items.get("words").payload == {"tag": "own", "batch": 1}
    assert client.items.get("words").text == "so much blue"
    assert client.items.patch("words", {"tag": None, "stars": 5}).payload == {"batch": 1, "stars": 5}
    assert client.items.media(red.id) == picture("red")
    client.items.download(red.id, tmp_path / "copy.png")
    assert (tmp_path / "copy.png").read_bytes() == picture("red")
    assert client.items.thumbnail(red.id, 64)[8:12] == b"WEBP"
    facets = client.facets("kind")
    assert {each.value: each.count for each in facets.facets["kind"]} == {"image": 2, "text": 1}
    client.items.delete("words")
    with pytest.raises(ApiError) as gone:
        client.items.get("words")
    error = gone.value
    assert (error.status, error.code) == (404, "item_not_found")
    assert error.detail and error.remedy and error.request_id


def test_every_way_to_search(client: Crosslens, tmp_path: Path) -> None:
    client.upload(
        *(File(picture(colour), id=colour, payload={"rating": number}) for number, colour in enumerate(COLOURS))
    )
    (tmp_path / "blue.png").write_bytes(picture("blue", mark=5))

    def first(*args: Any, **options: Any) -> str:
        return client.search(*args, limit=1, **options).results[0].id

    assert first("green") == "green"
    assert first(image=tmp_path / "blue.png") == "blue"
    assert first(image=str(tmp_path / "blue.png")) == "blue"
    assert first(image=picture("yellow", mark=3)) == "yellow"
    assert first(item="red") != "red"
    assert first(vector=[0, 1, 0, 0.2, 0, 0, 0, 0]) == "green"
    assert first("red", query=[{"text": "blue"}]) == "purple"
    assert first("red", filter={"must": [{"key": "rating", "range": {"gte": 2}}]}) != "red"
    assert first("red", filter="rating>=2") != "red"
    explained = client.search("red", explain=True, group_by=None).results[0]
    assert explained.explain is not None
    many = client.search_many([{"text": colour, "limit": 1} for colour in COLOURS])
    assert [answer.results[0].id for answer in many][:3] == ["red", "green", "blue"]


def test_pages_are_turned_until_there_are_no_more(client: Crosslens) -> None:
    client.upload(*(File(picture("red", mark=mark), id=f"i{mark}") for mark in range(7)))
    for found in (client.search("red", limit=3), client.search(limit=3)):
        pages = [[each.id for each in page.results] for page in found.pages()]
        assert [len(page) for page in pages][:2] == [3, 3]
        assert sorted(item for page in pages for item in page) == [f"i{mark}" for mark in range(7)]
        assert len(list(found.all(5))) == 5
        assert len(found) == len(list(found)) == 3


def test_a_job_is_followed_to_its_end(client: Crosslens, served: Served) -> None:
    job = client.ingest(served.photos)
    seen = list(job.events())
    assert seen[-1].over
    over = job.wait(60)
    assert (over.state, over.indexed, over.failed) == ("done", len(COLOURS), 1)
    assert [each.code for each in over.failures()] == ["not_an_image"]
    again = over.retry().wait(60)
    assert again.failed == 1
    assert again.cancel().state == "done"
    assert job.job in {each.job for each in client.jobs.list()}
    assert client.jobs.get(job.job).refresh().state == "done"


def test_collections_and_readiness(client: Crosslens, served: Served) -> None:
    assert client.ready()
    name = client.collections.list()[0].name
    assert client.collections.get(name).dimension == 8
    with pytest.raises(ApiError) as refused, Crosslens(served.url, "clk_000000000000_" + "x" * 43) as stranger:
        stranger.collections.list()
    assert refused.value.status == 401
    with Crosslens("http://127.0.0.1:9", retries=0) as nowhere:
        assert not nowhere.ready()
        with pytest.raises(ServerUnreachable) as unreachable:
            nowhere.collections.list()
        assert unreachable.value.status == 0


Handler = Callable[[httpx.Request], httpx.Response]


def pretended(handler: Handler, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Crosslens, list[float]]:
    """A client of a server that is a function, and how long it slept."""
    slept: list[float] = []
    monkeypatch.setattr(transports.time, "sleep", slept.append)
    return Crosslens("http://x", transport=httpx.MockTransport(handler), **options), slept


def told(status: int, code: str = "some", **headers: str) -> httpx.Response:
    body = {"detail": "No.", "code": code, "remedy": "Do.", "status": status, "field": "limit"}
    return httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize("failure", [429, 503, httpx.ConnectError("refused"), httpx.ReadError("broke off")])
def test_what_may_pass_is_tried_again(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        if len(asked) < 3:
            if isinstance(failure, Exception):
                raise failure
            return told(failure)
        return httpx.Response(201, json={"items": [], "failed": 0})

    client, slept = pretended(handler, monkeypatch)
    client.upload(File(b"some bytes", name="a"))
    assert len(asked) == 3
    assert all(b"some bytes" in each for each in asked)
    assert len(slept) == 2
    assert 0 <= slept[0] <= 0.25
    assert 0 <= slept[1] <= 0.5


def test_a_search_may_take_longer_by_what_it_reranks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        assert (timeouts["connect"], timeouts["write"]) == (10, 60)
        read.append(timeouts["read"])
        return told(400)

    client, _ = pretended(handler, monkeypatch)
    patient = {"deadline_ms": 45_000}
    for rerank in (None, False, True, {"top": 3}, {"deadline_ms": "soon"}, patient, {"deadline_ms": 10**400}):
        with pytest.raises(ApiError):
            client.search("a", rerank=rerank).results  # noqa: B018  asked for when it is needed
    assert read == [60, 60, 60, 60, 60, 105, 120]
    for count, longest in ((0, 60), (1, 105), (50, 120)):  # for all of a batch together the server has a minute
        with pytest.raises(ApiError):
            client.search_many([{"text": "a", "rerank": patient}] * count)
        assert read[-1] == longest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 500, 502])
def test_what_will_not_pass_is_asked_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return told(status, **{"X-Request-Id": "abc"})

    client, slept = pretended(handler, monkeypatch)
    with pytest.raises(ApiError) as refused:
        client.search("a", limit=1).results  # noqa: B018  asked for when it is needed
    error = refused.value
    assert (error.status, error.code, error.detail, error.remedy, error.request_id) == (
        status,
        "some",
        "No.",
        "Do.",
        "abc",
    )
    assert error.details["field"] == "limit"
    assert (len(asked), slept) == (1, [])


def test_the_time_that_the_server_names_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [told(429, **{"Retry-After": "7"}), told(503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]

    def handler(request: httpx.Request) -> httpx.Response:
        return answers.pop(0) if answers else httpx.Response(200, json={"collections": []})

    client, slept = pretended(handler, monkeypatch)
    assert client.collections.list() == []
    assert slept == [7.0, 0.0]
    answers += [told(429, **{"Retry-After": "86400"})]
    with pytest.raises(ApiError, match="No"):
        client.collections.list()
    assert len(slept) == 2


def test_it_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    client, slept = pretended(lambda request: told(503), monkeypatch, retries=2)
    with pytest.raises(ApiError):
        client.collections.list()
    assert len(slept) == 2
    client, slept = pretended(lambda request: (_ for _ in ()).throw(httpx.ReadTimeout("slow")), monkeypatch)
    with pytest.raises(ServerUnreachable):
        client.collections.list()
    assert slept == []  # a slow server gets no faster by being asked twice


def test_a_removal_whose_answer_was_lost_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [httpx.ReadError("broke off"), told(404, "item_not_found"), told(404, "item_not_found")]

    def handler(request: httpx.Request) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    client, _ = pretended(handler, monkeypatch)
    client.items.delete("x")
    with pytest.raises(ApiError):
        client.items.delete("x")


def test_what_is_no_crosslens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = pretended(lambda request: httpx.Response(200, html="<h1>Welcome</h1>"), monkeypatch)
    with pytest.raises(ApiError) as other:
        client.collections.list()
    assert other.value.code == "unexpected_answer"
    client, _ = pretended(lambda request: httpx.Response(502, html="<h1>Bad gateway</h1>"), monkeypatch)
    with pytest.raises(ApiError) as proxy:
        client.collections.list()
    assert (proxy.value.status, proxy.value.code) == (502, "http_502")


def test_names_are_quoted_and_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    client, _ = pretended(handler, monkeypatch, key="clk_1")
    client.items.delete("../../keys?a=b#c", collection="a b")
    assert asked[0].url.raw_path == b"/v1/collections/a%20b/items/..%2F..%2Fkeys%3Fa%3Db%23c"
    assert asked[0].headers["Authorization"] == "Bearer clk_1"


def test_members_that_it_does_not_know_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"name": "a", "model": "m", "fingerprint": "f", "dimension": 1, "count": 0, "fields": {}}
    reranked = {"reranker": {"image": None, "text": None, "sound": "new"}, "rerank_features": False}
    body = {"collections": [{**known, **reranked, "new": 1}]}
    client, _ = pretended(lambda request: httpx.Response(200, json=body), monkeypatch)
    assert client.collections.list()[0].name == "a"


def test_an_event_stream_that_breaks_off_goes_on(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    with Crosslens(served.url, served.key) as real:
        whole = real.ingest(served.photos).wait(60).model_dump()
    running, done = ({**whole, "state": state} for state in ("running", "done"))
    streams = [[running], [running], [running, done]]

    def handler(request: httpx.Request) -> httpx.Response:
        events = "".join(f"event: job\ndata: {json.dumps(each)}\n\n" for each in streams.pop(0))
        return httpx.Response(200, text=events, headers={"Content-Type": "text/event-stream"})

    client, _ = pretended(handler, monkeypatch)
    assert [job.state for job in client.jobs.events("x")] == ["running", "done"]


def test_the_command_line_asks_a_server(client: Crosslens, served: Served, tmp_path: Path) -> None:
    client.upload(File(picture("red"), id="red"), Text("so much blue", id="words"))
    collection = next(each.name for each in client.collections.list() if each.count == 2)
    (tmp_path / "red.png").write_bytes(picture("red", mark=3))

    def search(*words: str, key: str = served.key) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CROSSLENS_")}
        return subprocess.run(
            [*CLI, "search", *words, "--collection", collection],
            env={**kept, "CROSSLENS_URL": served.url, "CROSSLENS_KEY": key},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    found = json.loads(search("red", "--json").stdout)
    assert found["results"][0]["id"] == "red"
    for words in (["red", "--filter", "tag:\udcff"], ["red", "--filter", '{"must": "\udcff"}'], ["\udcff"]):
        undecodable = search(*words, "--json")
        assert (undecodable.returncode, json.loads(undecodable.stdout)["error"]["code"]) == (2, "invalid_request")
        assert "UTF-8" in undecodable.stderr
    assert found.keys() >= {"results", "took_ms", "model", "warnings", "cursor"}
    assert "so much blue" in search("blue", "--kind", "text").stdout
    by_image = json.loads(search("--image", "red.png", "--json", "--filter", "kind:image", "-k", "1").stdout)
    assert [each["id"] for each in by_image["results"]] == ["red"]
    refused = search("blue", "--json", key="wrong")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "key_invalid"
    assert search("blue", "--sheet", "a.html").returncode == 2
    assert not (tmp_path / "crosslens-data").exists()


def test_jobs_are_asked_of_a_server(client: Crosslens, served: Served, tmp_path: Path) -> None:
    """The same words and documents as of the queue: `Job.as_dict` is what the server sends."""

    def jobs(*words: str, key: str = served.key) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CROSSLENS_")}
        return subprocess.run(
            [*CLI, "jobs", *words, "--url", served.url, "--key", key],
            env=kept, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    over = client.ingest(served.photos).wait(timeout=60)
    listed = json.loads(jobs("list", "--json", "--limit", "1").stdout)["jobs"]
    assert [each["job"] for each in listed] == [over.job]
    assert listed[0].keys() == over.model_dump().keys()
    assert over.job in jobs("list").stdout
    shown = jobs("show", over.job)
    assert shown.returncode == 1, "something failed in it"
    assert f"{over.job}: done, {over.indexed} indexed" in shown.stdout
    assert f"crosslens jobs failures {over.job}" in shown.stderr
    assert "[not_an_image]" in jobs("failures", over.job).stdout
    found = json.loads(jobs("failures", over.job, "--json").stdout)
    assert (found["failed"], found["failures"][0]["code"]) == (1, "not_an_image")
    again = json.loads(jobs("retry", over.job, "--json").stdout)
    assert again["job"] != over.job
    watched = json.loads(jobs("watch", again["job"], "--json").stdout)
    assert (watched["job"], watched["state"]) == (again["job"], "done")
    assert json.loads(jobs("cancel", over.job, "--json").stdout)["state"] == "done", "what is over stays as it is"
    missing = jobs("show", "nothing", "--json")
    assert (missing.returncode, json.loads(missing.stdout)["error"]["code"]) == (2, "job_not_found")
    assert json.loads(jobs("list", "--json", key="wrong").stdout)["error"]["code"] == "key_invalid"
    assert not (tmp_path / "crosslens-data").exists()
