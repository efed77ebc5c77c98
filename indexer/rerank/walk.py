"""Down a list from the best, batch by batch, until time is up: never slower than promised by more than one batch.

A batch is what the model does at a stretch. None begins that would end late if it took as long as the slowest before
it, and none without a turn on the device: so however many searches use the model, none of them is late. A turn is held
while the model runs, and never while something is read, fetched, decoded or waited for.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from indexer.models.devices import cpu_count

T = TypeVar("T")


class Turns(Protocol):
    """Who may run a batch."""

    def take(self, seconds: float) -> bool:
        """Wait for a turn, so many seconds at most (0 or less: not at all); whether it came."""

    def give_back(self) -> None:
        """End one's turn."""


class InTurn:
    """At most `at_once` batches at a time: beside each other all would be late. Whoever can wait least comes first."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()

    def take(self, seconds: float) -> bool:
        """Wait for a turn, so many seconds at most (0 or less: not at all); whether it came."""
        called = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if seconds <= 0:
                return False
            ticket = (time.monotonic() + seconds, next(self._order), called)
            heapq.heappush(self._waiting, ticket)
        if called.wait(min(seconds, threading.TIMEOUT_MAX)):
            return True
        with self._lock:
            if not called.is_set():  # else just now
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
            return called.is_set()

    def give_back(self) -> None:
        """End one's turn. It is handed on: who gives it back does not get it again before those who wait."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._free += 1


class Running(Protocol):
    """What runs somewhere: a reranker."""

    @property
    def is_gpu(self) -> bool:
        """Whether it is on GPUs; until it has run, whether it probably will be."""

    @property
    def devices(self) -> dict[str, str]:
        """The devices of each of its graphs that is open: `cuda:0,cuda:1`."""


class DeviceTurns:
    """The turns of a process: on its CPU one for each processor, on GPUs one for each, whichever model they run."""

    def __init__(self) -> None:
        self._cpu = InTurn(cpu_count())
        self._gpus: dict[frozenset[str], InTurn] = {}
        self._lock = threading.Lock()

    def of(self, model: Running) -> Turns:
        """Those of the devices that a model runs on."""
        if not model.is_gpu:
            return self._cpu
        gpus = frozenset(name for names in model.devices.values() for name in names.split(","))
        with self._lock:
            return self._gpus.setdefault(gpus, InTurn(max(1, len(gpus))))


@dataclass(frozen=True, slots=True)
class Ran(Generic[T]):
    """A batch that ran."""

    result: T
    seconds: float


class Walk:
    """A search's way down a list, which begins now and ends in so many seconds. For one thread.

    Without `turns` a batch waits for nobody. `clock` is in seconds.

    Usage:
        walk = Walk(0.3, turns)
        while items and (ran := walk.run(lambda: score(items[:8]))) is not None:
            ...
    """

    def __init__(self, seconds: float, turns: Turns | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turns = turns
        self._since = clock()
        self._ends = self._since + seconds
        self._slowest = 0.0

    @property
    def is_over(self) -> bool:
        """Whether there is no time for another batch."""
        return self._left <= self._slowest

    @property
    def patience(self) -> float:
        """Seconds that something else may take before the next batch: between two it has half of what is left."""
        return 0.0 if self.is_over else max(0.0, self._left - (self._ends - self._since) / 2)

    def run(self, batch: Callable[[], T]) -> Ran[T] | None:
        """Run a batch when it is its turn; None where there is no time for it any more. Raises what the batch does."""
        if self._turns is not None and not self._turns.take(self._left - self._slowest):
            return None
        try:
            began = self._clock()
            if self._ends - began <= self._slowest:  # it came too late
                return None
            result = batch()
            self._since = self._clock()
        finally:
            if self._turns is not None:
                self._turns.give_back()
        seconds = self._since - began
        self._slowest = max(self._slowest, seconds)
        return Ran(result, seconds)

    @property
    def _left(self) -> float:
        return self._ends - self._clock()
