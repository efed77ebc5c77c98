"""What an ingest did: counters that add up, and every failure."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

from indexer.errors import CrosslensError
from indexer.stages import Stages


@dataclass(frozen=True)
class Failure:
    """One source that did not become an item, and why."""

    source: str
    error: CrosslensError

    def as_dict(self) -> dict[str, Any]:
        """As it is reported in JSON."""
        return {"source": self.source, **self.error.as_dict()}


class Counts(Protocol):
    """Who wants to know how many files, objects or members were passed over; a `Report` does."""

    passed_over: int


@dataclass
class Report:
    """The counters of one ingest: `total` is `indexed + skipped + failed`, once it is over.

    An item counts as indexed when its vector or its payload was written; as skipped when the index held both already,
    even if a new location of it was noted.
    """

    collection: str
    model: str
    job: str = field(default_factory=lambda: str(uuid.uuid4()))
    part: str | None = None
    """The part of a queued job that this is, `<job>/<shard>`; it may be delivered more than once."""
    indexed: int = 0
    skipped: int = 0
    decoded: int = 0
    """Images decoded; what was skipped was not."""
    frames: int = 0
    """Frames and pages that the indexed files gave; the files are what is counted as indexed."""
    passed_over: int = 0
    """Files in the folders that are no media, and were not taken for any."""
    removed: int = 0
    """Items that left the index because they are no longer at any of their places; a file's frames count as one."""
    failures: list[Failure] = field(default_factory=list)
    truncated: int = 0
    """Texts that were longer than the model reads."""
    interrupted: bool = False
    stages: Stages = field(default_factory=Stages, repr=False, compare=False)
    """What its stages took."""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Sources that did not become an item."""
        return len(self.failures)

    @property
    def total(self) -> int:
        """Sources that were dealt with."""
        return self.indexed + self.skipped + self.failed

    @property
    def items_per_second(self) -> float:
        """Sources dealt with per second of the whole run."""
        return self.total / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As `crosslens ingest --json` prints it."""
        warnings = []
        if self.truncated:
            warnings.append(f"{self.truncated} texts were longer than the model reads: their ends were cut off.")
        return {
            "job": self.job,
            "collection": self.collection,
            "model": self.model,
            "total": self.total,
            "indexed": self.indexed,
            "skipped": self.skipped,
            "failed": self.failed,
            "failures": [failure.as_dict() for failure in self.failures],
            "frames": self.frames,
            "passed_over": self.passed_over,
            "removed": self.removed,
            "interrupted": self.interrupted,
            "warnings": warnings,
            "seconds": round(self.seconds, 3),
            "items_per_second": round(self.items_per_second, 2),
        }
