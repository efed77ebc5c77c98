"""One collection: points in and out, through qdrant-client alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
PARENT_KEY = f"{RECORD_KEY}.parent"
SEARCH = models.SearchParams(hnsw_ef=128, quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0))
"""What the embedded index does unasked and a server on request: find twice as many by their quantized vectors, score
those again with the originals, keep the best."""

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

    def __init__(self, connection: Connection, name: str, dimension: int, metadata: dict[str, Any]) -> None:
        self._connection = connection
        self.name = name
        self.dimension = dimension
        self.metadata = metadata
        """What the index keeps beside the points: `model`, `fingerprint` and `created` at least."""
        self.model: str = metadata["model"]
        self.fingerprint: str = metadata["fingerprint"]

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

    def payload_indexes(self) -> dict[str, models.PayloadFieldSchema]:
        """Its payload indexes by field, as `Store.create` takes them."""
        schemas = self._connection.call(lambda client: client.get_collection(self.name)).payload_schema
        return {field: schema.params or schema.data_type for field, schema in schemas.items()}

    def ids(self, batch: int) -> Iterator[list[str]]:
        """The ids of all items in their order, in lists of `batch`; cheap, as neither vectors nor payloads are read."""
        offset: models.ExtendedPointId | None = None
        while True:
            records, offset = self._connection.call(
                lambda client, offset=offset: client.scroll(  # type: ignore[misc]
                    self.name, limit=batch, offset=offset, with_payload=False, with_vectors=False
                )
            )
            if records:
                yield [str(record.id) for record in records]
            if offset is None:
                return

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids are there; reads neither vectors nor payloads."""
        if not ids:
            return set()
        records = self._connection.call(
            lambda client: client.retrieve(self.name, list(ids), with_payload=False, with_vectors=False)
        )
        return {str(record.id) for record in records}

    def points(self, ids: Sequence[str]) -> dict[str, Point]:
        """Those of the points that are there, by id: whole, as `upsert` takes them."""
        if not ids:
            return {}
        records = self._connection.call(
            lambda client: client.retrieve(self.name, list(ids), with_payload=True, with_vectors=True)
        )
        return {
            str(record.id): Point(str(record.id), np.asarray(record.vector, np.float32), record.payload or {})
            for record in records
        }

    def parts(self, parent: str) -> list[Stored]:
        """The frames or pages of a file, by the id of its first, which is among them."""
        found: list[Stored] = []
        offset: models.ExtendedPointId | None = None
        while True:
            records, offset = self._connection.call(
                lambda client, offset=offset: client.scroll(  # type: ignore[misc]
                    self.name, scroll_filter=_parts_of(parent), limit=_WRITE_BATCH, offset=offset, with_payload=True
                )
            )
            found += map(_stored, records)
            if offset is None:
                return found

    def delete_parts(self, parent: str) -> None:
        """Remove all frames or pages of a file, by the id of its first."""
        selector = models.FilterSelector(filter=_parts_of(parent))
        self._connection.call(lambda client: client.delete(self.name, selector, wait=True))

    def overwrite(self, items: Sequence[Stored]) -> None:
        """Replace the records and the caller's fields of items that are there; their vectors stay."""
        for at in range(0, len(items), _WRITE_BATCH):
            operations: list[models.UpdateOperation] = [
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(payload=to_payload(item.record, item.payload), points=[item.id])
                )
                for item in items[at : at + _WRITE_BATCH]
            ]
            self._connection.call(
                lambda client, operations=operations: client.batch_update_points(self.name, operations, wait=True)  # type: ignore[misc]
            )

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
                self.name,
                query=vector.tolist(),
                query_filter=filter,
                limit=limit,
                with_payload=True,
                search_params=SEARCH,
            )
        )
        hits = []
        for point in answer.points:
            record, payload = from_payload(point.payload or {})
            hits.append(Hit(str(point.id), record, payload, point.score))
        return hits


def _parts_of(parent: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=PARENT_KEY, match=models.MatchValue(value=parent))])


def _stored(point: models.Record) -> Stored:
    record, payload = from_payload(point.payload or {})
    return Stored(str(point.id), record, payload)
