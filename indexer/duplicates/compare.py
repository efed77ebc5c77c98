"""Who is near whom, a block of ranks at a time: one class for each notion of a duplicate.

A block is compared within itself and with the representatives before it, never with what those stand for already;
so a group of fifty thousand costs as much as fifty thousand single ones, not its square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from indexer.duplicates.gather import Gathered, id_bytes, id_text
from indexer.duplicates.hashes import HashIndex, as_words, compare_all

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Neighbours = Callable[[Sequence[str]], Sequence[Sequence[tuple[str, float]]]]
"""Of each id, those that the index finds near it, with their cosines."""

_TRIANGLE = 256
_REPRESENTATIVES = 8192
_ROUNDING = 1e-6
"""By so much the cosine of a vector with itself may be below 1."""


class Pairs(NamedTuple):
    """Ranks that are within the threshold of each other; `better` is the smaller one."""

    worse: NDArray[np.intp]
    better: NDArray[np.intp]
    distance: NDArray[np.float32]

    def some(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> Pairs:
        """Those at these places, or where this is true."""
        return Pairs(self.worse[which], self.better[which], self.distance[which])


class Comparer(Protocol):
    """Gives pairs, block by block, in order of rank."""

    def pairs(self, start: int, end: int) -> Pairs:
        """All pairs within the block, and of the block with representatives before it."""

    def settle(self, representatives: NDArray[np.intp]) -> None:
        """Take in the representatives of the blocks that were compared, once each."""


class SameBytes:
    """Equal hashes of the bytes: each is paired with the best that has the same one."""

    def __init__(self, gathered: Gathered) -> None:
        digests = np.ascontiguousarray(gathered.values).view(f"S{gathered.values.shape[1] or 1}").ravel()
        _, first, which = np.unique(digests, return_index=True, return_inverse=True)
        self._first = first[which]

    def pairs(self, start: int, end: int) -> Pairs:
        """Distance is 0."""
        first = self._first[start:end]
        worse = np.arange(start, end)
        more = first != worse
        return Pairs(worse[more], first[more], np.zeros(int(more.sum()), np.float32))

    def settle(self, representatives: NDArray[np.intp]) -> None:
        """Nothing to keep."""


class SamePicture:
    """PDQ hashes that differ in at most so many bits; exact."""

    def __init__(self, gathered: Gathered, threshold: int) -> None:
        self._hashes = gathered.values
        self._threshold = threshold
        self._index = HashIndex()

    def pairs(self, start: int, end: int) -> Pairs:
        """Distance is in bits."""
        block = np.array(self._hashes[start:end])
        before = self._index.within_each(block, self._threshold)
        found = [(before.query + start, before.key, before.distance)]
        words = as_words(block)
        for at in range(0, words.shape[1], _TRIANGLE):
            for left, right, bits in compare_all(words[:, at : at + _TRIANGLE], words[:, at:], self._threshold):
                upper = left < right
                found.append((right[upper] + (start + at), left[upper] + (start + at), bits[upper]))
        worse, better, distance = (np.concatenate(column) for column in zip(*found, strict=True))
        return Pairs(worse, better, distance.astype(np.float32))

    def settle(self, representatives: NDArray[np.intp]) -> None:
        """Keep their hashes."""
        self._index.add(representatives, self._hashes[representatives])


class Alike:
    """Vectors of which the cosine is at least the threshold; exact, each with each of the representatives."""

    def __init__(self, gathered: Gathered, threshold: float) -> None:
        self._vectors = gathered.values
        self._least = threshold - _ROUNDING
        self._ranks = np.empty(0, np.intp)

    def pairs(self, start: int, end: int) -> Pairs:
        """Distance is 1 - cosine."""
        block = np.array(self._vectors[start:end])
        found = []
        for at in range(0, len(self._ranks), _REPRESENTATIVES):
            ranks = self._ranks[at : at + _REPRESENTATIVES]
            cosines = block @ self._vectors[ranks].T
            row, column = np.nonzero(cosines >= self._least)
            found.append((row + start, ranks[column], cosines[row, column]))
        cosines = np.triu(block @ block.T, 1)
        row, column = np.nonzero(np.triu(cosines >= self._least, 1))
        found.append((column + start, row + start, cosines[row, column]))
        worse, better, cosine = (np.concatenate(each) for each in zip(*found, strict=True))
        return Pairs(worse, better, np.maximum(1 - cosine, 0))

    def settle(self, representatives: NDArray[np.intp]) -> None:
        """Keep which they are."""
        self._ranks = np.concatenate((self._ranks, representatives))


class AlikeByNeighbours:
    """The same by what the index finds near each item: approximate, as the index is, and as far as its lists go."""

    def __init__(self, gathered: Gathered, threshold: float, neighbours: Neighbours) -> None:
        self._ids = gathered.ids
        self._least = threshold - _ROUNDING
        self._neighbours = neighbours
        self._by_id = np.argsort(self._ids, kind="stable")
        self._sorted = self._ids[self._by_id]

    def pairs(self, start: int, end: int) -> Pairs:
        """Also pairs with what is behind the block: only one of two may have the other in its list."""
        asked = [id_text(bytes(each)) for each in self._ids[start:end]]
        rank, other, cosine = [], [], []
        for place, near in enumerate(self._neighbours(asked), start):
            some = [(id_bytes(each), score) for each, score in near if score >= self._least]
            rank += [place] * len(some)
            other += [each for each, _ in some]
            cosine += [score for _, score in some]
        ids = np.array(other, dtype=self._ids.dtype)
        at = np.minimum(np.searchsorted(self._sorted, ids), max(0, len(self._sorted) - 1))
        ranks, others = np.array(rank, dtype=np.intp), self._by_id[at]
        # What came into the index since is not in this search; and an item may be in its own list.
        known = (self._sorted[at] == ids) & (ranks != others)
        ranks, others = ranks[known], others[known]
        distance = np.maximum(1 - np.array(cosine, dtype=np.float32)[known], 0)
        return Pairs(np.maximum(ranks, others), np.minimum(ranks, others), distance)

    def settle(self, representatives: NDArray[np.intp]) -> None:
        """Nothing to keep."""
