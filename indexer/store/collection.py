"""One collection: points in and out, through qdrant-client alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from indexer.errors import InvalidVector
from indexer.items import RECORD_KEY, Record, from_payload, to_payload
from indexer.store.connection import Connection

_WRITE_BATCH = 128
_LEAST_NORM = 1e-6
SOURCE_KEY = f"{RECORD_KEY}.locations[].source"

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Point:
    """What is stored: an id, a vector of shape (dimension,), and a payload as `items.to_payload` makes it."""

    id: str
    vector: Vector
    payload: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """An item in the index, without its vector."""

    id: str
    record: Record
    payload: dict[str, Any]
    """The caller's own fields."""


@dataclass(frozen=True)
class Hit(Stored):
    """An item that was found."""

    score: float
    """Cosine with the query."""


class Collection:
    """A collection of one model's vectors. Thread-safe."""

    def __init__(self, connection: Connection, name: str, model: str, fingerprint: str, dimension: int) -> None:
        self._connection = connection
        self.name = name
        self.model = model
        self.fingerprint = fingerprint
        self.dimension = dimension

    def count(self) -> int:
        """How many items it holds."""
        return self._connection.call(lambda client: client.count(self.name, exact=True)).count

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; they are on disk when this returns. Those of a known id are replaced.

        Raises:
            InvalidVector: wrong dimension, not finite, or without length; nothing was written then.
        """
        for point in points:
            self._check(point)
        for at in range(0, len(points), _WRITE_BATCH):
            some = points[at : at + _WRITE_BATCH]
            batch = models.Batch(
                ids=[point.id for point in some],
                vectors=[point.vector.tolist() for point in some],
                payloads=[point.payload for point in some],
            )
            self._connection.call(lambda client, batch=batch: client.upsert(self.name, batch, wait=True))  # type: ignore[misc]

    def _check(self, point: Point) -> None:
        vector = point.vector
        if vector.shape != (self.dimension,):
            raise InvalidVector(f"The vector of {point.id} has shape {vector.shape}, not ({self.dimension},).")
        if not np.isfinite(vector).all() or np.linalg.norm(vector) < _LEAST_NORM:
            raise InvalidVector(f"The vector of {point.id} has a value that is not finite, or no length.")

    def get(self, item_id: str) -> Stored | None:
        """One item; None if it is not there."""
        return self.get_many([item_id]).get(item_id)

    def get_many(self, ids: Sequence[str]) -> dict[str, Stored]:
        """Those of the items that are there, by id."""
        if not ids:
            return {}
        records = self._connection.call(lambda client: client.retrieve(self.name, list(ids), with_payload=True))
        return {str(record.id): _stored(record) for record in records}

    def by_sources(self, sources: Sequence[str]) -> dict[str, tuple[str, Record]]:
        """Which items were seen at these sources: id and record by source."""
        wanted = set(sources)
        found: dict[str, tuple[str, Record]] = {}
        offset: models.ExtendedPointId | None = None
        among = models.Filter(
            must=[models.FieldCondition(key=SOURCE_KEY, match=models.MatchAny(any=list(sources)))],
        )
        while wanted:
            records, offset = self._connection.call(
                lambda client, offset=offset: client.scroll(  # type: ignore[misc]
                    self.name, scroll_filter=among, limit=len(wanted) * 2, offset=offset, with_payload=True
                )
            )
            for record in records:
                stored = _stored(record)
                for location in stored.record.locations:
                    if location.source in wanted:
                        found[location.source] = stored.id, stored.record
            if offset is None:
                break
        return found

    def vector(self, item_id: str) -> Vector:
        """An item's vector, float32 (dimension,), L2-normalised.

        Raises:
            KeyError: it is not there.
        """
        records = self._connection.call(
            lambda client: client.retrieve(self.name, [item_id], with_payload=False, with_vectors=True)
        )
        if not records:
            raise KeyError(item_id)
        return np.asarray(records[0].vector, dtype=np.float32)

    def set_payload(self, item_id: str, payload: dict[str, Any]) -> None:
        """Replace the caller's fields of an item; its record stays."""
        stored = self.get(item_id)
        if stored is not None:
            self._overwrite(item_id, stored.record, payload)

    def replace_record(self, item_id: str, record: Record) -> None:
        """Replace the record of an item; the caller's fields stay."""
        stored = self.get(item_id)
        if stored is not None:
            self._overwrite(item_id, record, stored.payload)

    def _overwrite(self, item_id: str, record: Record, payload: dict[str, Any]) -> None:
        whole = to_payload(record, payload)
        self._connection.call(lambda client: client.overwrite_payload(self.name, whole, [item_id], wait=True))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove items; those that are not there are no error."""
        if ids:
            self._connection.call(
                lambda client: client.delete(self.name, models.PointIdsList(points=list(ids)), wait=True)
            )

    def search(
        self,
        vector: Vector,
        limit: int,
        *,
        filter: models.Filter | None = None,
        exclude_ids: Sequence[str] = (),
    ) -> list[Hit]:
        """The items nearest to a vector, best first."""
        if exclude_ids:
            others = models.HasIdCondition(has_id=list(exclude_ids))
            filter = models.Filter(must=filter, must_not=[others])
        answer = self._connection.call(
            lambda client: client.query_points(
                self.name, query=vector.tolist(), query_filter=filter, limit=limit, with_payload=True
            )
        )
        hits = []
        for point in answer.points:
            record, payload = from_payload(point.payload or {})
            hits.append(Hit(str(point.id), record, payload, point.score))
        return hits


def _stored(point: models.Record) -> Stored:
    record, payload = from_payload(point.payload or {})
    return Stored(str(point.id), record, payload)
