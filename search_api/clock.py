"""What the stages of a search take."""

from __future__ import annotations

import copy
import time


class Clock:
    """Milliseconds of stages, each from the end of the one before."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str, **within: float) -> None:
        """End a stage; `within` are the milliseconds of others that were part of it."""
        now = time.perf_counter()
        self.laps |= within
        self.laps[stage] = max(0.0, (now - self._last) * 1000 - sum(within.values()))
        self._last = now

    def own(self) -> Clock:
        """One that goes on from here, with stages of its own."""
        other = copy.copy(self)
        other.laps = dict(self.laps)
        other._last = time.perf_counter()
        return other

    @property
    def total(self) -> float:
        """From the beginning to the last stage's end."""
        return (self._last - self._started) * 1000
