"""Stages that overlap and never run ahead: lazy maps over thread pools, with a bounded number of results in flight.

A pipeline is a chain of generators. The last one pulls; each stage keeps its own few results in work. Whatever a
stage raises comes out of the chain once, and closing the last generator ends them all.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_ahead(
    pool: Executor, work: Callable[[In], Out], items: Iterable[In], *, ahead: int
) -> Generator[Out, None, None]:
    """`work` of every item, in order, with at most `ahead` of them begun before their turn."""
    begun: deque[Future[Out]] = deque()
    source = iter(items)
    try:
        for item in source:
            begun.append(pool.submit(work, item))
            # Give what is ready as soon as it is: the next stage must not wait for this one's window to fill.
            while begun and (len(begun) >= ahead or begun[0].done()):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        _close(source)


def prefetch(items: Iterable[Out], *, ahead: int) -> Generator[Out, None, None]:
    """The same items, drawn by a thread of their own, at most `ahead` of them before they are asked for."""
    ready: queue.Queue[tuple[bool, Out | BaseException | None]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(message: tuple[bool, Out | BaseException | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(message, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def draw() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # noqa: BLE001  it is raised where the items are used
            put((False, error))
        finally:
            _close(source)

    thread = threading.Thread(target=draw, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, message = ready.get()
            if not more:
                if message is not None:
                    raise message  # type: ignore[misc]
                return
            yield message  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()


def batched(items: Iterable[In], size: int) -> Generator[list[In], None, None]:
    """Lists of `size` items, the last maybe shorter."""
    source = iter(items)
    try:
        batch: list[In] = []
        for item in source:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        _close(source)


class Budget:
    """Bytes in flight: `take` waits until there is room, or the run is over. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, count: int) -> bool:
        """Wait for room, then take it; whatever is alone has room. False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._used == 0 or self._used + count <= self._limit)
            self._used += count
            return not self._closed

    def give_back(self, count: int) -> None:
        """Make room again."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _close(source: Iterator[object]) -> None:
    """Close a generator upstream now, not when it is collected."""
    if isinstance(source, Generator):
        source.close()
