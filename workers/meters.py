"""What all workers measured, added up in the queue's Redis, where every API process finds it for Prometheus.

crosslens:meters   hash   "STAGE:seconds:BOUND", "STAGE:sizes:BOUND"   pieces of work up to a bound, above the last
                          "STAGE:seconds:sum", "STAGE:sizes:sum"
                          "items:OUTCOME"                              items of shards that are done
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis
import structlog

from indexer.stages import Histogram, Stage, Stages

_KEY = "crosslens:meters"

QUEUE = "queue"
"""The stage in which a shard waits for a worker."""
RERANK_QUEUE = "rerank_queue"
"""The stage in which a search's list waits for a worker that reranks."""
RERANK = "rerank"
"""The stage in which such a worker compares a batch."""
STAGES = (QUEUE, "decode", "tokenize", "encode", "upsert", RERANK_QUEUE, RERANK)
OUTCOMES = ("indexed", "skipped", "failed")

_log = structlog.get_logger("worker")


class Meters:
    """The meters of one Redis. Thread-safe."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # as in `workers.jobs`

    def add(self, stages: Stages, items: Mapping[str, int] | None = None) -> None:
        """Add what was measured, and items by outcome, in one round trip.

        What cannot be added is lost, and said: a number is no reason to do a shard again.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            for name, stage in stages.by_name.items():
                for field, histogram, place in _cells(name, stage):
                    if histogram.counts[place]:
                        pipe.hincrby(_KEY, field, histogram.counts[place])
                for part, histogram in _parts(stage):
                    pipe.hincrbyfloat(_KEY, f"{name}:{part}:sum", histogram.sum)
            for outcome, count in (items or {}).items():
                pipe.hincrby(_KEY, f"items:{outcome}", count)
            try:
                pipe.execute()
            except redis.RedisError as error:
                _log.info("not measured", reason=str(error)[:200])

    def read(self) -> tuple[dict[str, Stage], dict[str, int]]:
        """The stages that did anything yet, and the items by outcome."""
        found: dict[bytes, bytes] = self._redis.hgetall(_KEY)
        stages: dict[str, Stage] = {}
        for name in STAGES:
            stage = Stage()
            for field, histogram, place in _cells(name, stage):
                histogram.counts[place] = int(found.get(field.encode(), 0))
            for part, histogram in _parts(stage):
                histogram.sum = float(found.get(f"{name}:{part}:sum".encode(), 0))
            if any(stage.seconds.counts):
                stages[name] = stage
        return stages, {each: int(found.get(f"items:{each}".encode(), 0)) for each in OUTCOMES}


def _parts(stage: Stage) -> Iterator[tuple[str, Histogram]]:
    yield from (("seconds", stage.seconds), ("sizes", stage.sizes))


def _cells(name: str, stage: Stage) -> Iterator[tuple[str, Histogram, int]]:
    """Each count's field, its histogram, and its place there."""
    for part, histogram in _parts(stage):
        for place, bound in enumerate((*histogram.bounds, float("inf"))):
            yield f"{name}:{part}:{bound:g}", histogram, place
