"""The micro-batcher: requests share runs, errors go to whom they belong, nothing waits for company."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from indexer.errors import ModelError, Overloaded
from indexer.models.batching import MicroBatcher


class Runs:
    """A run that waits until it may go on, and remembers what it was given."""

    def __init__(self, answer: Callable[[list[str]], list[str]] = lambda items: [item.upper() for item in items]):
        self.answer = answer
        self.seen: list[list[str]] = []
        self.threads: set[int] = set()
        self.first, self.go = threading.Event(), threading.Event()

    def __call__(self, items: list[str]) -> list[str]:
        self.seen.append(items)
        self.threads.add(threading.get_ident())
        self.first.set()
        assert self.go.wait(10)
        return self.answer(items)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def behind(
    pool: ThreadPoolExecutor, batcher: MicroBatcher[str, str], runs: Runs, *later: Sequence[str]
) -> list[Future[list[str]]]:
    """Submits "first", and while that runs the others, in this order; lets all go on."""
    begun = [pool.submit(batcher.submit, ["first"])]
    assert runs.first.wait(10)
    waiting = 0
    for items in later:
        begun.append(pool.submit(batcher.submit, items))
        waiting += len(items)
        while len(batcher._waiting) < waiting:  # until it stands in the queue
            threading.Event().wait(0.001)
    runs.go.set()
    return begun


def test_what_waits_together_runs_together(pool) -> None:
    runs = Runs()
    with MicroBatcher(runs, max_batch=4) as batcher:
        begun = behind(pool, batcher, runs, *(["abcdefg"[at]] for at in range(7)))
        assert [each.result(10) for each in begun] == [["FIRST"], *([letter] for letter in "ABCDEFG")]
    assert runs.seen == [["first"], ["a", "b", "c", "d"], ["e", "f", "g"]]


def test_a_lone_request_runs_on_its_own_thread() -> None:
    runs = Runs()
    runs.go.set()
    with MicroBatcher(runs) as batcher:
        assert batcher.submit(["a", "b"]) == ["A", "B"]
        assert batcher.submit([]) == []
    assert runs.threads == {threading.get_ident()}
    assert runs.seen == [["a", "b"]]


def test_more_than_a_batch_at_once() -> None:
    runs = Runs()
    runs.go.set()
    with MicroBatcher(runs, max_batch=2) as batcher:
        assert batcher.submit(list("abcde")) == list("ABCDE")
    assert runs.seen == [["a", "b"], ["c", "d"], ["e"]]


def test_an_error_belongs_to_its_item(pool) -> None:
    def answer(items: list[str]) -> list[str]:
        if "bad" in items:
            raise ModelError("bad item")
        return [item.upper() for item in items]

    runs = Runs(answer)
    with MicroBatcher(runs) as batcher:
        first, one, bad, other = behind(pool, batcher, runs, ["b"], ["bad"], ["c"])
        assert [first.result(10), one.result(10), other.result(10)] == [["FIRST"], ["B"], ["C"]]
        with pytest.raises(ModelError, match="bad item"):
            bad.result(10)


def test_a_full_queue_and_a_closed_batcher_refuse(pool) -> None:
    runs = Runs()
    batcher = MicroBatcher(runs, max_waiting=2)
    first = pool.submit(batcher.submit, ["first"])
    assert runs.first.wait(10)
    second = pool.submit(batcher.submit, ["a", "b"])
    while len(batcher._waiting) < 2:
        threading.Event().wait(0.001)
    with pytest.raises(Overloaded):
        batcher.submit(["c"])
    closed = pool.submit(batcher.close)
    runs.go.set()
    closed.result(10)
    assert (first.result(10), second.result(10)) == (["FIRST"], ["A", "B"])
    with pytest.raises(Overloaded):
        batcher.submit(["d"])
    batcher.close()


def test_many_threads_get_what_is_theirs(pool) -> None:
    with MicroBatcher(lambda items: [item * 2 for item in items], max_batch=5) as batcher:
        asked = [[f"{thread}-{number}" for number in range(thread % 4)] for thread in range(400)]
        assert list(pool.map(batcher.submit, asked)) == [[item * 2 for item in items] for items in asked]
