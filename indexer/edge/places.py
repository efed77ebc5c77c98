"""Where each of many ids is: a sorted array of them, and a dictionary of those that came since it was sorted.

A dictionary of all would take 150 MB for a million; this takes 24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 20_000
_GONE = -1


class Places:
    """Places by ids of 16 bytes."""

    def __init__(self, ids: NDArray[np.bytes_], places: NDArray[np.int64]) -> None:
        """`ids` are an array of `S16`, each there once."""
        order = np.argsort(ids)
        self._ids, self._places = ids[order], places[order].astype(np.int64)
        self._since: dict[bytes, int] = {}
        """Those that were added since, and those that were removed."""

    def find(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """The place of each; -1 for those that have none."""
        found = np.full(len(ids), _GONE, dtype=np.int64)
        if len(self._ids):
            at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            found = np.where(self._ids[at] == ids, self._places[at], found)
        if self._since:
            for row, each in enumerate(ids.tolist()):  # without the zeros at the end, as in what was added
                found[row] = self._since.get(each, found[row])
        return found

    def add(self, item: bytes, place: int) -> None:
        """Note the place of one that has none."""
        self._since[item.rstrip(b"\0")] = place
        if len(self._since) > max(_FEW, len(self._ids) // 8):
            self._sort()

    def remove(self, item: bytes) -> int | None:
        """Forget one; gives its place, None if it has none."""
        place = int(self.find(np.array([item], dtype="S16"))[0])
        if place == _GONE:
            return None
        self._since[item.rstrip(b"\0")] = _GONE
        return place

    def _sort(self) -> None:
        since = np.array(list(self._since), dtype="S16")
        kept = ~np.isin(self._ids, since)
        places = np.fromiter(self._since.values(), dtype=np.int64, count=len(since))
        there = places != _GONE
        ids = np.concatenate([self._ids[kept], since[there]])
        self.__init__(ids, np.concatenate([self._places[kept], places[there]]))  # type: ignore[misc]
