"""Classification over HTTP: uploads, texts and items; label sets that are kept; a job that writes them."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from indexer.errors import MediaError, UrlRefused
from indexer.settings import Settings
from indexer.store import Store, open_store
from search_api.app import create_app
from search_api.classify import MOST_ITEMS, MOST_URLS
from search_api.services import Services
from tests.bundles import picture
from tests.search_api.test_http import problem, upload

CLASSIFY = "/v1/collections/media/classify"
LABELS = "/v1/collections/media/labels"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[tuple[Settings, Store]]:
    """One index process for all of these tests."""
    settings = Settings(data=tmp_path_factory.mktemp("classify") / "data", model=str(colours), workers=0)
    with open_store(settings) as store:
        yield settings, store


@pytest.fixture
def client(index: tuple[Settings, Store]) -> Iterator[FlaskClient]:
    settings, store = index
    services = Services(settings)
    with create_app(settings, services).test_client() as client:
        client.put("/v1/collections/media")
        yield client
    services.close()
    store.delete("media")
    shutil.rmtree(settings.uploads_folder, ignore_errors=True)


def data_url(colour: str) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(colour)).decode()


def classify(client: FlaskClient, **body: Any) -> dict[str, Any]:
    answer = client.post(CLASSIFY, json=body)
    assert answer.status_code == 200, answer.data
    found: dict[str, Any] = answer.get_json()
    return found


def test_pictures_texts_and_items_in_one_request(client: FlaskClient) -> None:
    upload(client, ("g.png", picture("green")), request={"items": [{"file": "g.png", "id": "my green"}]})
    items = [{"image": data_url("red")}, {"text": "a green photo"}, {"item": "my green"}, {"image": data_url("blue")}]
    answer = classify(client, items=items, labels=["red", {"name": "leafy", "prompts": ["green", "a green photo"]}])
    assert [each["tags"] for each in answer["results"]] == [["red"], ["leafy"], ["leafy"], []]
    assert [each["item"] for each in answer["results"]] == [None, None, "my green", None]
    assert answer["probabilities_from"] == {"image": "model", "text": "background"}
    assert answer["results"][3]["none"] > 0.9
    for each in answer["results"]:
        assert each["none"] + sum(label["probability"] for label in each["labels"]) == pytest.approx(1, abs=0.001)
        assert [label["probability"] for label in each["labels"]] == sorted(
            (label["probability"] for label in each["labels"]), reverse=True
        )


def test_uploads_in_a_form(client: FlaskClient) -> None:
    request = json.dumps({"labels": ["red", "green"], "multi": True, "threshold": 0.3, "limit": 1})
    files = {"one": (io.BytesIO(picture("green")), "a.png"), "two": (io.BytesIO(picture("red")), "b.png")}
    answer = client.post(CLASSIFY, data={"request": request, **files}).get_json()
    assert [each["tags"] for each in answer["results"]] == [["green"], ["red"]]
    assert {len(each["labels"]) for each in answer["results"]} == {1}
    named = json.dumps({"labels": ["red"], "items": [{"image": "two"}]})
    answer = client.post(CLASSIFY, data={"request": named, "two": (io.BytesIO(picture("red")), "b.png")}).get_json()
    assert len(answer["results"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"items": [{"text": "x"}]},
        {"items": [{"text": "x"}], "labels": ["a"], "set": "b"},
        {"items": [], "labels": ["a"]},
        {"items": [{"text": "x"}] * (MOST_ITEMS + 1), "labels": ["a"]},
        {"items": [{"image": f"http://h.invalid/{n}.png"} for n in range(MOST_URLS + 1)], "labels": ["a"]},
        {"items": [{"vector": [1.0] * 8}], "labels": ["a"]},
        {"items": [{"text": "x", "weight": 2}], "labels": ["a"]},
        {"items": [{"text": "x"}], "labels": ["a", "A"]},
        {"items": [{"text": "x"}], "labels": ["a"] * 300},
        {"items": [{"text": "x"}], "set": "b", "multi": True},
        {"items": [{"text": "x"}], "labels": ["a"], "threshold": 2},
        {"items": [{"text": "x"}], "labels": ["a"], "template": "no place"},
        [],
        None,
    ],
)
def test_what_makes_no_sense_is_refused(client: FlaskClient, body: Any) -> None:
    problem(client.post(CLASSIFY, json=body), 400, "invalid_request")


def test_what_is_not_there_or_no_picture_is_said(client: FlaskClient) -> None:
    problem(client.post(CLASSIFY, json={"items": [{"item": "gone"}], "labels": ["a"]}), 404, "item_not_found")
    problem(client.post(CLASSIFY, json={"items": [{"text": "x"}], "set": "gone"}), 404, "label_set_not_found")
    other = client.post("/v1/collections/other/classify", json={"items": [{"text": "x"}], "labels": ["a"]})
    problem(other, 404, "collection_not_found")
    junk = base64.b64encode(b"no picture").decode()
    assert client.post(CLASSIFY, json={"items": [{"image": junk}], "labels": ["a"]}).status_code in {415, 422, 400}
    private = {"items": [{"image": "http://127.0.0.1:1/x.png"}], "labels": ["a"]}
    assert client.post(CLASSIFY, json=private).get_json(force=True)["code"] == "url_refused"


def test_all_urls_are_fetched_at_once_and_errors_name_the_item(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fetch_all(self: Services, urls: list[str]) -> list[bytes | MediaError]:
        asked.append(urls)
        return [UrlRefused("It is private.") if "private" in url else picture(url.split("/")[-1]) for url in urls]

    monkeypatch.setattr(Services, "fetch_all", fetch_all)
    items: list[dict[str, str]] = [{"image": data_url("red")}] * 8 + [{"text": "a green photo"}]
    items += [{"image": f"https://a.test/{colour}"} for colour in ("blue", "red")]
    answer = classify(client, items=items, labels=["red", "green", "blue"])
    assert [each["tags"] for each in answer["results"][-2:]] == [["blue"], ["red"]]
    assert asked == [["https://a.test/blue", "https://a.test/red"]]
    body = {"items": [*items, {"image": "https://private.test/blue"}], "labels": ["red"]}
    refused = problem(client.post(CLASSIFY, json=body), 422, "url_refused")
    assert (refused["field"], refused["detail"]) == ("items.11", "items.11: It is private.")


def test_label_sets_are_kept_versioned_and_used(client: FlaskClient) -> None:
    body = {"labels": ["red", "green"], "threshold": 0.6}
    made = client.put(f"{LABELS}/colour", json=body)
    assert (made.status_code, made.get_json()["version"], made.get_json()["field"]) == (201, 1, "labels.colour")
    assert client.put(f"{LABELS}/colour", json={**body, "name": "colour"}).get_json()["version"] == 1
    changed = client.put(f"{LABELS}/colour", json={**body, "labels": ["red", "green", "blue"]})
    assert (changed.status_code, changed.get_json()["version"]) == (200, 2)
    assert client.get(f"{LABELS}/colour").get_json() == changed.get_json()
    assert client.get(LABELS).get_json()["sets"] == [changed.get_json()]
    answer = classify(client, items=[{"image": data_url("blue")}], set="colour")
    assert (answer["results"][0]["tags"], answer["version"], answer["threshold"]) == (["blue"], 2, 0.6)
    assert client.delete(f"{LABELS}/colour").status_code == 204
    problem(client.get(f"{LABELS}/colour"), 404, "label_set_not_found")
    problem(client.delete(f"{LABELS}/colour"), 404, "label_set_not_found")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("colour", {"name": "other", "labels": ["a"]}),
        ("colour", {"labels": []}),
        ("colour", ["a"]),
        ("a.b", {"labels": ["a"]}),
        ("x" * 65, {"labels": ["a"]}),
        ("colour", {"labels": ["a"], "field": "crosslens.kind"}),
    ],
)
def test_what_is_no_label_set_is_refused(client: FlaskClient, name: str, body: Any) -> None:
    problem(client.put(f"{LABELS}/{name}", json=body), 400, "invalid_request")


def test_to_write_to_a_collection_needs_a_queue(client: FlaskClient) -> None:
    problem(client.post(f"{LABELS}/gone/apply"), 404, "label_set_not_found")
    client.put(f"{LABELS}/colour", json={"labels": ["red"]})
    problem(client.post(f"{LABELS}/colour/apply"), 503, "broker_unavailable")
