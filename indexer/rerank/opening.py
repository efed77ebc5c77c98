"""Originals, opened beside each other for whoever waits for them: what is slow to come holds up nobody else.

Those that may come over a network have threads of their own, so that a host that hangs keeps no file waiting. A picture
that two searches want is opened once. Nothing that has begun can be called back; what comes after its search is over is
kept for the next who asks, as far as there is room, and costs the model nothing until then. The threads are daemons: a
process ends without waiting for them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, TypeAlias

import structlog

from indexer.media.object_urls import is_object
from indexer.media.sources import is_url

if TYPE_CHECKING:
    from indexer.items import Record
    from indexer.models.rerank.reranker import Floats

    Opened: TypeAlias = Future[Floats | None]

OPENERS = 8
"""Files that are opened at once; as many more may come over a network."""
AHEAD = 2 * OPENERS
"""Pictures of one search that wait for the model, or are on their way; as many more over a network."""
ROOM = 32
"""Pictures that are kept though nobody waits for them: a megabyte or two each."""

_log = structlog.get_logger("rerank")


@dataclass(eq=False)
class _Opening:
    key: str
    record: Record
    future: Opened = field(default_factory=Future)
    waiting: int = 0


class Openings:
    """What is being opened in a process, by `feature_key`. Thread-safe; close it after use.

    `open_one` gives a picture as the model takes it; None if it cannot be had.
    """

    def __init__(self, open_one: Callable[[Record], Floats | None]) -> None:
        self._open_one = open_one
        self._queues: dict[bool, SimpleQueue[_Opening | None]] = {False: SimpleQueue(), True: SimpleQueue()}
        self._threads = {False: 0, True: 0}
        self._under_way: dict[str, _Opening] = {}
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, key: str, record: Record) -> Opened:
        """Have an original opened, unless it is already; `leave` it when it is not waited for any more."""
        with self._lock:
            if (pixels := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                there: Opened = Future()
                there.set_result(pixels)
                return there
            opening = self._under_way.get(key)
            if opening is None:
                opening = self._under_way[key] = _Opening(key, record)
                self._queue(opening)
            opening.waiting += 1
            return opening.future

    def leave(self, key: str, opened: Opened) -> None:
        """Wait no longer for what was asked for: if nobody does, and it has not begun, it never will."""
        with self._lock:
            opening = self._under_way.get(key)
            if opening is not None and opening.future is opened:  # else it has come
                opening.waiting -= 1
                if opening.waiting == 0 and opening.future.cancel():
                    del self._under_way[key]

    def forget(self, key: str) -> None:
        """Keep a picture no longer: it was looked at."""
        with self._lock:
            self._kept.pop(key, None)

    def close(self) -> None:
        """Begin nothing more; what is being opened is let go of."""
        with self._lock:
            self._closed = True
            self._kept.clear()
            for remote, count in self._threads.items():
                for _ in range(count):
                    self._queues[remote].put(None)

    def _queue(self, opening: _Opening) -> None:
        remote = is_remote(opening.record)
        self._queues[remote].put(opening)
        if self._threads[remote] < OPENERS and not self._closed:
            self._threads[remote] += 1
            threading.Thread(target=self._work, args=(self._queues[remote],), name="rerank-open", daemon=True).start()

    def _work(self, queue: SimpleQueue[_Opening | None]) -> None:
        while (opening := queue.get()) is not None and not self._closed:
            if not opening.future.set_running_or_notify_cancel():
                continue
            pixels: Floats | None = None
            try:
                pixels = self._open_one(opening.record)
            except Exception:  # noqa: BLE001  whatever a file was, the next one is another's
                if not self._closed:  # else it was closed in the middle of it
                    _log.exception("picture not reranked", sha256=opening.record.sha256)
            with self._lock:
                del self._under_way[opening.key]
                if pixels is not None and not self._closed:
                    self._kept[opening.key] = pixels
                    if len(self._kept) > ROOM:
                        self._kept.popitem(last=False)
            opening.future.set_result(pixels)


class Wanted:
    """The originals that one search wants, of which it has a few opened ahead. For one thread; a context.

    Usage:
        with Wanted(openings) as wanted:
            wanted.add(key, record)
            while opened := wanted.next(8, seconds=0.1):
                ...
    """

    def __init__(self, openings: Openings) -> None:
        self._openings = openings
        self._waiting: dict[bool, deque[tuple[str, Record]]] = {False: deque(), True: deque()}
        self._asked: dict[bool, dict[str, Opened]] = {False: {}, True: {}}
        self._places: dict[str, int] = {}

    def add(self, key: str, record: Record) -> None:
        """Want another one, less than those before it."""
        self._places[key] = len(self._places)
        self._waiting[is_remote(record)].append((key, record))
        self._ask()

    def next(self, most: int, seconds: float) -> dict[str, Floats | None]:
        """The best that have come, at least one if it takes no longer than that; {}: none did, or none is left.

        None stands for what cannot be had.
        """
        futures = {key: future for asked in self._asked.values() for key, future in asked.items()}
        wait(futures.values(), seconds, FIRST_COMPLETED)
        ready = sorted((key for key, future in futures.items() if future.done()), key=self._places.__getitem__)[:most]
        for asked in self._asked.values():
            for key in ready:
                asked.pop(key, None)
        self._ask()
        return {key: futures[key].result() for key in ready}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for asked in self._asked.values():
            for key, future in asked.items():
                self._openings.leave(key, future)

    def _ask(self) -> None:
        for remote, waiting in self._waiting.items():
            asked = self._asked[remote]
            while waiting and len(asked) < AHEAD:
                key, record = waiting.popleft()
                asked[key] = self._openings.ask(key, record)


def is_remote(record: Record) -> bool:
    """Whether an original may come over a network."""
    return any(is_url(location.source) or is_object(location.source) for location in record.locations)
