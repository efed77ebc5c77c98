"""The order of a payload field, as the pages of a collection follow it: by value, then by id."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from qdrant_client import models

from indexer.errors import InvalidRequest
from indexer.store.points import Place, Stored

ORDERED = ("integer", "float", "datetime")
"""Types of fields that have an order."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Placed = tuple[float, Stored]
"""An item and its value; a datetime's in microseconds since 1970, as the index gives it."""


@dataclass(frozen=True)
class Order:
    """A field, its type, and the direction."""

    field: str
    kind: str
    descending: bool

    def __post_init__(self) -> None:
        """Check the type.

        Raises:
            InvalidRequest: it has no order.
        """
        if self.kind not in ORDERED:
            raise InvalidRequest(
                f"Nothing can be put in the order of {self.field!r}, a field of type {self.kind}.",
                remedy=f"Name a declared field of type {', '.join(ORDERED[:-1])} or {ORDERED[-1]}.",
            )

    def after(self, place: Place | None) -> models.OrderBy:
        """The index' own order from the first value beyond a place; ties are left open there."""
        return models.OrderBy(
            key=self.field,
            direction=models.Direction.DESC if self.descending else models.Direction.ASC,
            start_from=self._beyond(place),
        )

    def _beyond(self, place: Place | None) -> float | datetime | None:
        step = -1 if self.descending else 1
        if place is None:
            return None if self.kind != "datetime" or self.descending else _FIRST
        match self.kind:
            case "integer":
                return int(place.value) + step
            case "float":
                return math.nextafter(place.value, step * math.inf)
            case _:
                return _time(place.value) + step * _MICROSECOND

    def equal(self, value: float) -> models.FieldCondition:
        """The condition that a field has this value."""
        match self.kind:
            case "integer":
                return models.FieldCondition(key=self.field, match=models.MatchValue(value=int(value)))
            case "float":
                return models.FieldCondition(key=self.field, range=models.Range(gte=value, lte=value))
            case _:
                time = _time(value)
                return models.FieldCondition(key=self.field, range=models.DatetimeRange(gte=time, lte=time))

    def sorted(self, items: Iterable[Placed]) -> list[Placed]:
        """Items by value, then by id; without those of a date before the year 1, which could not be asked for."""
        known = [each for each in items if self.kind != "datetime" or each[0] >= (_FIRST - _EPOCH) / _MICROSECOND]
        known.sort(key=lambda each: each[1].id)
        return sorted(known, key=lambda each: each[0], reverse=self.descending)


def _time(microseconds: float) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
