"""Searches over HTTP that are reranked by a worker: as the server itself would, and in order where none is there."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from indexer.settings import Settings
from search_api.app import create_app
from search_api.services import Services
from tests.rerankers import halves, make_reranker, make_text_reranker
from tests.waiting import until
from tests.workers.conftest import Cluster, cluster  # noqa: F401  a fixture
from workers.rerank.messages import WORKERS

SEARCH = "/v1/collections/media/search"
SIDES = [(left, right) for left in ("red", "green", "blue") for right in ("red", "green", "blue") if left != right]
ASK: dict[str, Any] = {"query": [{"text": "red left"}, {"text": "cat", "weight": 0.5}], "explain": True}
PATIENT = {"deadline_ms": 60_000}


@pytest.fixture
def app(cluster: Cluster, settings: Settings) -> Iterator[Flask]:  # noqa: F811
    services = Services(settings.model_copy(update={"rerank_in": "worker"}))
    yield create_app(services.settings, services)
    services.close()


@pytest.fixture
def client(app: Flask) -> Any:
    client = app.test_client()
    files = [(io.BytesIO(halves(*sides)), f"{'-'.join(sides)}.png") for sides in SIDES]
    items = [{"file": name, "id": name[:-4]} for _, name in files]
    texts = [{"text": text, "id": f"text-{number}"} for number, text in enumerate(("red left", "a cat", "red cat"))]
    data = {"file": files, "request": json.dumps({"items": [*items, *texts]})}
    assert client.post("/v1/collections/media/items", data=data, content_type="multipart/form-data").status_code == 201
    return client


def ask(client: Any, **request: Any) -> Any:
    answer = client.post(SEARCH, json={**ASK, **request})
    assert answer.status_code == 200, answer.data
    return answer.get_json()


def shown(answer: Any) -> list[Any]:
    return [(each["id"], each["score"], each.get("rerank")) for each in answer["results"]]


def opens_none(*_: object) -> None:
    raise AssertionError("the model is the worker's")


def part(client: Any) -> Any:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.data
    return answer.get_json()["parts"]["rerank"]


def test_a_worker_reranks_as_the_server_would_which_opens_no_model(
    cluster: Cluster,  # noqa: F811
    client: Any,
    app: Flask,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = ask(client)
    answer = ask(client, rerank=PATIENT)
    assert shown(answer) == shown(plain)
    assert answer["reranked"] == 0
    assert answer["warnings"] == [
        "Pictures keep their order: no worker that reranks is there.",
        "Texts keep their order: no worker that reranks is there.",
    ]
    assert part(client)["code"] == "reranker_away"

    cluster.start_worker("rerank")
    until(lambda: cluster.jobs._redis.zcard(WORKERS))
    until(lambda: client.post(SEARCH, json={**ASK, "rerank": PATIENT}).status_code == 409)
    refused = client.post(SEARCH, json={**ASK, "rerank": True}).get_json()
    assert (refused["code"], refused["remedy"]) == (
        "no_reranker", "Run `crosslens models export blip2-itm` where the workers run.",
    )  # fmt: skip

    settings.models_folder.mkdir(parents=True, exist_ok=True)
    make_reranker(settings.models_folder)
    make_text_reranker(settings.models_folder)
    services = Services(settings)
    own = create_app(settings, services).test_client()
    monkeypatch.setattr("indexer.models.rerank.reranker._Scorer.__init__", opens_none)
    until(lambda: client.get("/v1/collections").get_json()["collections"][0]["reranker"]["text"] == "cross-encoder")
    until(lambda: ask(client, rerank=PATIENT)["reranked"] == len(SIDES) + 3)
    monkeypatch.undo()
    theirs = ask(client, rerank=PATIENT)
    assert theirs["warnings"] == []
    assert part(client) == {"ok": True}
    until(lambda: ask(own, rerank=PATIENT)["reranked"] == len(SIDES) + 3)
    assert shown(theirs) == shown(ask(own, rerank=PATIENT))
    assert shown(theirs) != shown(plain)
    assert shown(theirs)[0][2]["contrastive"] is not None
    text = client.get("/metrics").get_data(as_text=True)
    assert 'crosslens_queue_messages{queue="rerank"} 0.0' in text
    until(
        lambda: 'crosslens_worker_stage_seconds_count{stage="rerank"}' in client.get("/metrics").get_data(as_text=True)
    )
    services.close()


def test_an_api_whose_queue_is_away_answers_as_if_nothing_was_to_be_reranked(cluster: Cluster, client: Any) -> None:  # noqa: F811
    assert cluster.broker is not None
    plain = ask(client)
    cluster.broker.kill()
    cluster.broker.wait()
    answer = ask(client, rerank=PATIENT, kind="image")
    assert [each["id"] for each in answer["results"]] == [
        each["id"] for each in plain["results"] if not each["id"].startswith("text")
    ]
    assert answer["reranked"] == 0
    assert any("keep their order: the queue" in warning for warning in answer["warnings"]), answer["warnings"]
