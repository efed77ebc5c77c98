"""What the store's collections answer: searches, groups, facets, orders, scans; declared fields; aliases.

They run against the embedded index, and against a server where CROSSLENS_TEST_QDRANT_URL names one.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from qdrant_client import models

from indexer.errors import CollectionNotFound, InvalidName, InvalidRequest
from indexer.items import Location, Record, now, to_payload
from indexer.settings import Settings
from indexer.store import Collection, Place, Point, Query, Store, Stored, open_store
from indexer.store.fields import DEFAULTS

SIZE = 8
COUNT = 120
MODEL = ("m", "f" * 16, SIZE)
FIELDS = {
    "shelf": "keyword",
    "level": "integer",
    "weight": "float",
    "read": "bool",
    "words": "text",
    "labels": "keyword",
}
VECTORS = np.random.default_rng(5).normal(size=(COUNT, SIZE)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def item_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def fields(number: int) -> dict[str, Any]:
    """Many items share a value; some have none; one has a date before the year 1."""
    whole: dict[str, Any] = {
        "shelf": f"s{number % 11}",
        "level": number % 4,
        "weight": (number % 5) / 3,
        "read": number % 3 == 0,
        "words": "red house" if number % 2 else "green house",
        "labels": ["all", f"l{number % 6}"],
        "taken_at": f"{2000 + number % 3}-01-01T00:00:00.00000{number % 2}Z",
        "year": [2000 + number % 3, 2010],
    }
    if number % 10 == 9:
        del whole["level"], whole["taken_at"]
    if number == 0:
        whole["taken_at"] = "0000-02-03T00:00:00Z"
    return whole


def point(number: int) -> Point:
    record = Record(
        kind="text",
        sha256=f"{number:064x}",
        locations=[Location(source=f"/{number}")],
        bytes=1,
        media_type="text/plain",
        added_at=now(),
    )
    return Point(item_id(number), VECTORS[number], to_payload(record, fields(number)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    url = os.environ.get("CROSSLENS_TEST_QDRANT_URL")
    with open_store(Settings(data=tmp_path_factory.mktemp("questions"), qdrant_url=url)) as store:
        yield store


@pytest.fixture(scope="module")
def books(store: Store) -> Iterator[Collection]:
    store.create("books", *MODEL)
    declared = store.declare("books", FIELDS)  # type: ignore[arg-type]
    declared.upsert([point(number) for number in range(COUNT)])
    yield declared
    store.delete("books")


def match(field: str, value: Any) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=field, match=models.MatchValue(value=value))])


def ids(items: list[Any]) -> list[str]:
    return [each.id for each in items]


def nearest(vector: np.ndarray, among: list[int]) -> list[str]:
    return [item_id(number) for number in sorted(among, key=lambda each: -float(VECTORS[each] @ vector))]


def test_many_searches_in_one_are_each_the_search_alone(books: Collection) -> None:
    queries = [Query(VECTORS[n], 3 + n % 5, match("level", n % 4), [item_id(n)]) for n in range(COUNT)]
    together = books.search_many(queries)
    for query, hits in zip(queries, together, strict=True):
        alone = books.search(query.vector, query.limit, filter=query.filter, exclude_ids=query.exclude_ids)
        assert ids(hits) == ids(alone)
    assert books.search_many([]) == []


def test_a_search_can_be_exact_pass_over_the_first_and_bring_vectors(books: Collection) -> None:
    right = nearest(VECTORS[3], list(range(COUNT)))
    assert ids(books.search(VECTORS[3], 10, exact=True)) == right[:10]
    (hits,) = books.search_many([Query(VECTORS[3], 5, exact=True, offset=4, with_vectors=True)])
    assert ids(hits) == right[4:9]
    assert all(np.allclose(hit.vector, VECTORS[uuid.UUID(hit.id).int - 1], atol=1e-6) for hit in hits)
    (few,) = books.search_many([Query(VECTORS[3], 100, least_score=0.5)])
    assert 0 < len(few) < COUNT
    assert min(hit.score for hit in few) >= 0.5
    assert books.search(VECTORS[3], 1)[0].vector is None


def test_facets_count_values_under_a_filter(books: Collection) -> None:
    assert books.facet("read") == {False: 80, True: 40}
    assert books.facet("labels", limit=2) == {"all": COUNT, "l0": 20}
    assert books.facet("level", filter=match("read", True)) == {
        level: sum(1 for n in range(0, COUNT, 3) if n % 4 == level and n % 10 != 9) for level in range(4)
    }
    with pytest.raises(InvalidRequest):
        books.facet("undeclared")


def test_counts_and_vectors(books: Collection) -> None:
    assert books.count() == COUNT
    assert books.count(match("read", True)) == 40
    assert (
        books.count(models.Filter(must=[models.FieldCondition(key="words", match=models.MatchText(text="red"))])) == 60
    )
    found = books.vectors([item_id(4), item_id(5), str(uuid.uuid4())])
    assert set(found) == {item_id(4), item_id(5)}
    assert found[item_id(4)].dtype == np.float32
    assert np.allclose(found[item_id(4)], VECTORS[4], atol=1e-6)


def test_a_scan_gives_every_item_once_a_batch_at_a_time(books: Collection) -> None:
    assert ids(list(books.scan(batch=7))) == [item_id(number) for number in range(COUNT)]
    some = list(books.scan(match("read", True), batch=16, with_vectors=True))
    assert ids(some) == [item_id(number) for number in range(0, COUNT, 3)]
    assert some[1].vector is not None
    assert np.allclose(some[1].vector, VECTORS[3], atol=1e-6)
    assert some[1].payload == fields(3)
    assert [each for some_ids in books.ids(50) for each in some_ids] == ids(list(books.scan()))
    assert some[1] == replace(some[1], vector=None)  # two items are the same with and without their vectors


def pages(books: Collection, field: str, limit: int, **options: Any) -> list[Stored]:
    """All items in an order, page by page, as somebody with a cursor asks for them."""
    found: list[Stored] = []
    after = None
    while True:
        page, after = books.scroll_ordered(field, limit, after=after, **options)
        found += page
        if after is None:
            return found
        assert len(page) == limit
        after = Place(*after)


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    field=st.sampled_from(["level", "weight", "taken_at"]),
    limit=st.integers(1, 60),
    descending=st.booleans(),
    read=st.none() | st.booleans(),
)
def test_pages_in_an_order_neither_repeat_nor_skip(
    books: Collection, field: str, limit: int, descending: bool, read: bool | None
) -> None:
    among = None if read is None else match("read", read)
    right = [
        (fields(number)[field], item_id(number))
        for number in range(COUNT)
        if field in fields(number) and read in {None, fields(number)["read"]} and (field, number) != ("taken_at", 0)
    ]
    right = sorted(sorted(right, key=lambda each: each[1]), key=lambda each: each[0], reverse=descending)
    found = pages(books, field, limit, descending=descending, filter=among)
    assert [(item.payload[field], item.id) for item in found] == right


def test_an_item_with_two_values_comes_for_each(books: Collection) -> None:
    found = pages(books, "year", 50)
    assert len(found) == 2 * COUNT
    assert len(set(ids(found[:COUNT]))) == len(set(ids(found[COUNT:]))) == COUNT


def test_a_page_after_an_item_that_was_removed_goes_on_from_its_place(store: Store) -> None:
    store.create("shrinking", *MODEL)
    items = store.declare("shrinking", {"level": "integer"})
    items.upsert([point(number) for number in range(0, 40, 4)])  # all of level 0
    first, after = items.scroll_ordered("level", 3)
    items.delete(ids(first))
    rest = pages_from(items, after)
    assert ids(first) + ids(rest) == [item_id(number) for number in range(0, 40, 4)]
    store.delete("shrinking")


def pages_from(items: Collection, after: Place | None) -> list[Stored]:
    return items.scroll_ordered("level", 100, after=after)[0]


@pytest.mark.parametrize("field", ["shelf", "undeclared", "place"])
def test_what_has_no_order_is_refused(books: Collection, field: str) -> None:
    with pytest.raises(InvalidRequest):
        books.scroll_ordered(field, 5)


def test_a_collection_declares_what_photos_have(store: Store, books: Collection) -> None:
    assert books.fields == {**DEFAULTS, **FIELDS}
    assert store.get("books").fields == books.fields


def test_fields_can_be_declared_when_there_are_points(store: Store) -> None:
    late = store.create("late", *MODEL)
    late.upsert([point(number) for number in range(30)])
    with pytest.raises(InvalidRequest):
        late.facet("shelf")
    assert store.declare("late", {"shelf": "keyword", "level": "integer"}).fields["shelf"] == "keyword"
    assert sum(late.facet("shelf").values()) == 30
    assert len(pages(late, "level", 7)) == 27  # also by the object that was made before
    assert store.declare("late", {"level": "integer"}).fields["level"] == "integer"
    store.delete("late")


@pytest.mark.parametrize(
    "wanted",
    [
        {"level": "keyword"},
        {"x": "number"},
        {"crosslens.kind": "keyword"},
        {"crosslens": "keyword"},
        {"": "keyword"},
        {f"f{number}": "keyword" for number in range(100)},
    ],
    ids=["of another type", "of no type", "reserved", "reserved as a whole", "unnamed", "too many"],
)
def test_what_cannot_be_declared_is_refused_and_nothing_is_made(
    store: Store, books: Collection, wanted: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        store.declare("books", {"more": "keyword", **wanted})
    assert refused.value.remedy
    assert store.get("books").fields == books.fields


def test_an_alias_stands_for_a_collection_until_it_is_switched(store: Store, books: Collection) -> None:
    other = store.create("other", *MODEL)
    other.upsert([point(1)])
    store.alias("current", "books")
    store.alias("current", "books")  # once more is no error
    assert (store.get("current").name, store.get("current").count()) == ("books", COUNT)
    with pytest.raises(InvalidRequest, match="'books' already"):
        store.alias("current", "other")
    store.switch("current", "other")
    assert (store.get("current").name, store.get("current").count()) == ("other", 1)
    assert store.create("current", *MODEL).name == "other"
    assert store.aliases() == {"current": "other"}
    assert [each.name for each in store.list()] == ["books", "other"]
    with pytest.raises(InvalidRequest, match="alias of"):
        store.delete("current")
    assert books.count() == COUNT
    store.delete("other")
    with pytest.raises(CollectionNotFound):
        store.get("current")


def test_an_alias_of_nothing_or_without_a_proper_name_is_refused(store: Store, books: Collection) -> None:
    for name, target, error in (
        ("x", "nowhere", CollectionNotFound),
        ("../x", "books", InvalidName),
        ("books", "books", InvalidRequest),
    ):
        with pytest.raises(error):
            store.switch(name, target)
    assert store.aliases() == {}


def test_a_deleted_collection_takes_its_aliases_along(store: Store) -> None:
    store.create("short", *MODEL)
    store.alias("lived", "short")
    store.delete("short")
    assert store.aliases() == {}


def test_neighbours_in_an_order_are_as_the_index_has_them(books: Collection) -> None:
    """Crosslens' own record can be put in order too."""
    items = pages(books, "crosslens.added_at", 31)
    assert len(items) == COUNT
    assert all(first.record.added_at <= second.record.added_at for first, second in pairwise(items))
