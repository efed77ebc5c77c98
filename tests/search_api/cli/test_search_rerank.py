"""`crosslens search --rerank`, in a data folder and at a server; and what `crosslens collections` says of it."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.cli import main
from indexer.settings import Settings
from search_api.client import Crosslens
from search_api.server import serve
from tests.rerankers import halves, make_reranker

SIDES = ("red-blue", "blue-red", "red-green", "green-red")


@pytest.fixture
def data(settings: Settings, tmp_path: Path) -> list[str]:
    """The option that leads to a data folder with a collection of pictures of two halves."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for sides in SIDES:
        left, right = sides.split("-")
        (photos / f"{sides}.png").write_bytes(halves(left, right))
    options = ["--data", str(settings.data)]
    run("ingest", str(photos), *options, "--json")
    return options


@pytest.fixture
def server(settings: Settings, data: list[str]) -> Iterator[str]:
    """The address of its server."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()
    alone = settings.model_copy(update={"workers": 0})
    thread = threading.Thread(target=serve, args=(alone, listener), kwargs={"stopping": stopping}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stopping.set()
    thread.join(30)


@pytest.fixture(params=["data", "server"])
def place(request: pytest.FixtureRequest) -> list[str]:
    """Options that lead to the collection: in its folder, or at its server."""
    found = request.getfixturevalue(request.param)
    return ["--url", found] if request.param == "server" else list(found)


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def found(place: list[str], *options: str, text: str = "red left") -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run("search", text, *place, "--json", *options).stdout)
    return answer


def names(answer: dict[str, Any]) -> list[str]:
    return [Path(result["source"]).stem for result in answer["results"]]


def test_the_best_are_reranked_and_that_is_said(place: list[str], settings: Settings) -> None:
    refused = run("search", "red left", "--rerank", *place, code=2)
    assert "crosslens models export blip2-itm" in refused.stderr
    make_reranker(settings.models_folder)
    asked = ("--rerank", "--deadline", "60000")
    for colour in ("red", "green", "blue"):
        answer = found(place, *asked, text=f"{colour} left")
        assert names(answer)[0].startswith(f"{colour}-")
        assert answer["reranked"] == len(SIDES)
    answer = found(place, *asked, "--rerank-top", "2", "--explain")
    assert answer["reranked"] == 2
    assert sorted(each["rerank"]["place_before"] for each in answer["results"] if "rerank" in each) == [1, 2]
    assert "reranked" not in found(place)
    table = run("search", "red left", *place, *asked)
    assert "Reranked 4 in " in table.stderr
    assert "Reranked" not in run("search", "red left", *place).stderr


def test_how_to_rerank_goes_with_reranking(place: list[str]) -> None:
    for option in (["--rerank-top", "3"], ["--deadline", "100"]):
        assert "go with --rerank" in run("search", "red", *place, *option, code=2).stderr
    run("search", "red", *place, "--rerank", "--rerank-top", "201", code=2)


def test_whether_features_come_at_ingest_is_shown_and_changed(place: list[str], settings: Settings) -> None:
    def shown(*words: str) -> Any:
        return json.loads(run("collections", *words, *place, "--json").stdout)

    assert shown("show", "media")["reranker"] == {"image": None, "text": None}
    assert shown("show", "media")["rerank_features"] is False
    assert shown("declare", "media", "--rerank-features")["rerank_features"] is True
    assert shown("declare", "media", "trip=keyword")["rerank_features"] is True
    assert "at ingest" in run("collections", "show", "media", *place).stdout
    assert shown("declare", "media", "cost=float", "--no-rerank-features")["fields"]["cost"] == "float"
    assert shown("show", "media")["rerank_features"] is False
    assert shown("create", "other", "--rerank-features")["rerank_features"] is True
    run("collections", "declare", "media", *place, code=2)
    refused = run("collections", "declare", "none", "--rerank-features", *place, code=2)
    assert "none" in refused.stderr
    make_reranker(settings.models_folder)
    assert shown("show", "media")["reranker"] == {"image": "blip2-itm", "text": None}


def test_the_sheet_says_it(data: list[str], settings: Settings, tmp_path: Path) -> None:
    make_reranker(settings.models_folder)
    sheet = tmp_path / "sheet.html"
    run("search", "red left", *data, "--rerank", "--deadline", "60000", "--sheet", str(sheet))
    assert "reranked 4 in " in sheet.read_text(encoding="utf-8")
    run("search", "red left", *data, "--sheet", str(sheet))
    assert "reranked" not in sheet.read_text(encoding="utf-8")


def test_the_client_asks_for_it(server: str, settings: Settings) -> None:
    make_reranker(settings.models_folder)
    with Crosslens(server) as client:
        answer = client.search("blue left", rerank={"top": 3, "deadline_ms": 60_000}, explain=True).answer
        assert answer.reranked == 3
        assert answer.results[0].rerank is not None
        assert answer.results[0].source.endswith("blue-red.png")
        assert client.search("blue left").answer.reranked is None
        (many,) = client.search_many([{"text": "red left", "rerank": {"deadline_ms": 60_000}}])
        assert many.reranked == len(SIDES)
        made = client.collections.create("third", rerank_features=True)
        assert made.rerank_features
        assert made.reranker.image == "blip2-itm"
        assert not client.collections.declare("third", rerank_features=False).rerank_features
