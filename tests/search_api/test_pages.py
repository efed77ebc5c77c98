"""Pages of a ranked list: nothing twice, nothing passed over, whatever is written meanwhile; and their cursors."""

import base64
import random
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.errors import InvalidCursor, InvalidRequest
from indexer.items import Kind, Location, Record, now, to_payload
from indexer.models.encoder import Encoder
from indexer.settings import Settings
from indexer.store import Collection, Store, open_store
from indexer.store.collection import Point
from search_api.engine import SearchEngine
from search_api.pages import LIFE_SECONDS, MAX_CURSOR, MemoryShelf, Pages
from search_api.request import MAX_DEPTH, SearchRequest
from search_api.shared_pages import RedisShelf
from tests.workers.conftest import Cluster
from workers.broker import redis_url


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


def point(
    number: int, dimension: int, *, kind: Kind = Kind.IMAGE, parent: str | None = None, **payload: object
) -> Point:
    chance = np.random.default_rng(number)
    vector = chance.normal(size=dimension).astype(np.float32)
    item_id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
    record = Record(
        kind=kind, sha256=f"{number:064x}", locations=[Location(source=f"/photos/{number}.jpg")], bytes=1,
        media_type="image/jpeg", parent=parent, added_at=now(), text="a text" if kind is Kind.TEXT else None,
    )  # fmt: skip
    return Point(item_id, vector / np.linalg.norm(vector), to_payload(record, {"number": number, **payload}))


def filled(store: Store, encoder: Encoder, points: list[Point]) -> Collection:
    collection = store.create(f"c{uuid.uuid4().hex[:8]}", encoder.name, encoder.fingerprint, encoder.dimension)
    collection.upsert(points)
    return collection


def engine_of(collection: Collection, encoder: Encoder) -> SearchEngine:
    return SearchEngine(encoder, collection, max_pixels=10**6, pages=Pages(MemoryShelf()))


QUERY = {"query": [{"vector": [1.0, 0.2, -0.3, 0.5, 0, 0, 0, 0.1]}]}


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_walk_repeats_nothing_and_passes_nothing_over_while_others_write(
    data: st.DataObject, store: Store, encoder: Encoder
) -> None:
    count = data.draw(st.integers(1, 260), "items")
    some_texts = data.draw(st.booleans(), "texts")
    kinds = [Kind.TEXT if some_texts and number % 3 == 0 else Kind.IMAGE for number in range(count)]
    points = [point(number, encoder.dimension, kind=kind) for number, kind in enumerate(kinds)]
    collection = filled(store, encoder, points)
    engine = engine_of(collection, encoder)
    limit = data.draw(st.integers(1, 40), "limit")
    options = data.draw(st.sampled_from([{}, {"diversity": 0.4}, {"collapse": ["bytes"]}, {"filter": "number>=20"}]))
    alive = {p.id for p in points if not ("filter" in options and p.payload["number"] < 20)}
    added = 10_000
    seen: list[str] = []
    answer = engine.search(SearchRequest.parse({**QUERY, **options, "limit": limit}))
    while True:
        page = [result.id for result in answer.results]
        if answer.cursor is not None:
            assert len(page) == limit
        seen += page
        for _ in range(data.draw(st.integers(0, 3), "writes")):
            match data.draw(st.sampled_from(["add", "delete", "change"])):
                case "add":
                    collection.upsert([point(added := added + 1, encoder.dimension)])
                case "delete":
                    gone = data.draw(st.sampled_from(points)).id
                    collection.delete([gone])
                    alive.discard(gone)
                case _:
                    collection.set_payload(data.draw(st.sampled_from(points)).id, {"number": 500})
        if answer.cursor is None:
            break
        answer = engine.search(SearchRequest.parse({"cursor": answer.cursor, "limit": limit}))
    assert len(seen) == len(set(seen))
    assert alive <= set(seen)


@pytest.mark.parametrize("order", [None, "year", "-year"])
def test_a_walk_without_a_query_goes_through_everything_once(store, encoder, order) -> None:
    points = [point(number, encoder.dimension, year=2000 + number % 4) for number in range(50)]
    engine = engine_of(filled(store, encoder, points), encoder)
    request = {"limit": 7, **({"order_by": order} if order else {})}
    seen = []
    answer = engine.search(SearchRequest.parse(request))
    while True:
        seen += [result.payload["number"] for result in answer.results]
        assert {result.score for result in answer.results} == {None}
        if answer.cursor is None:
            break
        answer = engine.search(SearchRequest.parse({"cursor": answer.cursor, "limit": 7}))
    assert sorted(seen) == list(range(50))
    if order is not None:
        years = [2000 + number % 4 for number in seen]
        assert years == sorted(years, reverse=order.startswith("-"))


def test_the_same_cursor_gives_the_same_page(store, encoder) -> None:
    collection = filled(store, encoder, [point(number, encoder.dimension) for number in range(40)])
    engine = engine_of(collection, encoder)
    first = engine.search(SearchRequest.parse({**QUERY, "limit": 5}))
    again = SearchRequest.parse({"cursor": first.cursor, "limit": 5})
    page = [result.id for result in engine.search(again).results]
    collection.upsert([point(number, encoder.dimension) for number in range(100, 140)])
    assert [result.id for result in engine.search(again).results] == page


def test_scores_go_down_from_page_to_page(store, encoder) -> None:
    engine = engine_of(filled(store, encoder, [point(n, encoder.dimension) for n in range(60)]), encoder)
    answer = engine.search(SearchRequest.parse({**QUERY, "limit": 9}))
    scores = []
    while True:
        scores += [result.score for result in answer.results]
        if answer.cursor is None:
            break
        answer = engine.search(SearchRequest.parse({"cursor": answer.cursor, "limit": 9}))
    assert len(scores) == 60
    assert scores == sorted(scores, reverse=True)


def test_beyond_the_depth_there_is_a_word_and_no_cursor(store, encoder) -> None:
    engine = engine_of(filled(store, encoder, [point(n, encoder.dimension) for n in range(MAX_DEPTH + 30)]), encoder)
    answer = engine.search(SearchRequest.parse({**QUERY, "limit": 100}))
    seen = [result.id for result in answer.results]
    while answer.cursor is not None:
        answer = engine.search(SearchRequest.parse({"cursor": answer.cursor, "limit": 100}))
        seen += [result.id for result in answer.results]
    assert len(seen) == len(set(seen)) == MAX_DEPTH
    assert "narrow the search" in answer.warnings[0]


def test_one_frame_of_a_file_unless_more_are_asked_for(store, encoder) -> None:
    frames = [point(n, encoder.dimension, parent=str(uuid.uuid5(uuid.NAMESPACE_URL, str(n // 10)))) for n in range(40)]
    engine = engine_of(filled(store, encoder, [*frames, point(99, encoder.dimension)]), encoder)

    def parents(**more: object) -> list[str | None]:
        answer = engine.search(SearchRequest.parse({**QUERY, "limit": 20, **more}))
        return [result.record.parent for result in answer.results]

    assert len(parents()) == len(set(parents())) == 5
    assert len(parents(group_by=None)) == 20
    answer = engine.search(SearchRequest.parse({**QUERY, "limit": 20, "group_size": 4}))
    assert sorted(len(result.members) for result in answer.results) == [0, 3, 3, 3, 3]
    for result in answer.results:
        assert {member.record.parent for member in result.members} <= {result.record.parent}
        assert all((member.score or 0) <= (result.score or 0) for member in result.members)
    second = engine.search(SearchRequest.parse({**QUERY, "limit": 2}))
    more = engine.search(SearchRequest.parse({"cursor": second.cursor, "limit": 20}))
    assert len(second.results) + len(more.results) == 5


def test_group_by_a_field_of_the_payload(store, encoder) -> None:
    points = [point(n, encoder.dimension, author=f"a{n % 3}") for n in range(30)]
    engine = engine_of(filled(store, encoder, points), encoder)
    answer = engine.search(SearchRequest.parse({**QUERY, "group_by": "author"}))
    assert sorted(result.payload["author"] for result in answer.results) == ["a0", "a1", "a2"]


def test_a_query_in_the_order_of_a_field(store, encoder) -> None:
    points = [point(n, encoder.dimension, year=2000 + n) for n in range(30)]
    engine = engine_of(filled(store, encoder, points), encoder)
    answer = engine.search(SearchRequest.parse({**QUERY, "order_by": "-year", "limit": 4}))
    assert [result.payload["year"] for result in answer.results] == [2029, 2028, 2027, 2026]
    answer = engine.search(SearchRequest.parse({"cursor": answer.cursor, "limit": 4}))
    assert [result.payload["year"] for result in answer.results] == [2025, 2024, 2023, 2022]


def test_several_searches_answer_as_one_by_one(store, encoder) -> None:
    engine = engine_of(filled(store, encoder, [point(n, encoder.dimension) for n in range(50)]), encoder)
    requests = [SearchRequest.parse({"query": [{"text": text}], "limit": 5}) for text in ("red", "a blue photo")]
    together = [[result.id for result in answer.results] for answer in engine.search_many(requests)]
    assert together == [[result.id for result in engine.search(request).results] for request in requests]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


BIG = {"request": {}, "rows": [{"id": f"{number * 2654435761 % 2**32:032x}"} for number in range(400)]}
"""A first part that no cursor carries."""


class TestCursors:
    @pytest.mark.parametrize("first", [{"rows": []}, BIG])
    def test_one_of_another_place_is_refused(self, first: dict[str, Any]) -> None:
        pages = Pages(MemoryShelf())
        text = pages.begin("media", first, 10)
        assert len(text) <= MAX_CURSOR
        cursor = pages.read(text)
        assert cursor.offset == 10
        assert pages.parts(cursor, "media") == [{"collection": "media", **first}]
        with pytest.raises(InvalidCursor):
            Pages(MemoryShelf()).read(text)
        with pytest.raises(InvalidCursor, match="another collection"):
            pages.parts(cursor, "other")

    @given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
    def test_what_was_not_given_out_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidCursor):
            Pages(MemoryShelf()).read(text)

    @given(st.integers(0, 60), st.integers(0, 7), st.sampled_from([{"rows": []}, BIG]))
    def test_no_bit_of_one_can_be_changed(self, place: int, bit: int, first: dict[str, Any]) -> None:
        pages = Pages(MemoryShelf())
        raw = bytearray(base64.urlsafe_b64decode(pages.begin("media", first, 10)))
        raw[place % len(raw)] ^= 1 << bit
        with pytest.raises(InvalidCursor):
            pages.read(base64.urlsafe_b64encode(raw).decode())

    @pytest.mark.parametrize("first", [{"rows": []}, BIG])
    def test_its_life_ends(self, first: dict[str, Any]) -> None:
        clock = Clock()
        pages = Pages(MemoryShelf(clock=clock), clock=clock)
        cursor = pages.read(pages.begin("media", first, 0))
        clock.now = LIFE_SECONDS - 1
        assert pages.parts(cursor, "media")
        clock.now = LIFE_SECONDS + 1
        with pytest.raises(InvalidCursor, match="life"):
            pages.parts(cursor, "media")

    def test_a_search_that_nobody_reads_on_is_kept_nowhere(self) -> None:
        shelf = MemoryShelf()
        pages = Pages(shelf)
        cursor = pages.read(pages.begin("media", {"rows": [0]}, 1))
        assert shelf.get(f"{cursor.list}:0") is None
        pages.extend(cursor, 1, {"rows": [1]})
        short = pages.sign(cursor.at(2, kept=True))
        assert len(short) < 50
        assert [part["rows"] for part in pages.parts(pages.read(short), "media")] == [[0], [1]]
        assert pages.parts(cursor, "media") == pages.parts(pages.read(short), "media")

    def test_no_two_lists_have_one_name_whoever_seeds_the_generator(self) -> None:
        pages = Pages(MemoryShelf())
        names = set()
        for _ in range(3):
            random.seed(0)
            names.add(pages.read(pages.begin("media", {"rows": []}, 0)).list)
        assert len(names) == 3

    def test_memory_is_bounded(self) -> None:
        shelf = MemoryShelf(max_bytes=10_000)
        for number in range(100):
            shelf.add(str(number), bytes(1000))
        assert [number for number in range(100) if shelf.get(str(number))] == list(range(90, 100))

    def test_the_first_writer_of_a_part_counts(self) -> None:
        pages = Pages(MemoryShelf())
        cursor = pages.read(pages.begin("media", {"rows": []}, 0))
        assert pages.extend(cursor, 1, {"rows": [1]}) == pages.extend(cursor, 1, {"rows": [2]}) == {"rows": [1]}


def test_an_engine_without_pages_gives_no_cursor(store, encoder) -> None:
    collection = filled(store, encoder, [point(n, encoder.dimension) for n in range(20)])
    engine = SearchEngine(encoder, collection, max_pixels=10**6)
    assert engine.search(SearchRequest.parse(QUERY)).cursor is None
    with pytest.raises(InvalidRequest):
        engine.search(SearchRequest.parse({"cursor": "x"}))


def test_processes_that_share_a_redis_share_pages(settings: Settings) -> None:
    cluster = Cluster(settings)
    try:
        cluster.start_broker()
        one, other = (Pages(RedisShelf(settings, redis.Redis.from_url(redis_url(settings)))) for _ in range(2))
        cursor = other.read(one.begin("media", {"rows": [1]}, 3))
        assert cursor.offset == 3
        assert other.extend(cursor, 1, {"rows": [2]}) == one.extend(cursor, 1, {"rows": [3]}) == {"rows": [2]}
        assert [part["rows"] for part in other.parts(cursor, "media")] == [[1], [2]]
    finally:
        if cluster.broker is not None:
            cluster.broker.terminate()
            cluster.broker.wait(20)
