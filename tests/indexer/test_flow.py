"""Stages that overlap: order kept, never too far ahead, errors out once, nothing left running."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexer.flow import batched, map_ahead, prefetch


def test_results_come_in_order_and_never_too_far_ahead() -> None:
    drawn: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            drawn.append(number)
            yield number

    with ThreadPoolExecutor(4) as pool:
        for at, result in enumerate(map_ahead(pool, lambda number: number * 2, numbers(), ahead=5)):
            assert result == at * 2
            assert len(drawn) <= at + 6
    assert len(drawn) == 50


def test_prefetch_stops_at_its_bound_until_asked() -> None:
    drawn = threading.Semaphore(0)
    count = 0

    def numbers() -> Iterator[int]:
        nonlocal count
        for number in range(100):
            count += 1
            drawn.release()
            yield number

    items = prefetch(numbers(), ahead=3)
    assert next(items) == 0
    for _ in range(4):
        assert drawn.acquire(timeout=10)
    assert count <= 5
    assert list(items) == list(range(1, 100))


@pytest.mark.parametrize("stage", ["source", "work"])
def test_an_error_comes_out_once_and_ends_every_stage(stage: str) -> None:
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            for number in range(100):
                if stage == "source" and number == 20:
                    raise ValueError("broken")
                yield number
        finally:
            closed.set()

    def work(number: int) -> int:
        if stage == "work" and number == 20:
            raise ValueError("broken")
        return number

    before = threading.active_count()
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="broken"):
        for _ in batched(map_ahead(pool, work, prefetch(numbers(), ahead=4), ahead=4), 8):
            pass
    assert closed.is_set()
    assert threading.active_count() == before


def test_batches_hold_everything() -> None:
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []
