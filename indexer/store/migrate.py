"""Copy collections from one index to another, and check that they arrived.

A point is copied with its id, vector and payload. Those whose id the target has are passed over, so a run that was cut
short goes on where it ended; the ids alone are compared then, no vector is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from indexer.store.collection import Collection, Point
from indexer.store.store import Store

SAMPLE = 100
"""How many points of a collection are compared in the end: their vectors and payloads."""
LEAST_COSINE = 0.9999
"""What a copied vector has with its original: each engine normalises in float32 for itself."""


@dataclass
class Migrated:
    """What became of one collection."""

    name: str
    points: int
    """What the source holds, counted at the start."""
    copied: int = 0
    skipped: int = 0
    """Points that the target had."""
    compared: int = 0
    """Points of which vector and payload were compared."""
    differences: list[str] = field(default_factory=list)
    """What is not as in the source, a sentence each."""

    @property
    def verified(self) -> bool:
        """Whether the target holds what the source holds, as far as it was compared."""
        return not self.differences


Progress = Callable[[Migrated], None]


def migrate(
    collections: Sequence[Collection],
    target: Store,
    *,
    batch: int = 256,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Migrated]:
    """Copy collections to the target, under their names, and verify each when it is copied.

    `batch` is how many points are asked for and written at a time. With `overwrite`, points that the target has are
    written again. `progress` is called after each batch.

    Raises:
        ModelMismatch: the target has a collection of the same name with another model's vectors; no point was written.
        IndexUnavailable: one of the two does not answer; the same call goes on from there.
    """
    # All before the first point is written, so that a mismatch in the last one does not come after hours.
    pairs = [(each, _counterpart(each, target)) for each in collections]
    return [_migrate(each, into, batch, overwrite, progress) for each, into in pairs]


def _counterpart(collection: Collection, target: Store) -> Collection:
    return target.create(
        collection.name,
        collection.model,
        collection.fingerprint,
        collection.dimension,
        metadata=collection.metadata,
        indexes=collection.payload_indexes(),
    )


def _migrate(
    source: Collection, target: Collection, batch: int, overwrite: bool, progress: Progress | None
) -> Migrated:
    done = Migrated(source.name, source.count())
    sample = _Sample()
    for ids in source.ids(batch):
        sample.add(ids)
        present = set() if overwrite else target.present(ids)
        points = source.points([each for each in ids if each not in present])
        target.upsert(list(points.values()))
        done.copied += len(points)
        done.skipped += len(present)
        if progress is not None:
            progress(done)
    _verify(source, target, sample.ids, done)
    return done


class _Sample:
    """Ids drawn evenly from a stream of unknown length (reservoir sampling), others in each run."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._seen = 0
        self._chance = np.random.default_rng()

    def add(self, ids: Sequence[str]) -> None:
        for each in ids:
            self._seen += 1
            if len(self.ids) < SAMPLE:
                self.ids.append(each)
            elif (place := int(self._chance.integers(self._seen))) < SAMPLE:
                self.ids[place] = each


def _verify(source: Collection, target: Collection, sample: Sequence[str], done: Migrated) -> None:
    """Compare the counts and a sample of the points; note what differs."""
    there, here = source.count(), target.count()
    if there != here:
        done.differences.append(f"The source holds {there} points, the target {here}.")
    originals, copies = source.points(sample), target.points(sample)
    for each, original in originals.items():
        done.compared += 1
        if (copy := copies.get(each)) is None:
            done.differences.append(f"{each} is not in the target.")
        else:
            done.differences.extend(_differences(original, copy))


def _differences(original: Point, copy: Point) -> list[str]:
    found = []
    first, second = original.vector.astype(np.float64), copy.vector.astype(np.float64)
    cosine = float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    if not cosine >= LEAST_COSINE:  # NaN too
        found.append(f"The vector of {original.id} has cosine {cosine:.6f} with its copy; {LEAST_COSINE} is required.")
    if original.payload != copy.payload:
        keys = {*original.payload, *copy.payload}
        differing = sorted(key for key in keys if original.payload.get(key, ...) != copy.payload.get(key, ...))
        found.append(f"The payload of {original.id} differs in {', '.join(map(repr, differing))}.")
    return found
