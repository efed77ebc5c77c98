"""The HTTP API over a real index: uploads, items, searches, and every error as a problem document."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from werkzeug.test import TestResponse

from indexer.models import sessions
from indexer.models.bundle import published_files
from indexer.models.manifest import read_manifest, write_manifest
from indexer.settings import Settings
from search_api.app import create_app
from search_api.services import Services
from tests.bundles import COLOURS, picture
from tests.hostile import huge_png

ITEMS = "/v1/collections/media/items"
SEARCH = "/v1/collections/media/search"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without a queue: `crosslens serve` starts one beside the API, and these tests do not."""
    return settings.model_copy(update={"workers": 0})


@pytest.fixture
def client(settings: Settings) -> Iterator[FlaskClient]:
    services = Services(settings)
    with create_app(settings, services).test_client() as client:
        yield client
    services.close()


def upload(client: FlaskClient, *files: tuple[str, bytes], **fields: Any) -> TestResponse:
    data: dict[str, Any] = {"file": [(io.BytesIO(content), name) for name, content in files]}
    data |= {name: json.dumps(value) for name, value in fields.items()}
    return client.post(ITEMS, data=data, content_type="multipart/form-data")


def problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.data
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = response.get_json(force=True)
    assert body["code"] == code
    assert body["status"] == status
    assert body["detail"]
    assert body["remedy"]
    return body


def test_an_upload_can_be_seen_searched_changed_and_removed(client: FlaskClient) -> None:
    files = [(f"{colour}.png", picture(colour)) for colour in COLOURS]
    items = [{"file": "red.png", "id": "my red", "payload": {"tag": "warm"}}, {"text": "so much blue"}]
    answer = upload(client, *files, request={"items": items})
    assert answer.status_code == 201
    made = answer.get_json()["items"]
    assert len(made) == len(COLOURS) + 1
    assert {each["created"] for each in made} == {True}
    again = upload(client, *files, request={"items": items}).get_json()["items"]
    assert [each["id"] for each in again] == [each["id"] for each in made]
    assert {each["created"] for each in again} == {False}

    found = client.post(SEARCH, json={"query": [{"text": "red"}], "kind": "image", "limit": 1}).get_json()
    assert (found["results"][0]["id"], found["results"][0]["payload"]) == ("my red", {"tag": "warm"})
    said = {"took_ms", "stages", "model", "fingerprint", "devices", "exact", "relevance_from", "warnings", "cursor"}
    assert found.keys() == {"results", *said}
    assert found["devices"]["text"] == "cpu"
    by_picture = client.post(SEARCH, data={"picture": (io.BytesIO(picture("blue", mark=9)), "b.png")}).get_json()
    assert by_picture["results"][1]["text"] == "so much blue"

    item = client.get(f"{ITEMS}/my red").get_json()
    assert (item["kind"], item["width"], item["height"], item["media_type"]) == ("image", 60, 40, "image/png")
    changed = client.patch(f"{ITEMS}/my red", json={"payload": {"tag": None, "stars": 5}})
    assert changed.get_json()["payload"] == {"stars": 5}
    assert client.get(f"{ITEMS}/my red").get_json()["payload"] == {"stars": 5}

    media = client.get(f"{ITEMS}/my red/media")
    assert (media.data, media.mimetype) == (picture("red"), "image/png")
    assert media.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get(f"{ITEMS}/my red/media", headers={"If-None-Match": media.headers["ETag"]}).status_code == 304
    small = client.get(f"{ITEMS}/my red/thumbnail?size=20")
    assert Image.open(io.BytesIO(small.data)).size == (60, 40)  # smaller than the smallest thumbnail

    assert client.delete(f"{ITEMS}/my red").status_code == 204
    problem(client.get(f"{ITEMS}/my red"), 404, "item_not_found")
    problem(client.delete(f"{ITEMS}/my red"), 404, "item_not_found")


def test_an_upload_leaves_the_disk_with_the_last_item_that_has_it(client: FlaskClient, settings: Settings) -> None:
    def kept() -> int:
        return sum(path.is_file() for path in settings.uploads_folder.rglob("*"))

    red = picture("red")
    item = upload(client, ("red.png", red)).get_json()["items"][0]["id"]
    other = client.post("/v1/collections/other/items", data={"file": (io.BytesIO(red), "red.png")}).get_json()["items"][
        0
    ]["id"]
    assert kept() == 1
    assert client.delete(f"{ITEMS}/{item}").status_code == 204
    assert client.get(f"/v1/collections/other/items/{other}/media").data == red
    assert client.delete(f"/v1/collections/other/items/{other}").status_code == 204
    assert kept() == 0
    assert upload(client, ("bad.png", b"no picture")).status_code == 422
    assert kept() == 0


def test_what_cannot_become_an_item_stops_no_other(client: FlaskClient) -> None:
    answer = upload(client, ("a.png", picture("red")), ("b.png", b"no picture"), ("c.png", b""), ("d.png", huge_png()))
    assert answer.status_code == 201
    body = answer.get_json()
    assert [each.get("error", {}).get("code") for each in body["items"]] == [
        None,
        "not_an_image",
        "empty",
        "too_many_pixels",
    ]
    assert body["failed"] == 3
    problem(upload(client, ("b.png", b"no picture")), 422, "not_an_image")


def test_collections_are_made_seen_and_removed(client: FlaskClient) -> None:
    assert client.put("/v1/collections/birds").status_code == 201
    assert client.put("/v1/collections/birds").status_code == 200
    assert client.get("/v1/collections/birds").get_json()["count"] == 0
    problem(client.put("/v1/collections/birds", json={"model": "bridge"}), 409, "model_mismatch")
    problem(client.put("/v1/collections/other", json={"model": "gone"}), 404, "bundle_not_found")
    problem(client.put("/v1/collections/no%20name"), 400, "invalid_name")
    assert [each["name"] for each in client.get("/v1/collections").get_json()["collections"]] == ["birds"]
    assert client.delete("/v1/collections/birds").status_code == 204
    problem(client.get("/v1/collections/birds"), 404, "collection_not_found")
    problem(client.post("/v1/collections/birds/search", json={"query": [{"text": "x"}]}), 404, "collection_not_found")


def test_fields_are_declared_and_then_filtered_by(client: FlaskClient) -> None:
    url = "/v1/collections/media"
    assert (
        upload(
            client, ("r.png", picture("red")), request={"items": [{"file": "r.png", "payload": {"trip": "north"}}]}
        ).status_code
        == 201
    )
    by_trip = {"filter": {"must": [{"key": "trip", "match": {"value": "north"}}]}}
    assert "is not declared" in problem(client.post(SEARCH, json=by_trip), 400, "invalid_request")["detail"]
    declared = client.put(url, json={"fields": {"trip": "keyword", "people[].age": "integer"}})
    assert declared.status_code == 200
    assert declared.get_json()["fields"].items() >= {("trip", "keyword"), ("people[].age", "integer")}
    assert len(client.post(SEARCH, json=by_trip).get_json()["results"]) == 1  # at once
    again = client.put(url, json={"fields": {"trip": "keyword"}})
    assert (again.status_code, again.get_json()) == (200, declared.get_json())
    assert (
        client.get(url).get_json() == declared.get_json() == client.get("/v1/collections").get_json()["collections"][0]
    )
    assert not [name for name in declared.get_json()["fields"] if name.startswith("crosslens")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trip": "word"}, "fields.trip"),
        ({"year": "keyword"}, "declared as integer already"),
        ({"crosslens.kind": "keyword"}, "not a field that can be declared"),
        ({'"crosslens".kind': "keyword"}, "not a field that can be declared"),
        ({"a b": "keyword"}, "not a field that can be declared"),
        ({"": "keyword"}, "fields"),
        ({"x" * 257: "keyword"}, "fields"),
        ({f"f{number}": "keyword" for number in range(101)}, "fields"),
        ({f"f{number}": "keyword" for number in range(99)}, "no more than 100"),
        (["trip"], "fields"),
    ],
)
def test_fields_that_cannot_be_declared_make_nothing(client: FlaskClient, fields: Any, words: str) -> None:
    refused = client.put("/v1/collections/birds", json={"fields": fields})
    assert words in problem(refused, 400, "invalid_request")["detail"]
    assert client.get("/v1/collections/birds").status_code == 404


def test_health_and_readiness(client: FlaskClient, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok"}
    ready = client.get("/readyz")
    devices = {"image": "cpu", "text": "cpu"}
    assert ready.get_json()["parts"] == {"model": {"ok": True, "devices": devices}, "index": {"ok": True}}
    absent = Services(settings.model_copy(update={"model": "gone"}))
    with create_app(settings, absent).test_client() as other:
        body = problem(other.get("/readyz"), 503, "not_ready")
        assert body["parts"]["model"]["code"] == "bundle_not_found"
        assert body["parts"]["index"]["ok"]
    absent.close()


def test_an_encoder_that_is_lost_ends_readiness(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(settings)
    lost = {"yes": False}
    real = sessions._Replica._run

    def run(*arguments: Any) -> Any:
        if lost["yes"]:
            raise RuntimeError("the device fell off the bus")
        return real(*arguments)

    monkeypatch.setattr(sessions._Replica, "_run", run)
    with create_app(settings, services).test_client() as client:
        assert client.get("/readyz").status_code == 200
        lost["yes"] = True
        body = problem(client.get("/readyz"), 503, "not_ready")
        assert body["parts"]["model"]["code"] == "encoder_failed"
        client.put("/v1/collections/media")
        problem(client.post(SEARCH, json={"query": [{"text": "red"}]}), 503, "encoder_failed")
        lost["yes"] = False
        assert client.get("/readyz").status_code == 200
    services.close()


def test_readiness_holds_every_golden_vector_once_and_a_canary_after(
    settings: Settings, colours: Path, tmp_path: Path
) -> None:
    """A bundle whose second golden text is off: the canary alone would not see it."""
    shutil.copytree(colours, tmp_path / "off")
    with np.load(tmp_path / "off" / "golden.npz") as arrays:
        image, text = arrays["image"], arrays["text"]
    text[1] = np.roll(text[1], 1)
    np.savez(tmp_path / "off" / "golden.npz", image=image, text=text)
    manifest = read_manifest(tmp_path / "off").model_copy(update={"files": published_files(tmp_path / "off")})
    write_manifest(manifest, tmp_path / "off")
    off = Services(settings.model_copy(update={"model": str(tmp_path / "off")}))
    with create_app(settings, off).test_client() as client:
        body = problem(client.get("/readyz"), 503, "not_ready")
        assert body["parts"]["model"]["code"] == "golden_mismatch"
        assert "of green" in body["detail"]
    off.close()


def test_metrics_name_requests_by_route_and_towers_by_device(client: FlaskClient) -> None:
    client.get("/readyz")
    client.get("/v1/collections/gone")
    client.get("/no/such/path")
    text = client.get("/metrics").get_data(as_text=True)
    assert 'crosslens_requests_total{method="GET",route="/v1/collections/<name>",status="404"} 1.0' in text
    assert 'crosslens_requests_total{method="other",route="none",status="404"} 1.0' in text
    assert 'device="cpu"' in next(line for line in text.splitlines() if line.startswith("crosslens_encoder_tower{"))
    assert 'tower="image"' in text
    assert "/no/such/path" not in text


def test_every_error_is_a_problem_that_says_what_to_do(client: FlaskClient) -> None:
    client.put("/v1/collections/media")
    problem(client.get("/nowhere"), 404, "not_found")
    problem(client.post("/healthz"), 405, "method_not_allowed")
    problem(client.post(SEARCH, data="{", content_type="application/json"), 400, "invalid_request")
    problem(client.post(SEARCH, data="x", content_type="text/plain"), 415, "wrong_content_type")
    problem(client.post(SEARCH, data="", content_type="application/json"), 400, "invalid_request")
    for body in (
        {"dislike": ["x"]},
        [],
        {"query": [], "diversity": 1},
        {"query": [{"text": "a", "image": "b"}]},
        {"query": [{"text": "a"}], "limit": 10**9},
        {"query": [{"text": "a"}], "unknown": 1},
        {"query": [{"text": "a"}], "filter": {"must": [{"key": 1}]}},
        {"query": [{"text": "a", "weight": 0}]},
        {"query": [{"image": "%%%"}]},
    ):
        problem(client.post(SEARCH, json=body), 400, "invalid_request")
    problem(client.post(SEARCH, json={"query": [{"vector": [1.0]}]}), 422, "invalid_vector")
    problem(client.post(SEARCH, json={"query": [{"item": "../../etc/passwd"}]}), 404, "item_not_found")
    problem(client.post(SEARCH, json={"query": [{"image": "aGVsbG8="}]}), 422, "not_an_image")
    problem(client.post(ITEMS, json={"items": []}), 400, "invalid_request")
    problem(
        client.post(ITEMS, json={"items": [{"text": "a", "payload": {"crosslens": 1}}]}), 400, "reserved_payload_key"
    )
    problem(client.get(f"{ITEMS}/x/thumbnail?size=9999999"), 400, "invalid_request")


def test_too_large_a_body_is_refused(settings: Settings) -> None:
    services = Services(settings)
    with create_app(settings.model_copy(update={"max_bytes": 1000}), services).test_client() as client:
        problem(upload(client, ("big.png", bytes(2**21))), 413, "too_large")
    services.close()


def test_other_sites_and_other_names_are_refused(client: FlaskClient) -> None:
    problem(client.get("/healthz", headers={"Host": "evil.example"}), 403, "refused")
    problem(client.put("/v1/collections/x", headers={"Origin": "https://evil.example"}), 403, "refused")
    problem(client.put("/v1/collections/x", headers={"Sec-Fetch-Site": "cross-site"}), 403, "refused")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["query", "text", "image", "item", "vector", "weight", "filter", "limit", "must", "key", "match"]
            ),
            inner,
        )
    ),
    max_leaves=10,
)


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=anything)
def test_no_body_makes_it_fail(client: FlaskClient, body: Any) -> None:
    client.put("/v1/collections/media")
    assert client.post(SEARCH, json=body).status_code < 500
    assert client.post(ITEMS, json=body).status_code < 500
