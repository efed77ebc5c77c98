"""256-bit hashes by Hamming distance, exactly: which of a million lie within so many bits of one, or of each of many.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Exact Search in Hamming Space with Multi-Index Hashing", 2014;
thresholds per band as in Qin et al., "GPH", 2018). The hash is cut into 16 bands of 16 bits. If every band differed by
more than its share of the threshold, the whole would differ by more than the threshold; so whoever is within it agrees
with the query in one band, but for that share: one bit at a threshold of 31. Those are looked up in a table of each
band and compared in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from indexer.errors import InvalidRequest
from indexer.media.pdq import HASH_BYTES, MATCH_DISTANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    """Hashes as (4, n): a row for each 64 bits, so that most are told apart by reading half of them."""
    Keys = NDArray[np.int64]
    Rows = NDArray[np.intp]

BITS = 256
_BANDS = 16
_BAND_BITS = 16
_BUCKETS = 2**_BAND_BITS
_WORDS = 4
_MOST_PROBED = 2
"""Bits of difference in a band that are looked up; beyond, comparing with all is faster."""
_TAIL = 2048
"""So many hashes are compared one by one; more get tables."""
_AT_ONCE = 2**16
"""Comparisons: their arrays fit a core's cache."""


class Hits(NamedTuple):
    """Pairs within the threshold, in no particular order."""

    query: NDArray[np.intp]
    """Which of the hashes that were asked with."""
    key: NDArray[np.int64]
    """Of what was found."""
    distance: NDArray[np.int64]
    """Bits."""


class HashIndex:
    """Hashes, each with a key of the caller's: added, removed, and found by Hamming distance; nothing is missed.

    Several hashes may share a key, such as those of a picture and its mirror images. Takes about 120 bytes a hash.
    One thread at a time may change it; several may ask while none does.

    Usage:
        index = HashIndex()
        index.add([7], [hash])
        index.within(other)   # [(7, 12)]
    """

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._tail = _Segment.empty()

    def __len__(self) -> int:
        return sum(int(segment.alive.sum()) for segment in (*self._segments, self._tail))

    def add(self, keys: Keys | list[int], hashes: NDArray[np.uint8] | list[bytes]) -> None:
        """Add hashes: 32 bytes each, or an array of (n, 32).

        Raises:
            InvalidRequest: not 32 bytes, or not as many keys as hashes.
        """
        words, added = as_words(hashes), np.asarray(keys, dtype=np.int64).reshape(-1)
        if len(added) != words.shape[1]:
            raise InvalidRequest(f"{words.shape[1]} hashes came with {len(added)} keys.")
        self._tail = _Segment.joined([self._tail, _Segment(words, added, np.ones(len(added), dtype=bool))])
        if len(self._tail.keys) < _TAIL:
            return
        # Merging those that are not much larger keeps their number logarithmic, and each hash is sorted as often.
        merged = [self._tail]
        size = len(self._tail.keys)
        while self._segments and len(self._segments[-1].keys) <= 2 * size:
            merged.append(self._segments.pop())
            size += len(merged[-1].keys)
        self._segments.append(_Segment.joined(merged).sorted())
        self._tail = _Segment.empty()

    def remove(self, keys: Keys | list[int]) -> int:
        """Remove all hashes with these keys; gives how many there were."""
        gone = np.asarray(keys, dtype=np.int64).reshape(-1)
        before = len(self)
        for segment in (*self._segments, self._tail):
            segment.alive &= ~np.isin(segment.keys, gone)
        return before - len(self)

    def within(self, wanted: bytes, threshold: int = MATCH_DISTANCE) -> list[tuple[int, int]]:
        """Keys and distances of all hashes that differ in at most `threshold` bits, nearest first."""
        hits = self.within_each([wanted], threshold)
        return sorted(zip(hits.key.tolist(), hits.distance.tolist(), strict=True), key=lambda hit: (hit[1], hit[0]))

    def within_each(self, wanted: NDArray[np.uint8] | list[bytes], threshold: int = MATCH_DISTANCE) -> Hits:
        """The same for many hashes at once, which is much faster than one by one."""
        if not 0 <= threshold <= BITS:
            raise InvalidRequest(f"A threshold of {threshold} bits is not between 0 and {BITS}.")
        words = as_words(wanted)
        parts = [segment.hits(words, threshold) for segment in (*self._segments, self._tail)]
        return Hits(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all: 40 bytes a hash."""
        whole = _Segment.joined([*self._segments, self._tail])
        table = np.empty(len(whole.keys), dtype=_SAVED)
        table["key"], table["hash"] = whole.keys, as_hashes(whole.words)
        temporary = path.with_name(path.name + ".new")
        with temporary.open("wb") as file:
            np.save(file, table, allow_pickle=False)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; the tables are made anew.

        Raises:
            InvalidRequest: the file is none of those.
        """
        try:
            # Mapped, so that no more is allocated than the file has.
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InvalidRequest(f"{path} cannot be read as an index of hashes: {error}.") from error
        if table.dtype != _SAVED or table.ndim != 1:
            raise InvalidRequest(f"{path} is no index of hashes.")
        index = cls()
        index.add(table["key"].copy(), table["hash"].copy())
        return index


_SAVED = np.dtype([("key", "<i8"), ("hash", "u1", (HASH_BYTES,))])


def as_words(hashes: NDArray[np.uint8] | list[bytes]) -> Words:
    """Hashes, n of 32 bytes or (n, 32), as (4, n) words.

    Raises:
        InvalidRequest: one of them has another length.
    """
    if isinstance(hashes, list):
        if any(len(each) != HASH_BYTES for each in hashes):
            raise InvalidRequest(f"A hash has {HASH_BYTES} bytes.")
        hashes = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)
    if hashes.dtype != np.uint8 or hashes.ndim != 2 or hashes.shape[1] != HASH_BYTES:
        raise InvalidRequest(f"Hashes are an array of (n, {HASH_BYTES}) bytes.")
    return np.ascontiguousarray(np.ascontiguousarray(hashes).view(np.uint64).T)


def as_hashes(words: Words) -> NDArray[np.uint8]:
    """What `as_words` was given, as (n, 32) bytes."""
    return np.ascontiguousarray(words.T).view(np.uint8).reshape(-1, HASH_BYTES)


def compare_all(left: Words, right: Words, threshold: int) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Columns of both and the distances of every pair within the threshold; memory is bounded but for the result."""
    step = max(1, _AT_ONCE // max(1, right.shape[1]))
    for start in range(0, left.shape[1], step):
        some = left[:, start : start + step]
        half = np.bitwise_count(some[0][:, None] ^ right[0]) + np.bitwise_count(some[1][:, None] ^ right[1])
        row, column = np.nonzero(half <= threshold)
        row, column, distance = _completed(half[row, column], some, row, right, column, (2, 3), threshold)
        yield row + start, column, distance


def _completed(
    half: NDArray[np.uint8], left: Words, row: Rows, right: Words, column: Rows, words: tuple[int, int], threshold: int
) -> tuple[Rows, Rows, Rows]:
    """Of pairs of which half the words were compared: those within the threshold, with their distances."""
    whole = half.astype(np.intp)
    for word in words:
        whole += np.bitwise_count(left[word][row] ^ right[word][column])
    near = whole <= threshold
    return row[near], column[near], whole[near]


def _shares(threshold: int) -> list[int]:
    """How many bits each band may differ; -1 for a band that need not be looked at.

    The sum of (share + 1) is threshold + 1: who differs by more than its share in every band exceeds the threshold.
    """
    base, extra = divmod(threshold + 1, _BANDS)
    return [base - 1 + (band < extra) for band in range(_BANDS)]


@lru_cache(maxsize=_MOST_PROBED + 1)
def _masks(bits: int) -> NDArray[np.uint16]:
    """All values of a band with at most so many bits set."""
    every = np.arange(_BUCKETS, dtype=np.uint16)
    return np.flatnonzero(np.bitwise_count(every) <= bits).astype(np.uint16)


def _band(words: Words, band: int) -> NDArray[np.uint16]:
    """The 16 bits of a band, of all hashes."""
    word, place = divmod(band, _BAND_BITS // _WORDS)
    values: NDArray[np.uint16] = (words[word] >> np.uint64(_BAND_BITS * place)).astype(np.uint16)
    return values


class _Segment:
    """Hashes that are looked up together; what is removed stays in the tables until they are made again."""

    def __init__(self, words: Words, keys: Keys, alive: NDArray[np.bool_]) -> None:
        self.words = words
        self.keys = keys
        self.alive = alive
        self._tables: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
        """Of each band: the hashes in its order, and where in that each of its values begins."""

    @classmethod
    def empty(cls) -> Self:
        return cls(np.empty((_WORDS, 0), np.uint64), np.empty(0, np.int64), np.empty(0, bool))

    @classmethod
    def joined(cls, segments: list[_Segment]) -> Self:
        """One of several, without what was removed and without tables."""
        # Rows must lie in one piece: `take` would copy others whole, each time.
        words = np.ascontiguousarray(np.concatenate([segment.words[:, segment.alive] for segment in segments], axis=1))
        keys = np.concatenate([segment.keys[segment.alive] for segment in segments])
        return cls(words, keys, np.ones(len(keys), dtype=bool))

    def sorted(self) -> Self:
        """Make the tables."""
        for band in range(_BANDS):
            values = _band(self.words, band)
            starts = np.zeros(_BUCKETS + 1, dtype=np.int32)
            np.cumsum(np.bincount(values, minlength=_BUCKETS), out=starts[1:])
            self._tables.append((np.argsort(values, kind="stable").astype(np.int32), starts))
        return self

    def hits(self, wanted: Words, threshold: int) -> Hits:
        """Pairs of what is wanted and what is here."""
        shares = _shares(threshold)
        if not self._tables or max(shares) > _MOST_PROBED:
            found = list(compare_all(wanted, self.words, threshold))
        else:
            found = [
                each
                for band, share in enumerate(shares)
                if share >= 0
                for each in self._looked_up(wanted, band, share, threshold)
            ]
        if not found:
            return Hits(np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0, np.int64))
        query, row, distance = (np.concatenate(column) for column in zip(*found, strict=True))
        # A pair that agrees in several bands was found as often.
        _, first = np.unique(query * np.int64(len(self.keys)) + row, return_index=True)
        first = first[self.alive[row[first]]]
        return Hits(query[first], self.keys[row[first]], distance[first])

    def _looked_up(self, wanted: Words, band: int, share: int, threshold: int) -> Iterator[tuple[Rows, Rows, Rows]]:
        """The pairs that agree in a band but for `share` bits, and are within the threshold."""
        order, starts = self._tables[band]
        masks = _masks(share)
        probes = (_band(wanted, band)[:, None] ^ masks).ravel().astype(np.intp)
        start = starts[probes].astype(np.intp)
        count = starts[probes + 1] - start
        ends = np.cumsum(count)
        queries = np.arange(len(probes)) // len(masks)
        word = band // (_BAND_BITS // _WORDS)
        # The band's own word tells the least.
        first, second, third = ((word + step) % _WORDS for step in (1, 2, 3))
        at = 0
        while at < len(probes):
            # As many probes as have so many candidates, but one at least; that one has no more than there are hashes.
            behind = ends[at - 1] if at else 0
            until = max(at + 1, int(np.searchsorted(ends, behind + _AT_ONCE, side="right")))
            some, counts = slice(at, until), count[at:until]
            places = np.repeat(start[some] - (ends[some] - counts), counts)
            places += np.arange(behind, behind + len(places))
            row = order.take(places)
            half = np.bitwise_count(self.words[first].take(row) ^ np.repeat(wanted[first].take(queries[some]), counts))
            half += np.bitwise_count(
                self.words[second].take(row) ^ np.repeat(wanted[second].take(queries[some]), counts)
            )
            near = np.flatnonzero(half <= threshold)
            query = queries[np.searchsorted(ends, near + behind, side="right")]
            found = row[near].astype(np.intp)
            yield _completed(half[near], wanted, query, self.words, found, (third, word), threshold)
            at = until
