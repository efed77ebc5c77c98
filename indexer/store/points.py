"""What a collection holds and gives: points, items, hits, and places in an order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from indexer.items import Record, from_payload

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Point:
    """What is stored: an id, a vector of shape (dimension,), and a payload as `items.to_payload` makes it."""

    id: str
    vector: Vector
    payload: dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """An item in the index."""

    id: str
    record: Record
    payload: dict[str, Any]
    """The caller's own fields."""
    vector: Vector | None = field(default=None, kw_only=True, compare=False, repr=False)
    """float32 (dimension,), L2-normalised; None where it was not asked for."""


@dataclass(frozen=True)
class Hit(Stored):
    """An item that was found."""

    score: float
    """Cosine with the query."""


class Place(NamedTuple):
    """Where a page of an ordered collection ends: the last item's value and id. Both can be written as JSON."""

    value: float
    """The field's; of a datetime, microseconds since 1970."""
    id: str


def stored_of(point: models.Record) -> Stored:
    """The item of a point as the index gives it."""
    record, payload = from_payload(point.payload or {})
    return Stored(str(point.id), record, payload, vector=vector_of(point))


def hit_of(point: models.ScoredPoint) -> Hit:
    """The item of a point that was found."""
    record, payload = from_payload(point.payload or {})
    return Hit(str(point.id), record, payload, point.score, vector=vector_of(point))


def vector_of(point: models.Record | models.ScoredPoint) -> Vector | None:
    """A point's vector, if it came along."""
    return None if point.vector is None else np.asarray(point.vector, dtype=np.float32)
