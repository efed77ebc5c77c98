"""Filters in Qdrant's language: held against the declared fields, and whatever is let through the index answers."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import InvalidRequest
from indexer.models.encoder import Encoder
from indexer.settings import Settings
from indexer.store import Collection, open_store
from search_api.engine import SearchEngine
from search_api.filter_checks import MOST_DEEP, MOST_VALUES
from search_api.filters import parse_filter
from search_api.request import SearchRequest
from tests.search_api.test_pages import point

TYPES = {
    "year": "integer", "tags": "keyword", "taken_at": "datetime", "sharp": "bool", "title": "text", "score": "float",
    "place": "geo", "people[].name": "keyword", "key": "uuid",
}  # fmt: skip
PARIS = {"lat": 48.85, "lon": 2.35}
RADIUS = {"center": PARIS, "radius": 1000.0}


def on(key: str, **condition: Any) -> dict[str, Any]:
    return {"must": [{"key": key, **condition}]}


@pytest.mark.parametrize(
    "body",
    [
        on("tags", match={"value": "a"}),
        on("tags", match={"any": ["a", "b"]}),
        on("tags", match={"any": []}),
        on("tags", match={"except": ["a"]}),
        on("key", match={"value": str(uuid.UUID(int=1))}),
        on("year", match={"value": 2020}),
        on("year", match={"any": [1, 2]}),
        on("year", range={"gte": 2019.5, "lt": 2021}),
        on("score", range={"gt": 0}),
        on("sharp", match={"value": True}),
        on("taken_at", range={"gte": "2020-01-01T00:00:00Z"}),
        on("taken_at", range={"lt": "2020-01-01"}),
        on("title", match={"text": "lake"}),
        on("title", match={"phrase": "blue lake"}),
        on("place", geo_radius=RADIUS),
        on("place", geo_bounding_box={"top_left": {"lat": 50, "lon": 1}, "bottom_right": {"lat": 40, "lon": 3}}),
        on("place", is_empty=False),
        on("tags", values_count={"gte": 2}),
        on("crosslens.kind", match={"value": "image"}),
        on("crosslens.bytes", range={"gte": 10}),
        on("crosslens.frames", range={"gte": 2}),
        on("crosslens.locations[].source", match={"value": "/a.jpg"}),
        {"must": {"is_empty": {"key": "title"}}, "must_not": [{"is_null": {"key": "year"}}]},
        {"must": [{"has_id": [1, str(uuid.UUID(int=2))]}]},
        {"should": [on("year", match={"value": 1}), {"must_not": [on("tags", match={"value": "x"})]}]},
        {"min_should": {"conditions": on("year", match={"value": 1})["must"], "min_count": 1}},
        {"must": [{"nested": {"key": "people[]", "filter": on("name", match={"value": "Ann"})}}]},
        {},
    ],
)
def test_what_fits_the_fields_is_taken(body: dict[str, Any]) -> None:
    assert parse_filter(body, TYPES) is not None


@pytest.mark.parametrize(
    ("body", "where", "words"),
    [
        (on("trip", match={"value": "a"}), "filter.must.0", "'trip' is not declared"),
        (on("crosslens.page", is_empty=True), "filter.must.0", "'crosslens.page' is not declared"),
        (on("tags[]", match={"value": "a"}), "filter.must.0", "'tags[]' is not declared"),
        ({"must_not": {"is_empty": {"key": "trip"}}}, "filter.must_not", "'trip'"),
        ({"should": [{"is_null": {"key": "trip"}}]}, "filter.should.0", "'trip'"),
        ({"should": [{}, {"must": [on("trip", range={"gt": 1})]}]}, "filter.should.1.must.0.must.0", "'trip'"),
        ({"min_should": {"conditions": on("trip", match={"value": 1})["must"], "min_count": 1}},
         "filter.min_should.conditions.0", "'trip'"),
        ({"must": [{"nested": {"key": "people[]", "filter": on("age", range={"gt": 1})}}]},
         "filter.must.0.nested.filter.must.0", "'people[].age'"),
        (on("tags", range={"gt": 1}), "filter.must.0", "type keyword, by a range of numbers"),
        (on("tags", match={"value": 1}), "filter.must.0", "type keyword"),
        (on("tags", match={"text": "a"}), "filter.must.0", "match with text"),
        (on("tags", match={"except": [1]}), "filter.must.0", "match with except"),
        (on("year", match={"value": "2020"}), "filter.must.0", "type integer"),
        (on("year", match={"value": True}), "filter.must.0", "type integer"),
        (on("year", range={"gt": "2020-01-01T00:00:00Z"}), "filter.must.0", "a range of times"),
        (on("score", match={"value": 1}), "filter.must.0", "type float"),
        (on("sharp", match={"value": 1}), "filter.must.0", "type bool"),
        (on("taken_at", range={"gt": 2020}), "filter.must.0", "a range of numbers"),
        (on("taken_at", match={"value": "2020-01-01"}), "filter.must.0", "type datetime"),
        (on("title", match={"value": "lake"}), "filter.must.0", "type text"),
        (on("year", geo_radius=RADIUS), "filter.must.0", "geo_radius"),
        (on("place", match={"value": "Paris"}), "filter.must.0", "type geo"),
        (on("place", range={"gt": 1}), "filter.must.0", "type geo"),
        (on("tags"), "filter.must.0", "says nothing"),
        ({"must": [{"has_vector": "x"}]}, "filter.must.0", "has_vector"),
        (on("year", range={"gt": float("nan")}), "filter", "cannot be compared"),
        (on("year", match={"value": 2**63}), "filter", "cannot be compared"),
        ({"must": [{"has_id": list(range(MOST_VALUES))}]}, "filter", "values"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_place_and_field(body: dict[str, Any], where: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(body, TYPES)
    assert caught.value.details["field"] == where
    assert caught.value.message.startswith(f"{where}: ")
    assert words in caught.value.message
    assert caught.value.remedy


def test_who_names_another_field_is_told_the_declared_ones_and_how_to_declare() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(on("trip", match={"value": "north"}), {"tags": "keyword", "year": "integer"})
    assert "tags (keyword), year (integer), crosslens." in caught.value.message
    assert "`crosslens collections declare COLLECTION trip=keyword`" in caught.value.remedy
    assert 'PUT /v1/collections/COLLECTION with {"fields": {"trip": "keyword"}}' in caught.value.remedy
    with pytest.raises(InvalidRequest) as reserved:
        parse_filter(on("crosslens.page", is_empty=True), {})
    assert "declare" not in reserved.value.remedy
    with pytest.raises(InvalidRequest) as many:
        parse_filter(on("x" * 5000, is_empty=True), {f"field{number}": "keyword" for number in range(90)})
    assert len(many.value.message) < 3000


def test_depth_is_capped_before_anything_walks_it() -> None:
    def nested(depth: int) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for _ in range(depth):
            body = {"must": [body]}
        return body

    assert parse_filter(nested(MOST_DEEP // 2 - 1), {}) is not None
    for depth in (MOST_DEEP, 100_000):
        with pytest.raises(InvalidRequest, match="levels"):
            parse_filter(nested(depth), {})


# Whatever is asked


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, colours: Any) -> Iterator[SearchEngine]:
    home = Settings(data=tmp_path_factory.mktemp("filters") / "data", model=str(colours))
    with open_store(home) as store:
        made: Collection = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        fields = {name: kind for name, kind in TYPES.items() if kind != "uuid" and name not in made.fields}
        made = store.declare("media", fields)  # type: ignore[arg-type]
        values: dict[str, Any] = {
            "tags": ["a", "b"], "taken_at": "2020-05-01T00:00:00Z", "sharp": True, "title": "a blue lake", "score": 0.5,
            "place": PARIS, "people": [{"name": "Ann"}],
        }  # fmt: skip
        made.upsert([point(number, encoder.dimension, year=2000 + number, **values) for number in range(8)])
        yield SearchEngine(encoder, made, max_pixels=10**6)


_keys = st.sampled_from([*TYPES, "trip", "crosslens.kind", "crosslens.page", "tags[]", "", "a.b", "[", "é\0"])
_scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["a", "2020-01-01", "2020-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", str(uuid.UUID(int=1))])
)  # fmt: skip
_points = st.fixed_dictionaries({"lat": st.floats() | st.floats(-90, 90), "lon": st.floats() | st.floats(-180, 180)})
_lines = st.fixed_dictionaries({"points": st.lists(_points, max_size=5)})
_kinds = st.fixed_dictionaries(
    {},
    optional={
        "match": st.dictionaries(
            st.sampled_from(["value", "any", "except", "text", "text_any", "phrase", "prefix", "no"]),
            _scalars | st.lists(_scalars, max_size=3), max_size=2,
        ),
        "range": st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte", "no"]), _scalars, max_size=2),
        "geo_radius": st.fixed_dictionaries({"center": _points, "radius": _scalars}),
        "geo_bounding_box": st.fixed_dictionaries({"top_left": _points, "bottom_right": _points}),
        "geo_polygon": st.fixed_dictionaries({"exterior": _lines}, optional={"interiors": st.lists(_lines, max_size=1)}),
        "values_count": st.dictionaries(st.sampled_from(["gt", "gte", "lt"]), _scalars, max_size=2),
        "is_empty": _scalars,
        "is_null": _scalars,
    },
)  # fmt: skip
_conditions = (
    st.builds(lambda key, rest: {"key": key, **rest}, _keys, _kinds)
    | st.builds(lambda ids: {"has_id": ids}, st.lists(_scalars, max_size=3))
    | st.builds(lambda name, key: {name: {"key": key}}, st.sampled_from(["is_empty", "is_null"]), _keys)
    | st.just({"has_vector": ""}) | _scalars
)  # fmt: skip


def _filters(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    clause = inner | st.lists(inner, max_size=3)
    least = st.fixed_dictionaries({"conditions": st.lists(inner, max_size=2), "min_count": _scalars})
    return st.fixed_dictionaries(
        {}, optional={"must": clause, "should": clause, "must_not": clause, "min_should": least}
    ) | st.builds(lambda key, filter: {"nested": {"key": key, "filter": filter}}, _keys | st.just("people"), inner)


any_filter = _filters(st.recursive(_conditions, _filters, max_leaves=6))


@given(any_filter)
@example({"must": [{"has_id": ["\ud800"]}]})
@example({"must": [{"key": "tags", "match": {"value": "\ud800"}}]})
@example({"must": [{"has_id": [-1]}]})
@example({"min_should": {"conditions": [], "min_count": -1}})
@example(on("taken_at", range={"gte": "0001-01-01T00:00:00+14:00"}))
@example(on("place", geo_radius={"center": {"lat": 91, "lon": 0}, "radius": -1}))
@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_filter_is_answered_or_refused(engine: SearchEngine, body: Any) -> None:
    try:
        request = SearchRequest.parse({"query": [{"text": "red"}], "filter": body, "group_by": None})
        answer = engine.search(request)
    except InvalidRequest as error:
        assert error.remedy and error.status == 400
        return
    assert len(answer.results) <= 8
