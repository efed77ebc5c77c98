"""One shard's way from its items to its counts, written down after every step where SIGKILL cannot reset it.

A shard is first worked on whole. If its worker dies, whatever was in work is divided in eight, until the item that
kills is alone; an item that was alone `attempts` times when a worker died is quarantined, and its neighbours are in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

_PARTS = 8


class Span(BaseModel):
    """Items `begin` to `end` of a shard, the last one excluded."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def parts(self) -> list[Span]:
        """It in eight, or fewer, of about one size."""
        step = max(1, -(-len(self) // _PARTS))
        return [Span(begin=at, end=min(self.end, at + step)) for at in range(self.begin, self.end, step)]


class ShardState(BaseModel):
    """What is done of a shard and what is not; JSON in Redis."""

    pending: list[Span]
    current: Span | None = None
    """What is in work, or was when the worker died."""
    kills: dict[int, int] = {}
    """How often a worker died with this item alone in work."""
    indexed: int = 0
    skipped: int = 0
    truncated: int = 0
    failures: list[dict[str, Any]] = []

    @classmethod
    def fresh(cls, count: int) -> ShardState:
        """Nothing done of so many items."""
        return cls(pending=[Span(begin=0, end=count)] if count else [])

    @property
    def total(self) -> int:
        """Items dealt with."""
        return self.indexed + self.skipped + len(self.failures)

    def recover(self, attempts: int) -> int | None:
        """Called when the shard is begun again: what was in work when its worker died is divided, or counted.

        Gives the item that has to be quarantined, if this was its last attempt.
        """
        span, self.current = self.current, None
        if span is None:
            return None
        if len(span) > 1:
            self.pending += span.parts()
            return None
        self.kills[span.begin] = self.kills.get(span.begin, 0) + 1
        if self.kills[span.begin] >= attempts:
            return span.begin
        self.pending.append(span)  # behind its neighbours
        return None

    def begin(self) -> Span | None:
        """The next part to work on, noted as being in work; None when all is done."""
        self.current = self.pending.pop(0) if self.pending else None
        return self.current

    def put_back(self) -> None:
        """Nobody died: the part in work was let go of, and is to be worked on as it is."""
        if self.current is not None:
            self.pending.insert(0, self.current)
            self.current = None

    def finish(self, outcome: Outcome) -> None:
        """Note what came of the part in work."""
        self.current = None
        self.indexed += outcome.indexed
        self.skipped += outcome.skipped
        self.truncated += outcome.truncated
        self.failures += outcome.failures


@dataclass
class Outcome:
    """What came of a part of a shard."""

    indexed: int = 0
    skipped: int = 0
    truncated: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Each with `source`, `code`, `message`, `remedy`, and `item`, by which it can be tried again."""
