"""Requests that come at the same moment, embedded in one run.

Nothing waits for company: while one batch runs, the next gathers by itself. An idle batcher runs a lone request at
once; a busy one fills its batches.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from indexer.errors import Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """Joins what many threads submit into runs of at most `max_batch`.

    Usage:
        with MicroBatcher(lambda texts: list(encoder.encode_texts(texts).vectors)) as batcher:
            vector = batcher.submit("a dog")   # from any thread; blocks until it is embedded
    """

    def __init__(
        self, run: Callable[[list[Item]], Sequence[Result]], *, max_batch: int = 32, max_waiting: int = 1024
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._waiting: queue.Queue[tuple[Item, Future[Result]] | None] = queue.Queue(max_waiting)
        self._closed = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="micro-batcher", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Result:
        """The result of one item; raises what its run raised, and as `begin`."""
        return self.begin(item).result()

    def begin(self, item: Item) -> Future[Result]:
        """The result of one item, to come.

        Raises:
            Overloaded: too many are waiting, or the batcher is closed.
        """
        done: Future[Result] = Future()
        with self._guard:  # so that nothing is put behind the end mark
            if self._closed:
                raise Overloaded("The encoder is shutting down.")
            try:
                self._waiting.put_nowait((item, done))
            except queue.Full as error:
                raise Overloaded("Too many requests are waiting for the encoder.") from error
        return done

    def close(self) -> None:
        """Answer what waits, then stop."""
        with self._guard:
            already, self._closed = self._closed, True
        if not already:
            self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        while batch := self._gather():
            items = [item for item, _ in batch]
            try:
                results = self._run(items)
            except Exception as error:  # noqa: BLE001  it is handed to whoever asked
                self._one_by_one(batch, error)
            else:
                for (_, done), result in zip(batch, results, strict=True):
                    done.set_result(result)

    def _gather(self) -> list[tuple[Item, Future[Result]]]:
        """Wait for one, then take what is there besides; nothing once closed and drained."""
        first = self._waiting.get()
        if first is None:
            return []
        batch = [first]
        while len(batch) < self._max_batch:
            try:
                waiting = self._waiting.get_nowait()
            except queue.Empty:
                break
            if waiting is None:
                self._waiting.put(None)  # stop after this batch
                break
            batch.append(waiting)
        return batch

    def _one_by_one(self, batch: list[tuple[Item, Future[Result]]], error: Exception) -> None:
        """A batch that failed: only those that fail alone too get an error."""
        if len(batch) == 1:
            batch[0][1].set_exception(error)
            return
        for item, done in batch:
            try:
                done.set_result(self._run([item])[0])
            except Exception as alone:  # noqa: BLE001  it is handed to whoever asked
                done.set_exception(alone)
