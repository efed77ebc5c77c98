"""Reranking over HTTP with a model that runs: what is installed, what is asked, what is answered."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator

from indexer.errors import NoReranker
from indexer.models.rerank.reranker import Reranker
from indexer.moderation.policy_file import parse_policy
from indexer.moderation.stored import put_policy
from indexer.settings import Settings
from search_api.access.keys import Role
from search_api.app import create_app
from search_api.openapi.document import document
from search_api.services import Services
from tests.rerankers import halves, make_reranker, make_text_reranker
from tests.search_api.access.conftest import Api

SEARCH = "/v1/collections/media/search"
SIDES = [(left, right) for left in ("red", "green", "blue") for right in ("red", "green", "blue") if left != right]
PATIENT = {"deadline_ms": 60_000}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"workers": 0})


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    services = Services(settings)
    yield create_app(settings, services)
    services.close()


@pytest.fixture
def client(app: Flask) -> Any:
    """An API whose collection has pictures of two halves each."""
    client = app.test_client()
    files = [(io.BytesIO(halves(*sides)), f"{'-'.join(sides)}.png") for sides in SIDES]
    items = [{"file": name, "id": name[:-4], "payload": {"note": name}} for _, name in files]
    texts = [{"text": "a red cat and a dog", "id": "cat"}, {"text": "red", "id": "red"}]
    data = {"file": files, "request": json.dumps({"items": [*items, *texts]})}
    answer = client.post("/v1/collections/media/items", data=data, content_type="multipart/form-data")
    assert answer.status_code == 201, answer.data
    return client


def install(settings: Settings, *, texts: bool = False) -> None:
    settings.models_folder.mkdir(parents=True, exist_ok=True)
    make_text_reranker(settings.models_folder) if texts else make_reranker(settings.models_folder)


def search(client: Any, text: str = "red left", **request: Any) -> Any:
    body = {"query": [{"text": text}], "kind": "image", "rerank": PATIENT, **request}
    answer = client.post(SEARCH, json=body)
    assert answer.status_code == 200, answer.data
    return answer.get_json()


def test_the_model_tells_what_the_vectors_cannot(client: Any, settings: Settings, app: Flask) -> None:
    install(settings)
    for left, _ in SIDES:
        answer = search(client, f"{left} left", explain=True)
        assert answer["results"][0]["id"].startswith(f"{left}-")
        assert answer["reranked"] == len(SIDES)
        assert answer["stages"]["rerank"] > 0
        assert answer["warnings"] == []
        explained = [result["rerank"] for result in answer["results"]]
        assert sorted(each["place_before"] for each in explained) == list(range(1, len(SIDES) + 1))
        scores = [each["score"] for each in explained]
        assert scores == sorted(scores, reverse=True)
        for each in explained:
            assert each["score"] == pytest.approx(each["matching"] + each["contrastive"], abs=2e-4)
    schema = {"$ref": "#/components/schemas/SearchAnswer", "components": document(app)["components"]}
    assert not [error.message for error in Draft202012Validator(schema).iter_errors(answer)]
    assert 'crosslens_search_stage_seconds_count{stage="rerank"}' in client.get("/metrics").get_data(as_text=True)


def test_without_a_model_it_is_refused_with_the_command_that_gets_one(client: Any, settings: Settings) -> None:
    for body in ({"rerank": True}, {"rerank": {"top": 3}, "kind": "text"}, {"rerank": True, "kind": "video"}):
        for path, sent in ((SEARCH, body), (f"{SEARCH}/batch", {"searches": [body]})):
            asked = {"query": [{"text": "red"}]} | body
            answer = client.post(path, json=asked if path == SEARCH else {"searches": [asked]})
            problem = answer.get_json(force=True)
            assert (answer.status_code, problem["code"]) == (NoReranker.status, "no_reranker"), sent
            name = "cross-encoder" if body.get("kind") == "text" else "blip2-itm"
            assert f"crosslens models export {name}" in problem["remedy"]
    assert search(client, rerank=False)["results"]
    assert client.get("/v1/collections/media").get_json()["reranker"] == {"image": None, "text": None}
    install(settings)  # and it is found without a restart
    assert search(client)["reranked"] == len(SIDES)


def test_what_is_installed_is_told(client: Any, settings: Settings) -> None:
    install(settings)
    install(settings, texts=True)
    models = {"image": "blip2-itm", "text": "cross-encoder"}
    assert client.get("/v1/collections/media").get_json()["reranker"] == models
    assert client.get("/v1/collections").get_json()["collections"][0]["reranker"] == models
    answer = search(client, "red", kind="text")
    assert [result["id"] for result in answer["results"]] == ["red", "cat"]
    assert answer["reranked"] == 2


def test_a_broken_model_breaks_nothing_but_reranking(client: Any, settings: Settings) -> None:
    install(settings)
    (settings.models_folder / "blip2-itm" / "match.onnx").write_bytes(b"no graph")
    answer = search(client)
    assert answer["reranked"] == 0
    assert "does not run" in answer["warnings"][0]
    assert [each["id"] for each in answer["results"]] == [
        each["id"] for each in search(client, rerank=False)["results"]
    ]
    (settings.models_folder / "blip2-itm" / "manifest.json").write_text("{}")
    assert client.get("/v1/collections/media").get_json()["reranker"]["image"] is None


def test_a_form_and_a_batch_are_reranked_too(client: Any, settings: Settings) -> None:
    install(settings)
    body = {"query": [{"text": "blue left"}, {"image": "photo", "weight": 0.01}], "kind": "image", "rerank": PATIENT}
    data = {"request": json.dumps(body), "photo": (io.BytesIO(halves("green", "red")), "p.png")}
    answer = client.post(SEARCH, data=data, content_type="multipart/form-data").get_json()
    assert answer["results"][0]["id"].startswith("blue-")
    assert "another term" in answer["warnings"][0]
    searches = [{"query": [{"text": f"{left} left"}], "kind": "image", "rerank": PATIENT} for left, _ in SIDES]
    answers = client.post(f"{SEARCH}/batch", json={"searches": searches}).get_json()["answers"]
    for (left, _), each in zip(SIDES, answers, strict=True):
        assert each["results"][0]["id"].startswith(f"{left}-")
        assert each["reranked"] == len(SIDES)


def test_a_picture_whose_original_is_gone_is_no_error(client: Any, settings: Settings) -> None:
    install(settings)
    gone = client.get("/v1/collections/media/items/red-blue").get_json()["sha256"]
    (path,) = settings.uploads_folder.rglob(f"{gone}*")
    path.unlink()
    answer = search(client, "red left blue right")
    assert answer["reranked"] == len(SIDES) - 1
    assert answer["results"][-1]["id"] == "red-blue"
    assert answer["warnings"][0].startswith("1 picture could not be looked at")


def test_features_that_are_kept_go_with_their_item(client: Any, settings: Settings) -> None:
    install(settings)
    search(client)

    def kept() -> int:
        return len([path for path in settings.rerank_folder.rglob("*") if path.is_file()])

    assert kept() == len(SIDES)
    assert client.delete("/v1/collections/media/items/red-blue").status_code == 204
    assert kept() == len(SIDES) - 1
    assert client.delete("/v1/collections/media").status_code == 204
    assert kept() == 0


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Reranker]:
    """The models that are made from now on; each has sessions of its own."""
    models: list[Reranker] = []
    real = Reranker.__init__

    def noted(self: Reranker, *arguments: Any) -> None:
        models.append(self)
        real(self, *arguments)

    monkeypatch.setattr(Reranker, "__init__", noted)
    return models


def test_uploads_are_looked_at_by_the_model_of_the_searches(
    client: Any, app: Flask, settings: Settings, made: list[Reranker]
) -> None:
    install(settings)
    made.clear()
    client.put("/v1/collections/media", json={"rerank_features": True})
    upload(client, "white-red")
    assert len([path for path in settings.rerank_folder.rglob("*") if path.is_file()]) == 1
    assert search(client)["reranked"] == len(SIDES) + 1
    upload(client, "white-blue")
    services: Services = app.extensions["crosslens"]
    assert made == [services.rerankers.of("image").model]


def test_where_reranking_is_the_workers_uploads_open_no_model(settings: Settings, made: list[Reranker]) -> None:
    install(settings)
    made.clear()
    elsewhere = settings.model_copy(update={"rerank_in": "worker", "redis_url": "redis://127.0.0.1:1"})
    services = Services(elsewhere)
    client = create_app(settings, services).test_client()
    assert client.put("/v1/collections/media", json={"rerank_features": True}).status_code == 201
    upload(client, "white-red")
    assert made == []
    services.close()


def upload(client: Any, name: str) -> None:
    left, right = name.split("-")
    data = {"file": (io.BytesIO(halves(left, right)), f"{name}.png")}
    answer = client.post("/v1/collections/media/items", data=data, content_type="multipart/form-data")
    assert answer.status_code == 201, answer.data


def test_whether_features_are_computed_at_ingest_is_kept_with_the_collection(client: Any) -> None:
    media = "/v1/collections/media"
    assert client.get(media).get_json()["rerank_features"] is False
    assert client.put(media, json={"rerank_features": True}).get_json()["rerank_features"] is True
    assert client.put(media, json={"fields": {"trip": "keyword"}}).get_json()["rerank_features"] is True
    assert client.get(media).get_json()["rerank_features"] is True
    assert client.put(media, json={"rerank_features": False}).get_json()["rerank_features"] is False
    made = client.put("/v1/collections/other", json={"rerank_features": True})
    assert (made.status_code, made.get_json()["rerank_features"]) == (201, True)
    assert client.put(media, json={"rerank_features": 1}).status_code == 400


def test_the_schema_lets_through_what_is_taken(app: Flask) -> None:
    schema = {"$ref": "#/components/schemas/SearchRequest", "components": document(app)["components"]}
    fits = Draft202012Validator(schema).is_valid
    query = [{"text": "red"}]
    for rerank in (True, False, {}, {"top": 3}, {"top": 200, "deadline_ms": 60_000}):
        assert fits({"query": query, "rerank": rerank})
        assert fits({"like": ["a"], "rerank": rerank})
        assert not fits({"rerank": rerank})
        assert fits({"query": query, "rerank": rerank, "diversity": 0, "order_by": None})
    wrong: Any
    for wrong in (None, 1, {"top": 0}, {"deadline_ms": 0}, {"first": 1}, [True]):
        assert not fits({"query": query, "rerank": wrong})
    for other in ({"diversity": 0.1}, {"order_by": "year"}):
        assert not fits({"query": query, "rerank": True, **other})
        assert fits({"query": query, "rerank": False, **other})


POLICY = """
name: notes
categories:
  - name: hidden
    action: block
    threshold: 0.5
    detectors:
      - {type: text, words: [hidden], fields: [note]}
  - name: veiled
    action: blur
    threshold: 0.5
    detectors:
      - {type: text, words: [veiled], fields: [note]}
"""


def test_what_a_visitor_may_not_see_is_neither_compared_nor_counted(
    client: Any, app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(settings)
    services: Services = app.extensions["crosslens"]
    notes = {"red-blue": "hidden", "red-green": "veiled"}
    for name, note in notes.items():
        client.patch(f"/v1/collections/media/items/{name}", json={"payload": {"note": note}})
    put_policy(services.store, services.collection("media"), parse_policy(POLICY), by="test")
    services.judge_again("media", [each.id for each in services.collection("media").scroll(100)[0]])
    api = Api(settings, services)
    keys = {role: api.key(role) for role in (Role.READ, Role.MODERATE)}
    services.forget_engines("media")
    compared: list[str] = []
    pictures = type(services.rerankers.of("image"))
    compare = pictures.compare

    def noted(self: Any, texts: Any, items: Any, walk: Any) -> Any:
        compared.extend(item.record.name for item in items)
        return compare(self, texts, items, walk)

    monkeypatch.setattr(pictures, "compare", noted)
    body = {"query": [{"text": "red left"}], "kind": "image", "rerank": PATIENT}
    answer = api.ask("POST", SEARCH, keys[Role.READ], json=body).get_json()
    assert answer["reranked"] == len(SIDES) - 1
    assert answer["results"][0]["id"] == "red-green"  # it is shown, though blurred
    assert "red-blue" not in compared
    answer = api.ask("POST", f"{SEARCH}?view=moderator", keys[Role.MODERATE], json=body).get_json()
    assert answer["reranked"] == len(SIDES)
    assert "red-blue" in compared


def test_the_first_to_ask_is_not_kept_waiting_while_a_model_opens(
    client: Any, app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(settings)
    services: Services = app.extensions["crosslens"]
    may_open = threading.Event()
    model = services.rerankers.of("image").model
    warm_up = model.warm_up
    monkeypatch.setattr(type(model), "warm_up", lambda self: may_open.wait(60) and warm_up())
    answer = search(client, rerank={"deadline_ms": 1})
    assert answer["reranked"] == 0
    assert "being opened" in answer["warnings"][0]
    may_open.set()
    assert search(client)["reranked"] == len(SIDES)


def test_a_model_that_did_not_open_is_tried_again(
    client: Any, app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(settings)
    path: Path = settings.models_folder / "blip2-itm" / "vision.onnx"
    graph = path.read_bytes()
    path.write_bytes(graph[:-1])
    assert search(client)["reranked"] == 0
    path.write_bytes(graph)
    assert search(client)["reranked"] == len(SIDES)
