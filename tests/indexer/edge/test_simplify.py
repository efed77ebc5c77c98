"""Filters without what no point meets: they pass the same points, also when one is written meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest
import qdrant_edge as edge
from hypothesis import given
from hypothesis import strategies as st

from indexer.edge.catalog import Catalog
from indexer.edge.filters import filter_of
from indexer.edge.generations import EdgeCollection
from indexer.edge.questions import _answers, _request, query, query_batch
from indexer.edge.simplify import NothingPasses, Simplifier

TOKEN = "6fe15c10-b1d3-4ee8-8a3c-9d34f9f0a1b2"
ALL = {"medium": "photo", "decade": 200, "kept": True, "token": TOKEN}
"""What each point has."""
INDEXES = {"kind": "keyword", "year": "integer", "seen": "bool", "medium": "keyword", "decade": "integer"}
INDEXES |= {"kept": "bool", "token": "uuid", "mixed": "keyword"}
"""`tag` has none."""
POINTS = [
    {"id": number, "vector": [1.0, number / 20], "payload": ALL | payload}
    for number, payload in enumerate(
        [
            {"kind": "image", "year": 2000, "seen": True, "tag": "a", "mixed": "x"},
            {"kind": "image", "year": 2001, "tag": "b", "mixed": 5},
            {"kind": ["image", "page"], "year": 2001, "seen": True},
            {"kind": "page", "year": [2000, 2002]},
            {"year": 2002, "tag": ["a", "b"]},
            {},
        ]
    )
]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeCollection]:
    catalog = Catalog(tmp_path_factory.mktemp("simplify"), optimize_after=10**9)
    catalog.create("c", size=2, distance="Cosine", metadata={})
    made = catalog.get("c")
    made.write([{"create_index": {"field_name": field, "field_schema": schema}} for field, schema in INDEXES.items()])
    made.write([{"upsert": {"points": POINTS}}])
    yield made
    catalog.close()


def match(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "match": {"value": value}}


CONDITIONS = st.one_of(
    st.builds(match, st.just("kind"), st.sampled_from(["image", "page", "text", "video"])),
    st.builds(match, st.just("year"), st.sampled_from([2000, 2002, 1999])),
    st.builds(match, st.just("seen"), st.booleans()),
    st.builds(match, st.just("tag"), st.sampled_from(["a", "c"])),
    st.builds(match, st.just("mixed"), st.just("x")),
    st.sampled_from([match(key, value) for key, value in ALL.items()]),
    st.just({"key": "year", "range": {"gte": 2001}}),
    st.just({"key": "kind", "match": {"any": ["text"]}}),
    st.just({"is_empty": {"key": "seen"}}),
    st.just({"has_id": [1, 3]}),
)


def filters(conditions: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(conditions, max_size=3)
    # At least one of none is what the engine itself takes now as none, now as all.
    several = st.lists(conditions, min_size=1, max_size=3)
    clauses = {"must": some, "must_not": some, "should": some}
    least = st.builds(lambda given, count: {"conditions": given, "min_count": count}, several, st.integers(0, 2))
    return st.fixed_dictionaries({}, optional={**clauses, "min_should": least})


@given(filters(st.recursive(CONDITIONS, filters, max_leaves=8)))
def test_the_same_points_pass(collection: EdgeCollection, among: dict[str, Any]) -> None:
    body = {"query": [1.0, 0.0], "filter": among, "limit": 10}
    (answer,) = query_batch(collection, {"searches": [body]})
    assert answer == query(collection, body)


@pytest.mark.parametrize(
    ("among", "left"),
    [
        ({"must_not": [match("kind", "text")]}, None),
        ({"must": [match("kind", "image"), {"must_not": [match("kind", "text")]}]}, {"must": [match("kind", "image")]}),
        ({"must": [{"must": [match("year", 2000)]}]}, {"must": [match("year", 2000)]}),
        ({"must_not": [match("kind", "page")]}, {"must_not": [match("kind", "page")]}),
        ({"must": [match(key, value) for key, value in ALL.items()]}, None),
        ({"must": [match("mixed", "x")]}, {"must": [match("mixed", "x")]}),
        ({"must_not": [match("tag", "c")]}, {"must_not": [match("tag", "c")]}),  # without an index it cannot be told
        ({"must_not": [match("seen", True)]}, {"must_not": [match("seen", True)]}),
    ],
)
def test_what_is_left(collection: EdgeCollection, among: dict[str, Any], left: dict[str, Any] | None) -> None:
    simplified = collection.read(lambda shard: Simplifier(shard).simplified(filter_of(among)))
    assert repr(simplified) == repr(filter_of(left))


@pytest.mark.parametrize(
    "among",
    [
        {"must": [match("kind", "text")]},
        {"must": [{"must": [match("kind", "text"), match("year", 2000)]}]},
        {"must_not": [{"must_not": [match("kind", "text")]}]},
        {"must_not": [match("decade", 200)]},
    ],
)
def test_nothing_is_searched_where_nothing_passes(collection: EdgeCollection, among: dict[str, Any]) -> None:
    with pytest.raises(NothingPasses):
        collection.read(lambda shard: Simplifier(shard).simplified(filter_of(among)))


class Written:
    """A shard to which a text is written while it is searched for the first time."""

    def __init__(self, shard: edge.EdgeShard) -> None:
        self._shard = shard
        self.searched = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)

    def query_batch(self, asked: edge.QueryBatchRequest) -> Any:
        if not self.searched:
            point = edge.Point(99, [1.0, 0.0], {"kind": "text"})
            self._shard.update(edge.UpdateOperation.upsert_points([point]))
        self.searched += 1
        return self._shard.query_batch(asked)


def test_what_is_written_meanwhile_is_searched_as_it_is(collection: EdgeCollection) -> None:
    filters = [{"must_not": [text := match("kind", "text")]}, {"must": [text]}, {"must": [match("medium", "photo")]}]
    asked = [_request(collection, {"query": [1.0, 0.0], "limit": 3, "filter": among}) for among in filters]

    def search(shard: edge.EdgeShard) -> list[list[Any]]:
        written = Written(shard)
        answers = [[point.id for point in points] for points in _answers(written, asked)]
        assert written.searched == 2
        return answers

    try:
        others, texts, photos = collection.read(search)
        assert others == photos == [0, 1, 2]
        assert texts == [99]
    finally:
        collection.write([{"delete": {"points": [99]}}])
