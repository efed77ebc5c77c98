"""Requests that come at the same moment, embedded in one run.

Nothing waits for company: while one batch runs, the next gathers by itself. Whoever comes while none runs, runs a batch
on its own thread: a lone request is handed to no other, and waits for none.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from indexer.errors import Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    """An item, and what became of it."""

    item: Item
    answered: bool = False
    result: Result | None = None
    error: Exception | None = None


class MicroBatcher(Generic[Item, Result]):
    """Joins what many threads submit into runs of at most `max_batch`, one run at a time.

    Usage:
        with MicroBatcher(lambda texts: list(encoder.encode_texts(texts).vectors)) as batcher:
            vectors = batcher.submit(["a dog"])   # from any thread; blocks until they are embedded
    """

    def __init__(
        self, run: Callable[[list[Item]], Sequence[Result]], *, max_batch: int = 32, max_waiting: int = 1024
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._running = False
        self._closed = False
        self._changed = threading.Condition()

    def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results of items.

        Raises:
            Overloaded: too many are waiting, or the batcher is closed.
            Exception: what the run of one of them raised.
        """
        mine = [_Waiting[Item, Result](item) for item in items]
        with self._changed:
            if self._closed:
                raise Overloaded("The encoder is shutting down.")
            if len(self._waiting) + len(mine) > self._max_waiting:
                raise Overloaded("Too many requests are waiting for the encoder.")
            self._waiting.extend(mine)
        while batch := self._next_batch(mine):
            try:
                self._answer(batch)
            finally:
                with self._changed:
                    self._running = False
                    self._changed.notify_all()
        for each in mine:
            if each.error is not None:
                raise each.error
        return [each.result for each in mine]  # type: ignore[misc]

    def close(self) -> None:
        """Take nothing more, and wait until everything is answered."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._waiting and not self._running)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_batch(self, mine: list[_Waiting[Item, Result]]) -> list[_Waiting[Item, Result]]:
        """What to run now, once nothing runs; nothing when others have answered all of `mine`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running or all(each.answered for each in mine))
            if all(each.answered for each in mine):
                return []
            self._running = True
            return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        """Run a batch; one that fails is run again one by one, so that an error meets only the item that it is of."""
        try:
            results = self._run([each.item for each in batch])
        except Exception as error:  # noqa: BLE001  it is handed to whoever asked
            if len(batch) == 1:
                batch[0].error, batch[0].answered = error, True
                return
            for each in batch:
                self._answer([each])
        else:
            for each, result in zip(batch, results, strict=True):
                each.result, each.answered = result, True
