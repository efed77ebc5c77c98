"""The micro-batcher: requests share runs, errors go to whom they belong, nothing waits for company."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from indexer.errors import ModelError, Overloaded
from indexer.models.batching import MicroBatcher


def test_what_waits_together_runs_together() -> None:
    runs: list[list[int]] = []
    first, go = threading.Event(), threading.Event()

    def run(items: list[int]) -> list[int]:
        runs.append(items)
        first.set()
        go.wait(10)
        return [10 * item for item in items]

    with MicroBatcher(run, max_batch=4) as batcher, ThreadPoolExecutor(8) as pool:
        begun = batcher.begin(0)
        first.wait(10)
        waiting = [batcher.begin(number) for number in range(1, 8)]
        go.set()
        assert begun.result(10) == 0
        assert [each.result(10) for each in waiting] == [10 * number for number in range(1, 8)]
        assert list(pool.map(batcher.submit, range(3))) == [0, 10, 20]
    assert runs[:3] == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_an_error_belongs_to_its_item() -> None:
    first, go = threading.Event(), threading.Event()

    def run(items: list[str]) -> list[str]:
        first.set()
        go.wait(10)
        if "bad" in items:
            raise ModelError("bad item")
        return [item.upper() for item in items]

    with MicroBatcher(run) as batcher:
        begun = [batcher.begin("a")]
        first.wait(10)
        begun += [batcher.begin(item) for item in ("b", "bad", "c")]
        go.set()
        assert [begun[at].result(10) for at in (0, 1, 3)] == ["A", "B", "C"]
        with pytest.raises(ModelError, match="bad item"):
            begun[2].result(10)


def test_a_full_queue_and_a_closed_batcher_refuse() -> None:
    first, go = threading.Event(), threading.Event()

    def run(items: list[int]) -> list[int]:
        first.set()
        go.wait(10)
        return items

    batcher = MicroBatcher(run, max_waiting=2)
    begun = [batcher.begin(0)]
    first.wait(10)
    begun += [batcher.begin(1), batcher.begin(2)]
    with pytest.raises(Overloaded):
        batcher.begin(3)
    go.set()
    batcher.close()
    assert [each.result(10) for each in begun] == [0, 1, 2]
    with pytest.raises(Overloaded):
        batcher.begin(4)
    batcher.close()
