"""The queue: the order in which items wait, what waits at all, and pages that hold while others decide."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import InvalidCursor, InvalidRequest
from indexer.moderation.review import waiting
from indexer.moderation.review.decisions import Reviews
from indexer.moderation.review.state import Decision
from indexer.moderation.review.waiting import KINDS, MOST, Waiting, distance, queue
from indexer.moderation.trail import Trail
from indexer.store import Collection
from tests.indexer.moderation.review.items import POLICY, Clock, collection_in, item_id, judged, point, wipe

APPROVE, REJECT = Decision(what="approve"), Decision(what="reject")
COUNT = 40


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with collection_in(tmp_path_factory.mktemp("queue")) as collection:
        yield collection


@pytest.fixture
def items(index: Collection) -> Collection:
    """0 is fine, 1 to 29 are flagged, surer by their number, and 30 to 39 blocked, less sure by theirs."""
    wipe(index)
    verdicts = [judged(cats=0.01)]
    verdicts += [judged(cats=0.5 + number * 0.015) for number in range(1, 30)]
    verdicts += [judged(soup=0.999 - (number - 30) * 0.0005) for number in range(30, COUNT)]
    index.upsert([point(number, verdict) for number, verdict in enumerate(verdicts)])
    return index


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path, "media", clock=Clock())


def numbers(page: list[Waiting]) -> list[int]:
    return [each.item.payload["tag"] for each in page]


def everything(collection: Collection, limit: int = 7, **options: Any) -> list[Waiting]:
    found: list[Waiting] = []
    after = None
    while True:
        page, after = queue(collection, POLICY, limit=limit, after=after, **options)
        found += page
        if after is None:
            return found
        assert len(page) == limit


def test_the_least_sure_come_first(items: Collection) -> None:
    assert numbers(everything(items)) == [*range(1, 30), *range(39, 29, -1)]
    (first, *_), _ = queue(items, POLICY, limit=1)
    assert first.why == "flag" and first.distance == pytest.approx(math.log(0.515 / 0.485), abs=1e-3)
    assert first.review.number == 0 and first.reach == 0


def test_the_distance_is_to_the_nearest_threshold() -> None:
    verdict = judged(cats=0.9, dogs=0.79, soup=0.001).to_payload()
    assert distance(verdict, POLICY) == pytest.approx(math.log(4) - math.log(0.79 / 0.21), abs=1e-3)
    assert distance({**verdict, "categories": {"unknown": {"score": 0.0}}}, POLICY) > 10


def test_what_many_see_comes_before_what_is_a_little_less_sure(items: Collection) -> None:
    asked: list[str] = []

    def reach(ids: Any) -> dict[str, int]:
        asked.extend(ids)
        return {item_id(29): 10**6, item_id(3): 100, item_id(2): 100, item_id(5): -7}

    page, _ = queue(items, POLICY, limit=5, reach=reach)
    assert numbers(page) == [29, 2, 3, 1, 4]
    assert [each.reach for each in page] == [10**6, 100, 100, 0, 0]
    assert sorted(asked) == [item_id(number) for number in range(1, COUNT)]


def test_appeals_then_disputes_then_proposals_then_what_was_not_judged(items: Collection, trail: Trail) -> None:
    items.upsert(
        [
            point(50, judged(cats=0.3, reason="not judged: dogs, for want of a vector")),
            point(51, judged(cats=0.1)),
            point(52, judged(dogs=0.801)),
        ]
    )
    pairs = Reviews(items, trail, POLICY, reviewers=2)
    pairs.decide([item_id(0), item_id(20)], REJECT, who="alice")
    pairs.decide([item_id(20), item_id(25)], APPROVE, who="bob")
    Reviews(items, trail, POLICY).decide([item_id(35)], REJECT, who="alice")
    pairs.appeal(item_id(35), who="visitor", note="")
    pairs.appeal(item_id(51), who="visitor", note="")
    page, _ = queue(items, POLICY, limit=8)
    assert [each.why for each in page] == [
        "appeal", "appeal", "disputed", "proposed", "proposed", "not judged", "quarantine", "flag",
    ]  # fmt: skip
    assert numbers(page) == [51, 35, 20, 25, 0, 50, 52, 1]
    assert page[0].review.number == 7
    for_bob, _ = queue(items, POLICY, limit=8, but_of="bob")
    assert numbers(for_bob) == [51, 35, 0, 50, 52, 1, 2, 3]


def test_what_a_person_decided_does_not_wait(items: Collection, trail: Trail) -> None:
    reviews = Reviews(items, trail, POLICY)
    (first, _) = reviews.decide([item_id(1), item_id(38)], REJECT, who="alice")
    reviews.decide([item_id(2)], Decision(what="recategorise", categories=("cats",)), who="alice")
    assert numbers(everything(items)) == [*range(3, 30), 39, *range(37, 29, -1)]
    reviews.undo([first.number], who="alice")
    reviews.decide([item_id(38)], Decision(what="withdraw"), who="alice")
    assert numbers(everything(items)) == [1, *range(3, 30), *range(39, 29, -1)]


@settings(max_examples=15, deadline=None)
@given(window=st.integers(3, 50), limit=st.integers(1, 9), chance=st.randoms(use_true_random=False))
def test_pages_hold_while_others_decide(
    index: Collection, tmp_path_factory: pytest.TempPathFactory, window: int, limit: int, chance: Any
) -> None:
    wipe(index)
    index.upsert([point(n, judged(cats=chance.uniform(0.5, 0.99))) for n in range(30)])
    reviews = Reviews(index, Trail(tmp_path_factory.mktemp("trail"), "media"), POLICY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "WINDOW", window)
        shown: list[int] = []
        decided: set[int] = set()
        after = None
        new = 100
        while True:
            page, after = queue(index, POLICY, limit=limit, after=after)
            shown += numbers(page)
            if after is None:
                break
            some = set(chance.sample(range(30), 2)) - decided
            decided |= some
            reviews.decide([item_id(number) for number in some], APPROVE, who="alice")
            index.upsert([point(new, judged(cats=chance.uniform(0.5, 0.99)))])
            new += 1
    assert len(shown) == len(set(shown)), "none twice"
    assert set(range(min(window, 30))) - decided <= set(shown), "none that waited all the while is passed over"
    assert set(shown) <= set(range(min(window, 30))) | set(range(100, new))


def test_a_page_looks_at_a_bounded_number(items: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WINDOW", 4)
    read = []
    scroll = items.scroll

    def counted(limit: int, **options: Any) -> Any:
        read.append(limit)
        return scroll(limit, **options)

    monkeypatch.setattr(items, "scroll", counted)
    page, after = queue(items, POLICY)
    assert numbers(page) == [1, 2, 3, 4, 33, 32, 31, 30] and after is None
    assert sum(read) == 4 * len(KINDS)


def test_an_empty_queue(index: Collection) -> None:
    wipe(index)
    assert queue(index, POLICY) == ([], None)


@pytest.mark.parametrize("cursor", ["", "nonsense", "W10=", "bnVsbA==", "é", "WzEsMl0=", "A" * 10_000])
def test_cursors_that_were_not_given_out_are_refused(items: Collection, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        queue(items, POLICY, after=cursor)


@pytest.mark.parametrize("limit", [0, -1, MOST + 1])
def test_a_page_has_a_size(items: Collection, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        queue(items, POLICY, limit=limit)
