"""The embedded index' HTTP API in this process: its limits, hostile bodies, aliases, and groups in several rounds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.edge.app import create_app
from indexer.edge.catalog import Catalog
from indexer.edge.groups import group_ids

SIZE = 4
COUNT = 2_000
SECRET = "secret"
READS = [
    "points",
    "points/scroll",
    "points/count",
    "points/query",
    "points/query/batch",
    "points/query/groups",
    "facet",
]
WRITES = [
    ("PUT", "points"),
    ("POST", "points/delete"),
    ("POST", "points/payload"),
    ("PUT", "points/payload"),
    ("POST", "points/payload/delete"),
    ("POST", "points/payload/clear"),
    ("POST", "points/batch"),
    ("PUT", "index"),
]


class Api:
    """Requests to the API, and its answers."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client

    def __call__(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
        data = json.dumps(body).encode() if raw is None else raw
        answer = self._client.open(f"/{path}", method=method, data=data, headers={"api-key": SECRET})
        whole = answer.get_json()
        if answer.status_code >= 400:
            assert isinstance(whole["status"]["error"], str)
            return answer.status_code, whole["status"]["error"]
        return answer.status_code, whole["result"]

    def post(self, path: str, body: Any) -> Any:
        status, result = self("POST", f"collections/{path}", body)
        assert status == 200, result
        return result


def vectors() -> np.ndarray:
    """Unit vectors, the nearer to (1, 0, 0, 0) the earlier."""
    chance = np.random.default_rng(3)
    away = chance.normal(size=(COUNT, SIZE - 1))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    angles = np.linspace(0.01, 2, COUNT)[:, None]
    return np.hstack([np.cos(angles), np.sin(angles) * away]).astype(np.float32)


def payload(number: int) -> dict[str, Any]:
    """A first video hides all others behind its frames; every tenth point is also in groups of its own hundred."""
    return {
        "video": "first" if number < 1_500 else f"v{number % 40}",
        "labels": ["all", f"l{number // 100}"] if number % 10 == 0 else "all",
        "mixed": number % 7 if number % 2 else f"m{number % 7}",
        "number": number,
    }


def opened(folder: Path) -> tuple[Catalog, Api]:
    catalog = Catalog(folder, optimize_after=10**9)
    return catalog, Api(create_app(catalog, SECRET).test_client())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    catalog, api = opened(tmp_path_factory.mktemp("index"))
    api("PUT", "collections/c", {"vectors": {"size": SIZE, "distance": "Cosine"}})
    for field, schema in {"video": "keyword", "labels": "keyword", "number": "integer"}.items():
        api("PUT", "collections/c/index", {"field_name": field, "field_schema": schema})
    points = [{"id": n, "vector": v.tolist(), "payload": payload(n)} for n, v in enumerate(vectors())]
    api("PUT", "collections/c/points", {"points": points})
    yield api
    catalog.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    catalog, api = opened(tmp_path)
    for name in ("a", "b"):
        api("PUT", f"collections/{name}", {"vectors": {"size": SIZE, "distance": "Cosine"}, "metadata": {"is": name}})
    yield api
    catalog.close()


def by_hand(key: str, limit: int, size: int) -> list[tuple[Any, list[int]]]:
    """The groups for the query (1, 0, 0, 0), by going through all points."""
    groups: dict[Any, list[int]] = {}
    for number in np.argsort(-vectors()[:, 0], kind="stable"):
        value = payload(number)[key]
        for group in value if isinstance(value, list) else [value]:
            groups.setdefault(group, [])
            if len(groups[group]) < size:
                groups[group].append(int(number))
    return list(groups.items())[:limit]


@pytest.mark.parametrize("key", ["video", "labels", "mixed", "number"])
@pytest.mark.parametrize(("limit", "size"), [(1, 1), (5, 3), (30, 2), (100, 1), (3, 400)])
def test_groups_are_found_however_large_the_first_one_is(filled: Api, key: str, limit: int, size: int) -> None:
    asked = {"query": [1, 0, 0, 0], "group_by": key, "limit": limit, "group_size": size, "params": {"exact": True}}
    found = filled.post("c/points/query/groups", asked)["groups"]
    assert [(group["id"], [hit["id"] for hit in group["hits"]]) for group in found] == by_hand(key, limit, size)


def test_of_a_group_only_what_passes_the_filter_comes_along(filled: Api) -> None:
    late = {"must": [{"key": "number", "range": {"gte": 1_450}}]}
    asked = {"query": [1, 0, 0, 0], "group_by": "video", "limit": 2, "group_size": 99, "filter": late}
    first, second = filled.post("c/points/query/groups", {**asked, "with_payload": ["number"]})["groups"]
    assert (first["id"], [hit["payload"]["number"] for hit in first["hits"]]) == ("first", list(range(1_450, 1_500)))
    assert (second["id"], len(second["hits"])) == ("v20", 13)


def test_groups_of_a_payload_are_what_qdrant_takes_for_groups() -> None:
    found = {"a": [{"b": ["x", "y"]}, {"b": "x"}, {"c": 1}, 5], "n": 3, "flag": True, "some": ["x", None], "e": []}
    assert group_ids(found, "a[].b") == ["x", "y"]
    assert group_ids(found, "a[].b[]") == ["x", "y"]
    assert group_ids(found, "a[1].b") == ["x"]
    assert group_ids(found, "a[9].b") == []
    assert group_ids(found, "n") == [3]
    assert [group_ids(found, path) for path in ("flag", "some", "e", "gone", "n.x", "a.b")] == [[]] * 6


OVER = {
    "points": {"ids": [1] * 100_001},
    "points/scroll": {"limit": 100_001},
    "points/query": {"query": [1, 0, 0, 0], "limit": 60_000, "offset": 60_000},
    "points/query/batch": {"searches": [{"query": [1, 0, 0, 0]}] * 257},
    "points/query/groups": {"query": [1, 0, 0, 0], "group_by": "video", "limit": 1_000, "group_size": 101},
    "facet": {"key": "video", "limit": 10_001},
}


@pytest.mark.parametrize(("path", "body"), OVER.items(), ids=OVER)
def test_what_asks_for_too_much_is_refused(filled: Api, path: str, body: Any) -> None:
    status, error = filled("POST", f"collections/c/{path}", body)
    assert status == 400
    assert "no more than" in error or "from" in error


@pytest.mark.parametrize(
    "body",
    [
        {"searches": [{"query": [1, 0, 0, 0], "limit": 1_000}] * 101},
        {"searches": {"query": 1}},
        {"searches": 5},
    ],
)
def test_a_batch_is_bounded_as_a_whole(filled: Api, body: Any) -> None:
    assert filled("POST", "collections/c/points/query/batch", body)[0] == 400


BAD = [
    ("points/scroll", {"order_by": "video"}, "No range index"),
    ("points/scroll", {"order_by": "number", "offset": 3}, "offset"),
    ("points/scroll", {"order_by": {"key": "number", "direction": "up"}}, "well formed"),
    ("points/scroll", {"with_vector": ["image"]}, "with_vector"),
    ("facet", {"key": "mixed"}, "No appropriate index"),
    ("facet", {"key": "video", "limit": True}, "limit"),
    ("points/query", {"query": [1, 0, 0]}, "dimension"),
    ("points/query", {"query": {"recommend": {}}}, "positive"),
    ("points/query", {"query": {"recommend": {"positive": [1], "strategy": "best"}}}, "strategy"),
    ("points/query", {"query": [1, 0, 0, 0], "params": {"hnsw_ef": 10**6}}, "hnsw_ef"),
    ("points/query", {"query": [1, 0, 0, 0], "params": {"quantization": {"oversampling": 1e9}}}, "oversampling"),
    ("points/query", {"query": [1, 0, 0, 0], "offset": -1}, "offset"),
    ("points/query", {"query": [1, 0, 0, 0], "using": "image"}, "not supported"),
    ("points/query", {"query": {"fusion": "rrf"}}, "not supported"),
    ("points/query/groups", {"query": [1, 0, 0, 0], "group_by": 'a."b'}, "group_by"),
    ("points/query/groups", {"query": [1, 0, 0, 0]}, "group_by"),
    ("points/count", {"filter": {"must": [{"key": "number", "match": {"any": [True]}}]}}, "any and except"),
    ("points/count", {"filter": {"must": [{"key": "number"}]}}, "says nothing"),
    ("points/count", {"filter": {"must": [{"key": "number", "match": {"value": 2**70}}]}}, "well formed"),
]


@pytest.mark.parametrize(("path", "body", "says"), BAD, ids=[f"{path} {says}" for path, _, says in BAD])
def test_what_is_wrong_is_refused_with_a_sentence(filled: Api, path: str, body: Any, says: str) -> None:
    status, error = filled("POST", f"collections/c/{path}", body)
    assert status == 400
    assert says in error


def test_an_example_that_is_not_there_is_missing(filled: Api) -> None:
    for wanted in (5_000, {"recommend": {"positive": [1, 5_000]}}):
        status, error = filled("POST", "collections/c/points/query", {"query": wanted})
        assert (status, error) == (404, "Not found: No point with id 5000 found")


words = [
    "query",
    "filter",
    "must",
    "should",
    "must_not",
    "min_should",
    "key",
    "match",
    "value",
    "any",
    "except",
    "range",
]
words += ["gte", "nested", "has_id", "is_empty", "limit", "offset", "ids", "points", "batch", "vector", "vectors", "id"]
words += ["payload", "with_payload", "with_vector", "order_by", "direction", "start_from", "recommend", "positive"]
words += ["negative", "strategy", "nearest", "group_by", "group_size", "searches", "params", "hnsw_ef", "exact"]
words += ["quantization", "oversampling", "score_threshold", "operations", "upsert", "delete", "field_name", "type"]
words += ["field_schema", "keys", "actions", "create_alias", "alias_name", "collection_name", "exterior", "geo_polygon"]
words += [
    "geo_radius",
    "center",
    "lon",
    "lat",
    "radius",
    "values_count",
    "gt",
    "text",
    "phrase",
    "include",
    "create_index",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.sampled_from(
        [2**63, 2**64, -(2**70), 0.5, -1e308, "", "video", "number", "a[", 'a."', "\ud800", "asc", "integer"]
    )
    | st.just([1.0, 0, 0, 0])
    | st.just("2024-01-01T00:00:00Z")
)
bodies = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(words), inner, max_size=4),
    max_leaves=14,
)


@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(READS), body=bodies)
@example(path="points/query", body={"query": [1.0, 0, 0, 0], "score_threshold": "x"})
@example(path="points/query", body={"query": {"recommend": {"negative": [1], "strategy": "sum_scores"}}})
@example(path="points/scroll", body={"order_by": {"key": "number", "start_from": 2**63}})
def test_whatever_is_asked_is_answered_or_refused(filled: Api, path: str, body: Any) -> None:
    assert filled("POST", f"collections/c/{path}", body)[0] in {200, 400, 404, 422}


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(WRITES), body=bodies)
@example(route=("POST", "points/batch"), body={"operations": 5})
@example(route=("PUT", "index"), body={"field_name": "x", "field_schema": {"type": []}})
def test_whatever_is_written_is_taken_or_refused(api: Api, route: tuple[str, str], body: Any) -> None:
    method, path = route
    assert api(method, f"collections/a/{path}", body)[0] in {200, 400, 404, 422}


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
@example(body={"vectors": {"size": 4, "distance": []}})
@example(body={"vectors": {"size": 4, "distance": "Cosine"}, "metadata": {"\ud800": 1}})
@example(body={"vectors": {"size": True, "distance": "Cosine"}})
def test_whatever_is_made_is_made_or_refused(api: Api, body: Any) -> None:
    assert api("PUT", "collections/new", body)[0] in {200, 400, 409}
    assert api("POST", "collections/aliases", body)[0] in {200, 400, 404, 409}


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff", b'{"limit": NaN}', b'{"query": [Infinity, 0, 0, 0]}', b"[" * 100_000, b"9" * 10_000],
    ids=["none", "half", "no text", "not a number", "infinite", "deep", "long"],
)
def test_a_body_that_is_no_json_is_refused(filled: Api, raw: bytes) -> None:
    assert filled("POST", "collections/c/points/scroll", raw=raw)[0] == 400


def test_a_bottomless_filter_is_refused(filled: Api) -> None:
    among: dict[str, Any] = {"key": "number", "match": {"value": 1}}
    for _ in range(300):
        among = {"must": [among]}
    status, error = filled("POST", "collections/c/points/count", {"filter": among})
    assert (status, "filter" in error) == (400, True)


def aliases(api: Api) -> dict[str, str]:
    return {each["alias_name"]: each["collection_name"] for each in api("GET", "aliases")[1]["aliases"]}


def change(api: Api, *actions: Any) -> int:
    return api("POST", "collections/aliases", {"actions": list(actions)})[0]


def create(name: str, of: str) -> Any:
    return {"create_alias": {"alias_name": name, "collection_name": of}}


def rename(old: str, new: str) -> Any:
    return {"rename_alias": {"old_alias_name": old, "new_alias_name": new}}


def remove(name: str) -> Any:
    return {"delete_alias": {"alias_name": name}}


def test_every_route_takes_an_alias(api: Api) -> None:
    assert change(api, create("now", "a")) == 200
    assert api("GET", "collections/now/exists")[1] == {"exists": True}
    assert api("GET", "collections/now")[1]["config"]["metadata"] == {"is": "a"}
    point = {"id": 1, "vector": [1, 0, 0, 0], "payload": {"tag": "x"}}
    assert api("PUT", "collections/now/points", {"points": [point]})[0] == 200
    assert api("PUT", "collections/now/index", {"field_name": "tag", "field_schema": "keyword"})[0] == 200
    bodies = {"points": {"ids": [1]}, "facet": {"key": "tag"}, "points/query/groups": {"query": 1, "group_by": "tag"}}
    for path in READS:
        assert api("POST", f"collections/now/{path}", bodies.get(path, {}))[0] == 200
    assert api.post("a/points/count", {}) == {"count": 1}
    assert api("DELETE", "collections/now")[1] is False  # an alias does not stand for its collection here
    assert aliases(api) == {"now": "a"}


def test_aliases_change_together_or_not_at_all(api: Api) -> None:
    assert change(api, create("now", "a"), create("next", "b")) == 200
    assert change(api, remove("now"), rename("next", "now"), remove("gone")) == 200
    assert aliases(api) == {"now": "b"}
    for status, bad in (
        (404, create("other", "nowhere")),
        (404, rename("nowhere", "x")),
        (409, create("a", "b")),
        (409, rename("now", "b")),
        (400, create("../x", "a")),
        (400, {"swap": {}}),
        (400, {}),
    ):
        assert change(api, create("now", "a"), remove("now"), bad) == status
        assert aliases(api) == {"now": "b"}
    assert api("PUT", "collections/now", {"vectors": {"size": 2, "distance": "Dot"}})[0] == 409


def test_aliases_are_kept_and_go_with_their_collection(tmp_path: Path) -> None:
    catalog, api = opened(tmp_path)
    for name in ("a", "b"):
        api("PUT", f"collections/{name}", {"vectors": {"size": SIZE, "distance": "Cosine"}})
    assert change(api, create("x", "a"), create("y", "a"), create("z", "b")) == 200
    catalog.close()
    catalog, api = opened(tmp_path)
    assert aliases(api) == {"x": "a", "y": "a", "z": "b"}
    assert api("GET", "collections/a/aliases")[1]["aliases"][1] == {"alias_name": "y", "collection_name": "a"}
    api("DELETE", "collections/a")
    assert aliases(api) == {"z": "b"}
    catalog.close()
    (tmp_path / "aliases.json").write_text('{"x": "a", "z": "b"}')  # as a crash between the two removals leaves it
    catalog, api = opened(tmp_path)
    api("PUT", "collections/a", {"vectors": {"size": SIZE, "distance": "Cosine"}})
    catalog.close()
    catalog, api = opened(tmp_path)
    assert aliases(api) == {"z": "b"}
    catalog.close()
