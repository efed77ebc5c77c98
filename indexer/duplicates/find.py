"""A collection's duplicates in groups: the search for them, and its answer, which is read a group at a time."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.duplicates.compare import Neighbours
from indexer.duplicates.gather import By, Entry, gather, gathered, id_bytes, id_text
from indexer.duplicates.search import MEMBERS, Progress, Search, State
from indexer.edge.files import FileLock
from indexer.errors import InvalidRequest, TooBusy
from indexer.media.pdq import MATCH_DISTANCE

MOST_BITS = 47
"""The largest threshold for pictures: beyond, unlike ones would match, and the tables of hashes would not help."""
DEFAULT_COSINE = 0.95
"""For models that nothing better is known of."""

_LOCK = "lock"


@dataclass(frozen=True)
class Group:
    """Duplicates of one item."""

    representative: str
    """The best of them: the most pixels, then the oldest."""
    members: list[tuple[str, float]]
    """The others, nearest first, and their distances from the representative: bits of a hash, or 1 - cosine."""


def find_duplicates(
    batches: Iterable[Sequence[Entry]],
    *,
    by: By,
    folder: Path,
    threshold: float | None = None,
    neighbours: Neighbours | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Duplicates | None:
    """Group the items that a stream gives by one notion; None if `stop` was set before the end.

    `threshold` is how many bits may differ (`picture`, 31), or the least cosine (`alike`, 0.95); `bytes` has none.
    `alike` is exact up to `EXACT_VECTORS` items; for more, give `neighbours`, and the answer is as good as those.

    The folder holds the search, and is its alone. The same call with the same folder goes on where it was stopped or
    killed, with the items as they were gathered then; a stream that was not read to its end is read again. Once it is
    finished, the same call gives the answer at once.

    Raises:
        InvalidRequest: a threshold that makes no sense, too many vectors, or a folder that holds another search.
        InvalidVector: vectors of different dimensions.
        TooBusy: another process is at this search.
    """
    asked = _asked(by, threshold, exact=neighbours is None)
    stop = stop or threading.Event()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        if not lock.try_acquire():
            raise TooBusy("Another process is looking for these duplicates.", remedy="Wait until it is done.")
        state = State.read(folder)
        if state is None:
            left_out = gather(batches, by=by, folder=folder, values=asked.exact, stop=stop)
            if left_out is None:
                return None
            state = asked
            state.count, state.left_out = len(gathered(folder).ids), left_out
        elif (state.by, state.threshold, state.exact) != (asked.by, asked.threshold, asked.exact):
            raise InvalidRequest(f"{folder} holds another search for duplicates.", remedy="Give each its own folder.")
        if not state.done and not Search(folder, state, neighbours).run(progress, stop):
            return None
        return Duplicates(folder)
    finally:
        lock.close()


class Duplicates:
    """The answer of a finished search, read from its folder a group at a time."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            InvalidRequest: the folder holds no finished search.
        """
        state = State.read(folder)
        if state is None or not state.done:
            raise InvalidRequest(f"{folder} holds no finished search for duplicates.")
        self.by = By(state.by)
        self.threshold = state.threshold
        self.exact = state.exact
        """Whether no pair was missed; false where the index's neighbours were asked."""
        self.compared = state.count
        self.left_out = state.left_out
        """Items that have nothing to compare, such as flat pictures, whose hashes mean nothing."""
        self.groups_count = state.groups
        self._ids = gathered(folder).ids
        self._claims = np.load(folder / state.claims, mmap_mode="r", allow_pickle=False)
        self._members = np.load(folder / MEMBERS, mmap_mode="r", allow_pickle=False)
        """Ranks of those that belong to a representative, in the order in which groups are given."""

    def __iter__(self) -> Iterator[Group]:
        return self.groups()

    def groups(self, after: str | None = None) -> Iterator[Group]:
        """The groups in order of the representative's id, from behind that id on: how they are paged.

        Raises:
            InvalidRequest: `after` is no UUID.
        """
        at = 0
        if after is not None:
            last = id_bytes(after)
            at = bisect_right(range(len(self._members)), last, key=lambda place: self._ids[self._owner(place)])
        return self._from(at)

    def _from(self, at: int) -> Iterator[Group]:
        while at < len(self._members):
            owner, members = self._owner(at), []
            while at < len(self._members) and self._owner(at) == owner:
                rank = self._members[at]
                members.append((self._id(rank), float(self._claims["distance"][rank])))
                at += 1
            yield Group(self._id(owner), members)

    def _owner(self, place: int) -> int:
        return int(self._claims["by"][self._members[place]])

    def _id(self, rank: int) -> str:
        return id_text(bytes(self._ids[rank]))


def _asked(by: By, threshold: float | None, *, exact: bool) -> State:
    match by:
        case By.BYTES:
            if threshold:
                raise InvalidRequest("The same bytes have no threshold.")
            return State(by, 0.0, exact=True)
        case By.PICTURE:
            bits = MATCH_DISTANCE if threshold is None else threshold
            if not 0 <= bits <= MOST_BITS or bits != int(bits):
                raise InvalidRequest(f"A threshold of {bits} is no whole number of bits between 0 and {MOST_BITS}.")
            return State(by, float(bits), exact=True)
        case By.ALIKE:
            cosine = DEFAULT_COSINE if threshold is None else threshold
            if not 0 < cosine <= 1:
                raise InvalidRequest(f"A threshold of {cosine} is no cosine above 0, and at most 1.")
            return State(by, float(cosine), exact=exact)
