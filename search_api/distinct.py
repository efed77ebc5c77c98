"""What counts as the same and is given once: same bytes, same picture, looks alike; and the values of a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.items import RECORD_KEY
from indexer.media.pdq import MATCH_DISTANCE
from search_api.request import FILE

if TYPE_CHECKING:
    from indexer.store.points import Stored
    from search_api.request import SearchRequest

ALIKE = 0.95
"""Cosine from which two items look alike."""


class Distinct:
    """Says of each item whether it is another one than those before it; remembers it if so."""

    def __init__(self, request: SearchRequest) -> None:
        self._collapse = frozenset(request.collapse)
        self._group_by = request.group_by
        self._hashes: set[str] = set()
        self._pictures: list[int] = []
        self._vectors: list[Any] = []
        self.groups: set[Any] = set()
        """Values of the field to group by that are taken."""

    @property
    def needs_vectors(self) -> bool:
        """Whether items must come with their vectors."""
        return "alike" in self._collapse

    def takes(self, item: Stored) -> bool:
        """Whether the item is none of those before."""
        group = value_of(item, self._group_by) if self._group_by is not None else None
        picture = int(item.record.pdq, 16) if item.record.pdq is not None and "picture" in self._collapse else None
        if group is not None and group in self.groups:
            return False
        if "bytes" in self._collapse and _bytes_of(item) in self._hashes:
            return False
        if picture is not None and any((picture ^ other).bit_count() <= MATCH_DISTANCE for other in self._pictures):
            return False
        if self._looks_like_another(item):
            return False
        self._remember(item, group, picture)
        return True

    def _looks_like_another(self, item: Stored) -> bool:
        if "alike" not in self._collapse or item.vector is None or not self._vectors:
            return False
        return bool((np.stack(self._vectors) @ item.vector).max() >= ALIKE)

    def _remember(self, item: Stored, group: Any, picture: int | None) -> None:
        if group is not None:
            self.groups.add(group)
        if "bytes" in self._collapse:
            self._hashes.add(_bytes_of(item))
        if picture is not None:
            self._pictures.append(picture)
        if item.vector is not None and "alike" in self._collapse:
            self._vectors.append(item.vector)


def _bytes_of(item: Stored) -> str:
    """A frame's bytes are its file's; what tells it from the others is its place."""
    return f"{item.record.sha256}{item.record.seconds}{item.record.page}"


def value_of(item: Stored, field: str) -> str | int | None:
    """An item's value of a field, the first if there are several; None if it has none that can be grouped by."""
    if field == FILE:
        return item.record.parent
    where: Any = item.payload
    names = field.split(".")
    if names[0] == RECORD_KEY:
        where, names = item.record.model_dump(mode="json"), names[1:]
    for name in names:
        where = where.get(name) if isinstance(where, dict) else None
    if isinstance(where, Sequence) and not isinstance(where, str):
        where = where[0] if where else None
    return where if isinstance(where, str | int) else None
