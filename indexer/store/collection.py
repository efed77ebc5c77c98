"""One collection: points in and out, through qdrant-client alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from indexer.errors import CollectionNotFound, IndexUnavailable, InvalidRequest, InvalidVector, ModelMismatch
from indexer.items import RECORD_KEY, Record, to_payload
from indexer.moderation.facts import BY_POLICY
from indexer.store.connection import Connection
from indexer.store.fields import BY_KEY, PARENT_KEY, SHA256_KEY, SOURCE_KEY, STATE_KEY
from indexer.store.lean import LeanClient
from indexer.store.points import Hit, Point, Stored, Vector, stored_of
from indexer.store.questions import Questions

__all__ = ["PARENT_KEY", "SHA256_KEY", "SOURCE_KEY", "Collection", "Hit", "Point", "Stored", "Vector"]

_WRITE_BATCH = 128
_LEAST_NORM = 1e-6

ITEMS_OF = "items_of"
"""In the metadata of a collection that a change of models made: what it is called, beside its physical name."""
SUCCESSOR = "successor"
"""The same: the physical name of the collection that took its place."""
LOCKED_UNTIL = "locked_until"
"""The same: until when (seconds since 1970) nobody writes, as its place is just being taken."""
LOOK_SECONDS = 1.0
"""How long a writer goes on without looking at these."""
_PATIENCE_SECONDS = 60.0


class Collection(Questions):
    """A collection of one model's vectors: points in and out by their ids, and what can be asked. Thread-safe."""

    def __init__(
        self,
        connection: Connection,
        physical: str,
        dimension: int,
        metadata: dict[str, Any],
        indexes: Mapping[str, models.PayloadIndexInfo],
    ) -> None:
        super().__init__(connection, physical, indexes)
        self.name: str = metadata.get(ITEMS_OF) or physical
        """What it is called, and what its items' ids are made with; that stays when the model changes."""
        self.dimension = dimension
        self.metadata = metadata
        """What the index keeps beside the points: `model`, `fingerprint` and `created` at least."""
        self.model: str = metadata["model"]
        self.fingerprint: str = metadata["fingerprint"]
        self.guarded = True
        """Whether writes wait for a lock and are refused once another collection took its place."""
        free = not metadata.get(LOCKED_UNTIL) and not metadata.get(SUCCESSOR)
        self._look_again = time.monotonic() + LOOK_SECONDS if free else 0.0

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
            self._write(lambda client, batch=batch: client.upsert(self.physical, batch, wait=True))  # type: ignore[misc]

    def _write(self, work: Callable[[QdrantClient], object]) -> None:
        """Do a write, if this is still the collection to write to; looked up once a second.

        Raises:
            ModelMismatch: another model's collection took its place (`crosslens reindex`).
            IndexUnavailable: that is just being done, and takes too long to wait for.
        """
        if self.guarded and time.monotonic() > self._look_again:
            self._await_leave()
            self._look_again = time.monotonic() + LOOK_SECONDS
        self._connection.call(work)

    def _await_leave(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            info = self._connection.call(lambda client: client.get_collection(self.physical))
            metadata = info.config.metadata or {}
            if metadata.get(SUCCESSOR):
                raise ModelMismatch(
                    f"The collection {self.name!r} has changed its model: what was written here last was for "
                    f"{self.model!r}.",
                    remedy="Do the same again: it goes to the new model then.",
                )
            if float(metadata.get(LOCKED_UNTIL) or 0) < time.time():
                return
            if time.monotonic() > deadline:
                raise IndexUnavailable(
                    f"The collection {self.name!r} is just changing its model.", remedy="Try again in a minute."
                )
            time.sleep(0.05)

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
        records = self._retrieve(ids, with_payload=True, with_vectors=False)
        return {str(record.id): stored_of(record) for record in records}

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
                    self.physical, scroll_filter=among, limit=len(wanted) * 2, offset=offset, with_payload=True
                )
            )
            for record in records:
                stored = stored_of(record)
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
        return self.vectors([item_id])[item_id]

    def payload_indexes(self) -> dict[str, models.PayloadFieldSchema]:
        """Its payload indexes by field, as `Store.create` takes them."""
        schemas = self._connection.call(lambda client: client.get_collection(self.physical)).payload_schema
        return {field: schema.params or schema.data_type for field, schema in schemas.items()}

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids are there; reads neither vectors nor payloads."""
        return {str(record.id) for record in self._retrieve(ids, with_payload=False, with_vectors=False)}

    def points(self, ids: Sequence[str]) -> dict[str, Point]:
        """Those of the points that are there, by id: whole, as `upsert` takes them."""
        records = self._retrieve(ids, with_payload=True, with_vectors=True)
        return {
            str(record.id): Point(str(record.id), np.asarray(record.vector, np.float32), record.payload or {})
            for record in records
        }

    def parts(self, parent: str) -> list[Stored]:
        """The frames or pages of a file, by the id of its first, which is among them."""
        return list(self.scan(_parts_of(parent), batch=_WRITE_BATCH))

    def delete_parts(self, parent: str) -> None:
        """Remove all frames or pages of a file, by the id of its first."""
        selector = models.FilterSelector(filter=_parts_of(parent))
        self._write(lambda client: client.delete(self.physical, selector, wait=True))

    def holding(self, hashes: Sequence[str]) -> set[str]:
        """Which of these SHA-256 are an item's, or the file's of a frame or page."""
        left = set(hashes)
        while left:  # of a video there may be hundreds, so each answer is taken out of the question
            among = models.Filter(must=[models.FieldCondition(key=SHA256_KEY, match=models.MatchAny(any=sorted(left)))])
            records, _ = self._connection.call(
                lambda client, among=among: client.scroll(self.physical, scroll_filter=among, limit=_WRITE_BATCH)  # type: ignore[misc]
            )
            if not records:
                break
            left -= {stored_of(record).record.sha256 for record in records}
        return set(hashes) - left

    def overwrite(self, items: Sequence[Stored]) -> None:
        """Replace the records and the caller's fields of items that are there; their vectors stay."""
        for at in range(0, len(items), _WRITE_BATCH):
            operations: list[models.UpdateOperation] = [
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(payload=to_payload(item.record, item.payload), points=[item.id])
                )
                for item in items[at : at + _WRITE_BATCH]
            ]
            self._write(
                lambda client, operations=operations: client.batch_update_points(self.physical, operations, wait=True)  # type: ignore[misc]
            )

    def note(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of items' records, by id, as JSON has them; what is beside them stays, also what others write."""
        entries = list(changes.items())
        for at in range(0, len(entries), _WRITE_BATCH):
            operations: list[models.UpdateOperation] = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload=dict(fields), points=[item_id], key=RECORD_KEY)
                )
                for item_id, fields in entries[at : at + _WRITE_BATCH]
            ]
            self._write(
                lambda client, operations=operations: client.batch_update_points(self.physical, operations, wait=True)  # type: ignore[misc]
            )

    def set_payload(self, item_id: str, payload: dict[str, Any]) -> None:
        """Replace the caller's fields of an item; its record stays, and what others write to it meanwhile."""
        stored = self.get(item_id)
        if stored is None:
            return
        if payload:
            self._write(lambda client: client.set_payload(self.physical, payload, [item_id], wait=True))
        if gone := sorted(stored.payload.keys() - payload.keys()):
            self._write(lambda client: client.delete_payload(self.physical, gone, [item_id], wait=True))

    def replace_record(self, item_id: str, record: Record) -> None:
        """Replace the record of an item; the caller's fields stay.

        A verdict that is a policy's does not take the place of one that is a person's, or that people wait for another
        look at, however late that came; and an item is withheld as before unless the record says so or not.
        """
        if not self.present([item_id]):
            return
        fields = record.model_dump(mode="json", exclude_none=True)
        verdict = fields.pop("verdict", None)
        gone = Record.model_fields.keys() - fields.keys() - {"verdict", "withheld"}
        operations = [_setting(fields, points=[item_id]), _removing(gone, points=[item_id])]
        if verdict is None:
            operations.append(_removing({"verdict"}, filter=_policys(item_id)))
        elif verdict["by"] == BY_POLICY and "review" not in verdict:
            # The index itself compares: what is read before may be another's by the time that this is written.
            operations.append(_setting({"verdict": verdict}, filter=_policys(item_id)))
        else:
            operations.append(_setting({"verdict": verdict}, points=[item_id]))
        self._write(lambda client: client.batch_update_points(self.physical, operations, wait=True))

    def in_columns(self, *, drop: bool = False) -> dict[str, Any] | None:
        """Where the embedded index keeps a copy in columns (`open_columns`), which this call begins to make.

        None where there is none: of a server's collection, or if it is to `drop` it, which is done then.
        """
        try:
            told = self._connection.call(
                lambda client: client.columns(self.physical, drop=drop) if isinstance(client, LeanClient) else None
            )
        except (InvalidRequest, CollectionNotFound):  # it cannot be made, or by an index process of before
            return None
        return told or None

    def delete(self, ids: Sequence[str]) -> None:
        """Remove items with their captions, frames and pages; those that are not there are no error."""
        for at in range(0, len(ids), _WRITE_BATCH):
            some = list(ids[at : at + _WRITE_BATCH])
            of_these = models.FieldCondition(key=PARENT_KEY, match=models.MatchAny(any=some))
            selector = models.FilterSelector(
                filter=models.Filter(should=[models.HasIdCondition(has_id=list(some)), of_these])
            )
            self._write(lambda client, selector=selector: client.delete(self.physical, selector, wait=True))  # type: ignore[misc]


def _setting(fields: dict[str, Any], **where: Any) -> models.UpdateOperation:
    """To set fields of records."""
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=fields, key=RECORD_KEY, **where))


def _removing(fields: Iterable[str], **where: Any) -> models.UpdateOperation:
    """To remove fields of records."""
    keys = sorted(f"{RECORD_KEY}.{field}" for field in fields)
    return models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=keys, **where))


def _policys(item_id: str) -> models.Filter:
    """The item, unless a person's verdict is in force or something is open with it."""
    persons = models.FieldCondition(key=BY_KEY, match=models.MatchExcept(**{"except": [BY_POLICY]}))
    is_open = models.FieldCondition(key=STATE_KEY, match=models.MatchExcept(**{"except": [""]}))
    return models.Filter(must=[models.HasIdCondition(has_id=[item_id])], must_not=[persons, is_open])


def _parts_of(parent: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=PARENT_KEY, match=models.MatchValue(value=parent))])
