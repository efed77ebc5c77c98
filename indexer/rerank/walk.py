"""Down a list from the best, batch by batch, until time is up: never slower than promised by more than one batch.

No batch begins that would end late if it took as long as the slowest one before it. A batch whose turn does not come in
time, because other requests use the model, does not begin either: so however many wait, none of them is late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Score = TypeVar("Score")


class Turns(Protocol):
    """Who may run a batch."""

    def take(self, seconds: float) -> bool:
        """Wait for a turn, so many seconds at most (0 or less: not at all); whether it came."""

    def give_back(self) -> None:
        """End one's turn."""


class InTurn:
    """At most `at_once` batches at a time, those that came first first: beside each other all would be late."""

    def __init__(self, at_once: int = 1) -> None:
        self._free = threading.Semaphore(at_once)

    def take(self, seconds: float) -> bool:
        """Wait for a turn, so many seconds at most (0 or less: not at all); whether it came."""
        return self._free.acquire(timeout=max(0.0, seconds))

    def give_back(self) -> None:
        """End one's turn."""
        self._free.release()


def walk(
    items: Sequence[Item],
    score_batch: Callable[[Sequence[Item], float], Sequence[Score]],
    deadline_s: float,
    batch: int,
    clock: Callable[[], float] = time.monotonic,
    turns: Turns | None = None,
) -> list[Score]:
    """The scores of the first n items, as far as time allows; n is a multiple of `batch`, or all of them.

    `score_batch` gets a batch and the seconds that are left when it begins, and gives a score for each; what takes part
    of it is left out where these run out is its own business. `deadline_s` counts from now. Without `turns` a batch
    waits for nobody.
    """
    ends = clock() + deadline_s
    scores: list[Score] = []
    slowest = 0.0
    while len(scores) < len(items):
        if turns is not None and not turns.take(ends - clock() - slowest):
            break
        try:
            began = clock()
            left = ends - began
            if left <= slowest:
                break
            some = items[len(scores) : len(scores) + batch]
            scores += score_batch(some, left)
            slowest = max(slowest, clock() - began)
        finally:
            if turns is not None:
                turns.give_back()
    return scores
