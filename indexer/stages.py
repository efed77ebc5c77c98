"""What the stages of an ingest took: how long, of how many items at once, and from when to when.

Kept as histograms, so that a million items need no more memory than one.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from indexer import tracing

SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0)
"""Bounds for times: from a text's tokens to a shard's wait."""
SIZES = tuple(float(1 << power) for power in range(11))
"""Bounds for batches, which have 1,024 items at most."""


class Histogram:
    """How many values were up to each bound (and above the one before), how many above all, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass
class Stage:
    """One stage: times and sizes of its pieces of work."""

    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    """Items of a piece of work."""
    begun: int = 0
    ended: int = 0
    """Nanoseconds since 1970: from the first piece's begin to the last one's end. Stages overlap."""


class Stages:
    """The stages of one ingest, by name. Thread-safe."""

    def __init__(self) -> None:
        self.by_name: dict[str, Stage] = {}
        self._lock = threading.Lock()

    @contextmanager
    def timed(self, name: str, items: int = 1) -> Iterator[None]:
        """Measure a block as one piece of a stage's work, however it ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.note(name, time.perf_counter() - started, items)

    def note(self, name: str, seconds: float, items: int = 1) -> None:
        """One piece of a stage's work that is just over."""
        now = time.time_ns()
        with self._lock:
            stage = self.by_name.setdefault(name, Stage())
            stage.seconds.add(seconds)
            stage.sizes.add(items)
            begun = now - int(seconds * 1e9)
            stage.begun = min(stage.begun or begun, begun)
            stage.ended = max(stage.ended, now)

    def trace(self) -> None:
        """A span for each stage, under the one that is open: one for all of its work, which may be very many pieces."""
        for name, stage in self.by_name.items():
            tracing.record(
                name, stage.begun, stage.ended, pieces=sum(stage.seconds.counts), items=stage.sizes.sum,
                busy_seconds=stage.seconds.sum,
            )  # fmt: skip
