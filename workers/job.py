"""A job as Redis had it: what was asked for, how far it is, and when it will be done."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    PLANNING = "planning"
    RUNNING = "running"
    """Planned; shards are in work."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    """It could not be planned; `error` says why."""


OVER = frozenset((State.DONE, State.CANCELLED, State.FAILED))


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read."""

    id: str
    collection: str
    model: str
    sources: list[str]
    state: State
    note: str
    """What it waits for, in words; empty when it waits for nothing."""
    error: dict[str, Any] | None
    created: float
    started: float | None
    finished: float | None
    planned: int
    """Items planned so far; of all when `state` is past planning."""
    indexed: int
    skipped: int
    failed: int
    passed_over: int
    truncated: int
    trace: dict[str, str]
    """Where its trace goes on (`indexer.tracing`)."""

    @classmethod
    def read(cls, job_id: str, fields: Mapping[str, str]) -> Self:
        """A job from the fields of its hash."""

        def number(name: str) -> int:
            return int(fields.get(name, 0))

        def moment(name: str) -> float | None:
            return float(fields[name]) if name in fields else None

        return cls(
            id=job_id,
            collection=fields["collection"],
            model=fields["model"],
            sources=json.loads(fields["sources"]),
            state=State(fields["state"]),
            note=fields.get("note", ""),
            error=json.loads(fields["error"]) if fields.get("error") else None,
            created=float(fields["created"]),
            started=moment("started"),
            finished=moment("finished"),
            planned=number("planned"),
            indexed=number("indexed"),
            skipped=number("skipped"),
            failed=number("failed"),
            passed_over=number("passed_over"),
            truncated=number("truncated"),
            trace=json.loads(fields.get("trace", "{}")),
        )

    @property
    def total(self) -> int:
        """Items dealt with."""
        return self.indexed + self.skipped + self.failed

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON; times in seconds since 1970, `eta` in seconds from now."""
        end = self.finished or time.time()
        seconds = max(0.0, end - self.started) if self.started else 0.0
        rate = self.total / seconds if seconds else 0.0
        left = self.planned - self.total
        eta = left / rate if self.state is State.RUNNING and rate else None
        return {
            "job": self.id, "collection": self.collection, "model": self.model, "sources": self.sources,
            "state": self.state.value, "note": self.note, "error": self.error, "created": self.created,
            "started": self.started, "finished": self.finished, "planned": self.planned, "total": self.total,
            "indexed": self.indexed, "skipped": self.skipped, "failed": self.failed, "passed_over": self.passed_over,
            "truncated": self.truncated, "seconds": round(seconds, 3), "items_per_second": round(rate, 2),
            "eta": None if eta is None else round(eta, 1),
        }  # fmt: skip
