"""What is asked over HTTP of a whole collection: facets, walks, batches, pages, and its duplicates."""

import io
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from tests.bundles import COLOURS, picture
from tests.search_api.test_http import ITEMS, SEARCH, client, problem, settings, upload  # noqa: F401  fixtures
from tests.waiting import until

FACETS = "/v1/collections/media/facets"
DUPLICATES = "/v1/collections/media/duplicates"
EXAMPLES = Path(__file__).parents[2] / "examples" / "media"


@pytest.fixture
def coloured(client: FlaskClient) -> FlaskClient:  # noqa: F811
    """Seven pictures with a year and tags, and two texts."""
    items: list[dict[str, Any]] = [
        {"file": f"{colour}.png", "id": colour, "payload": {"year": 2018 + number % 3, "tags": ["all", colour]}}
        for number, colour in enumerate(COLOURS)
    ]
    items += [{"text": "red words", "payload": {"year": 2018}}, {"text": "blue words"}]
    files = [(f"{colour}.png", picture(colour)) for colour in COLOURS]
    assert upload(client, *files, request={"items": items}).get_json()["failed"] == 0
    return client


def counts(client: FlaskClient, **body: Any) -> dict[str, dict[Any, int]]:  # noqa: F811
    answer = client.post(FACETS, json=body)
    assert answer.status_code == 200, answer.data
    return {
        field: {each["value"]: each["count"] for each in values}
        for field, values in answer.get_json()["facets"].items()
    }


def test_facets_count_under_a_filter(coloured: FlaskClient) -> None:
    assert counts(coloured, fields=["kind", "year"]) == {
        "kind": {"image": 7, "text": 2},
        "year": {2018: 4, 2019: 2, 2020: 2},
    }
    assert counts(coloured, fields=["year"], filter="year>=2019", kind="image") == {"year": {2019: 2, 2020: 2}}
    assert counts(coloured, fields=["tags"], filter="tags:red,blue") == {"tags": {"all": 2, "red": 1, "blue": 1}}
    assert counts(coloured, fields=["tags"], limit=1) == {"tags": {"all": 7}}
    assert coloured.post(FACETS, json={"fields": ["kind"], "filter": "-kind:text"}).get_json()["total"] == 7
    problem(coloured.post(FACETS, json={"fields": []}), 400, "invalid_request")
    problem(coloured.post(FACETS, json={"fields": ["year"], "filter": "year:soon"}), 400, "invalid_request")
    assert coloured.post(FACETS, json={"fields": ["nowhere"]}).status_code == 400


def test_a_short_filter_and_a_long_one_say_the_same(coloured: FlaskClient) -> None:
    long = {"must": [{"key": "year", "range": {"gte": 2019}}], "must_not": [{"key": "tags", "match": {"value": "red"}}]}
    both = [
        coloured.post(SEARCH, json={"query": [{"text": "green"}], "filter": each}).get_json()["results"]
        for each in (long, "year>=2019 -tags:red")
    ]
    assert both[0] == both[1]
    assert len(both[0]) > 1


def test_pages_of_a_search_and_of_a_walk_over_http(coloured: FlaskClient) -> None:
    for request in ({"query": [{"text": "red"}]}, {}, {"order_by": "-year"}):
        seen: list[str] = []
        answer = coloured.post(SEARCH, json={**request, "limit": 4}).get_json()
        while True:
            seen += [result["id"] for result in answer["results"]]
            if answer["cursor"] is None:
                break
            answer = coloured.post(SEARCH, json={"cursor": answer["cursor"], "limit": 4}).get_json()
        assert len(seen) == len(set(seen)) == (8 if "order_by" in request else 9)
    problem(coloured.post(SEARCH, json={"cursor": "AAAA"}), 400, "invalid_cursor")
    problem(coloured.post(SEARCH, json={"cursor": "é"}), 400, "invalid_cursor")


def test_a_batch_answers_as_its_searches_do(coloured: FlaskClient) -> None:
    searches = [{"query": [{"text": colour}], "limit": 2} for colour in ("red", "blue")]
    batch = coloured.post(f"{SEARCH}/batch", json={"searches": searches}).get_json()["answers"]
    alone = [coloured.post(SEARCH, json=search).get_json() for search in searches]
    assert [each["results"] for each in batch] == [each["results"] for each in alone]
    problem(coloured.post(f"{SEARCH}/batch", json={"searches": [*searches, {}]}), 400, "invalid_request")


def test_an_image_by_url_goes_through_the_safe_fetcher(coloured: FlaskClient) -> None:
    answer = coloured.post(SEARCH, json={"query": [{"image": "http://127.0.0.1:1/x.png"}]})
    problem(answer, 422, "url_refused")


def test_duplicates_are_found_in_the_background_and_read_in_pages(client: FlaskClient) -> None:  # noqa: F811
    cat, rocket = (Image.open(EXAMPLES / name).convert("RGB") for name in ("cat.jpg", "rocket.jpg"))
    files = []
    for name, image in (("cat", cat), ("rocket", rocket)):
        for quality in (95, 60, 40):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality)
            files.append((f"{name}{quality}.jpg", file.getvalue()))
    files += [(f"{colour}.png", picture(colour)) for colour in COLOURS]
    assert upload(client, *files).get_json()["failed"] == 0

    def done(**body: Any) -> dict[str, Any]:
        client.post(DUPLICATES, json=body)
        body.pop("fresh", None)
        until(lambda: client.post(DUPLICATES, json=body).status_code == 200)
        answer: dict[str, Any] = client.post(DUPLICATES, json=body).get_json()
        return answer

    first = done(limit=1)
    assert (first["state"], first["exact"], first["groups_count"]) == ("done", True, 2)
    second = done(limit=1, after=first["next"])
    assert (len(first["groups"]), len(second["groups"]), second["next"]) == (1, 1, None)
    groups = first["groups"] + second["groups"]
    assert [len(group["members"]) for group in groups] == [2, 2]
    assert all(member["distance"] <= 31 for group in groups for member in group["members"])
    removed = groups[0]["members"][0]["id"]
    assert client.delete(f"{ITEMS}/{removed}").status_code == 204
    again = done(fresh=True)
    assert sorted(len(group["members"]) for group in again["groups"]) == [1, 2]
    assert done(by="bytes")["groups"] == []
    problem(client.post(DUPLICATES, json={"by": "bytes", "threshold": 3}), 400, "invalid_request")
    problem(client.post(DUPLICATES, json={"threshold": 2.5e-42}), 400, "invalid_request")
    problem(client.post(DUPLICATES, json={"by": "picture", "threshold": 48}), 400, "invalid_request")
    problem(client.post("/v1/collections/none/duplicates", json={}), 404, "collection_not_found")
