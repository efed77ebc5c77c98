"""Which thread answers a request, and that none is forgotten."""

import logging
import threading
from collections.abc import Iterator

import pytest

from search_api.threads import WarmestFirst
from tests.waiting import until


class Task:
    """Says who works on it, and waits until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.by = ""

    def service(self) -> None:
        self.by = threading.current_thread().name
        self.begun.set()
        self.may_end.wait(10)
        self.ended.set()

    def cancel(self) -> None: ...


@pytest.fixture
def threads() -> Iterator[WarmestFirst]:
    made = WarmestFirst(4)
    yield made
    assert made.shutdown(timeout=10)
    assert not made.threads


def idle(threads: WarmestFirst, count: int) -> None:
    until(lambda: threads.active_count == len(threads.threads) - count)


def test_the_thread_that_worked_last_works_next(threads: WarmestFirst) -> None:
    idle(threads, 4)
    workers = set()
    for _ in range(20):
        task = Task()
        task.may_end.set()
        threads.add_task(task)
        assert task.ended.wait(10)
        idle(threads, 4)
        workers.add(task.by)
    assert len(workers) == 1


def test_all_work_at_once_and_none_is_forgotten(threads: WarmestFirst, caplog: pytest.LogCaptureFixture) -> None:
    idle(threads, 4)
    with caplog.at_level(logging.DEBUG):
        tasks = [Task() for _ in range(7)]
        for task in tasks:
            threads.add_task(task)
        assert all(task.begun.wait(10) for task in tasks[:4])
        assert len({task.by for task in tasks[:4]}) == 4
        assert not any(task.begun.is_set() for task in tasks[4:])
        for task in tasks:
            task.may_end.set()
        assert all(task.ended.wait(10) for task in tasks)
    assert not caplog.records
