"""What the benchmarks share: made-up collections, percentiles, and the machine's name."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.items import Kind, Location, Record, now, to_payload
from indexer.store import Collection, Point

_AT_ONCE = 512


def machine() -> str:
    """Processor and cores, in a line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def clustered(count: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around a few hundred centres, as embeddings lie; (count, size)."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(400, size))
    vectors = centres[chance.integers(0, len(centres), count)] + 0.7 * chance.normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def points(vectors: NDArray[np.float32]) -> Iterator[list[Point]]:
    """The vectors as image items, in batches."""
    for at in range(0, len(vectors), _AT_ONCE):
        batch = []
        for number, vector in enumerate(vectors[at : at + _AT_ONCE], start=at):
            where = [Location(source=f"/photos/{number}.jpg", size=1000, mtime_ns=number)]
            record = Record(
                kind=Kind.IMAGE,
                sha256=f"{number:064x}",
                locations=where,
                bytes=1000,
                media_type="image/jpeg",
                added_at=now(),
            )
            batch.append(
                Point(str(uuid.UUID(int=number + 1)), vector, to_payload(record, {"year": 2000 + number % 25}))
            )
        yield batch


def fill(collection: Collection, vectors: NDArray[np.float32]) -> None:
    """Write the vectors as items."""
    for batch in points(vectors):
        collection.upsert(batch)


def percentiles(seconds: Sequence[float]) -> str:
    """p50, p95, p99 and the worst, in milliseconds, as cells of a table."""
    ms = np.asarray(seconds) * 1000
    return " | ".join(f"{value:.1f}" for value in (*np.percentile(ms, [50, 95, 99]), ms.max()))
