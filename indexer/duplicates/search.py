"""Items given to representatives, block by block, so that a search that was cut short goes on.

What a group is, precisely. Items have an order, the best first: the most pixels, then the oldest, then the smallest id.
An item is a *representative* if no better representative is within the threshold of it. Every other item belongs to
the nearest of the better representatives within the threshold, the better one of two as near. A representative and
those that belong to it are a group.

So every member of a group is within the threshold of its representative, which is the best of it; no two
representatives are within the threshold of each other; each item is in one group at most; and the answer depends on
the items alone. Groups never grow by chains, as connected components do, in which the first and the last may have
nothing in common. The price: an item within the threshold of a member, but not of its representative, is not of that
group.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from indexer.duplicates.compare import Alike, AlikeByNeighbours, Comparer, Neighbours, Pairs, SameBytes, SamePicture
from indexer.duplicates.gather import By, Gathered, gathered
from indexer.edge.files import write_atomically
from indexer.errors import InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMBERS = "members.npy"
"""The ranks of those that belong to a representative, in the order in which groups are given."""

_BLOCK = 2048
_SAVE_SECONDS = 2.0
_STATE = "state.json"
_CLAIM = np.dtype([("by", "<i4"), ("distance", "<f4")])
"""Of each rank: the representative's that it belongs to, -1 for none; and how far it is from that."""

Progress = Callable[[int, int], None]
"""Called with how many items were compared, and of how many."""


@dataclass
class State:
    """Where a search stands, as it is in its folder."""

    by: str
    threshold: float
    exact: bool
    count: int = 0
    left_out: int = 0
    next: int = 0
    """The first rank that was not compared."""
    claims: str = ""
    """The file of the claims at that rank; empty at the start."""
    done: bool = False
    groups: int = 0
    format: int = 1

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What a folder holds; None if nothing was gathered there yet.

        Raises:
            InvalidRequest: it holds something else.
        """
        try:
            return cls(**json.loads((folder / _STATE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"{folder} does not hold a search of this version.", remedy="Delete it.") from error


class Search:
    """One search in its folder, from where it stands."""

    def __init__(self, folder: Path, state: State, neighbours: Neighbours | None) -> None:
        self._folder = folder
        self._state = state
        self._items = gathered(folder)
        self._comparer = _comparer(state, self._items, neighbours)
        if state.claims:
            self._claims = np.load(folder / state.claims, allow_pickle=False)
        else:
            self._claims = np.empty(state.count, _CLAIM)
            self._claims["by"], self._claims["distance"] = -1, np.inf

    def run(self, progress: Progress | None, stop: threading.Event) -> bool:
        """Compare to the end; False if stopped."""
        state = self._state
        if state.next:
            self._comparer.settle(self._representatives(0, state.next))
        else:
            self._save()
        saved = time.monotonic()
        while state.next < state.count:
            if stop.is_set():
                self._save()
                return False
            start, end = state.next, min(state.next + _BLOCK, state.count)
            self._claim(self._comparer.pairs(start, end), start)
            self._comparer.settle(self._representatives(start, end))
            state.next = end
            if progress is not None:
                progress(end, state.count)
            if time.monotonic() - saved >= _SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        self._finish()
        return True

    def _representatives(self, start: int, end: int) -> NDArray[np.intp]:
        return np.flatnonzero(self._claims["by"][start:end] < 0) + start

    def _claim(self, pairs: Pairs, start: int) -> None:
        """Give each item of a block, from `start` on, to the nearest representative."""
        settled = pairs.better < start
        by_settled = settled & (self._claims["by"][pairs.better] < 0)
        self._improve(pairs.some(by_settled))
        # Within the block who is a representative is known once all better ones have claimed theirs.
        inside = np.flatnonzero(~settled)
        inside = inside[np.argsort(pairs.better[inside], kind="stable")]
        for run in np.split(inside, np.flatnonzero(np.diff(pairs.better[inside])) + 1):
            if len(run) and self._claims["by"][pairs.better[run[0]]] < 0:
                self._improve(pairs.some(run))

    def _improve(self, pairs: Pairs) -> None:
        """Let representatives have what is nearer to them than to the one it belongs to so far."""
        order = np.lexsort((pairs.better, pairs.distance, pairs.worse))
        nearest = np.diff(pairs.worse[order], prepend=-1) != 0
        worse, better, distance = pairs.some(order[nearest])
        now = self._claims[worse]
        wins = (distance < now["distance"]) | ((distance == now["distance"]) & (better < now["by"]))
        self._claims["by"][worse[wins]] = better[wins]
        self._claims["distance"][worse[wins]] = distance[wins]

    def _save(self) -> None:
        """Claims first, under a new name, then the state that names them: a crash finds the old pair or the new one."""
        old, self._state.claims = self._state.claims, f"claims-{self._state.next}.npy"
        np.save(self._folder / self._state.claims, self._claims)
        write_atomically(self._folder / _STATE, asdict(self._state))
        if old and old != self._state.claims:
            (self._folder / old).unlink(missing_ok=True)

    def _finish(self) -> None:
        """Put the members in the order in which groups are given."""
        members = np.flatnonzero(self._claims["by"] >= 0)
        owners = self._claims["by"][members]
        ids = np.array(self._items.ids)
        order = np.lexsort((ids[members], self._claims["distance"][members], ids[owners]))
        np.save(self._folder / MEMBERS, members[order].astype(np.int32))
        self._state.groups = len(np.unique(owners))
        self._state.done = True
        self._save()


def _comparer(state: State, items: Gathered, neighbours: Neighbours | None) -> Comparer:
    match By(state.by):
        case By.BYTES:
            return SameBytes(items)
        case By.PICTURE:
            return SamePicture(items, int(state.threshold))
        case By.ALIKE if neighbours is not None:
            return AlikeByNeighbours(items, state.threshold, neighbours)
        case By.ALIKE:
            return Alike(items, state.threshold)
