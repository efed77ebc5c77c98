"""A collection in columns, as the embedded index keeps a copy of it: a million items are read in a second."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from indexer.moderation.facts import FACTS, FORMAT, Names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.moderation.facts import Facts
    from indexer.store.collection import Collection

_LOOK_SECONDS = 0.1
_MAPPED_BYTES = 64 * 2**20
"""At once: pages that are mapped count as the process' own by some measures."""
PATIENCE_SECONDS = 600.0
"""For a copy that is just being made: 20,000 items take a second or less."""


class Columns:
    """The copy's files, open. What is written while they are read may be in them or not. A context manager.

    Usage:
        with open_columns(collection) as columns:
            facts = columns.facts(0, 1000)
            vectors = columns.vectors(np.flatnonzero(facts["bits"] & THERE))
    """

    def __init__(self, folder: Path, rows: int, size: int, names: Names) -> None:
        self.rows = rows
        """How many rows there were, free ones included."""
        self.size = size
        """The vectors' dimension."""
        self.names = names
        """The categories that `fired` of a row has bits for."""
        self._facts = (folder / "facts").open("rb")
        try:
            self._vectors = (folder / "vectors").open("rb")
        except OSError:
            self._facts.close()
            raise

    def facts(self, begin: int, end: int) -> Facts:
        """Rows from one place to before another."""
        facts: Facts = _mapped(self._facts, FACTS, begin, min(end, self.rows))
        return facts

    def facts_at(self, places: NDArray[np.intp]) -> Facts:
        """Rows by their places."""
        facts: Facts = _mapped(self._facts, FACTS, 0, self.rows)[places]
        return facts

    def vectors(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """The vectors of rows, float32 (n, size); their places are in ascending order."""
        if not len(places):
            return np.empty((0, self.size), dtype=np.float32)
        first, end = int(places[0]), int(places[-1]) + 1
        if end - first == len(places):  # read where they are
            return self._rows_of_vectors(first, end)
        found = np.empty((len(places), self.size), dtype=np.float32)
        step = max(1, _MAPPED_BYTES // (self.size * 4))
        for begin in range(first, end, step):
            some = slice(*np.searchsorted(places, (begin, begin + step)))
            if some.start < some.stop:
                found[some] = self._rows_of_vectors(begin, min(begin + step, end))[places[some] - begin]
        return found

    def _rows_of_vectors(self, begin: int, end: int) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = _mapped(self._vectors, np.dtype(("<f4", (self.size,))), begin, end)
        return rows

    def close(self) -> None:
        """Let go of the files."""
        self._facts.close()
        self._vectors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_columns(collection: Collection, patience: float = PATIENCE_SECONDS) -> Columns | None:
    """The copy of a collection in columns, waited for if it has to be made; None where there can be none.

    There is none of a server's collection, of one seen through a filter, and where the disk has no room for it; or it
    is not ready after so many seconds.

    Raises:
        IndexUnavailable: the index does not answer.
    """
    deadline = time.monotonic() + patience
    while collection.within is None:
        told = collection.in_columns()
        if told is None or told["format"] != FORMAT:
            return None
        if told["ready"]:
            try:
                return Columns(Path(told["folder"]), told["rows"], told["size"], Names(told["names"]))
            except OSError:  # removed just now, or not this machine's
                return None
        if time.monotonic() > deadline:
            return None
        time.sleep(_LOOK_SECONDS)
    return None


def _mapped(file: BinaryIO, kind: np.dtype[Any], begin: int, end: int) -> Any:
    """Rows of a file as an array, mapped for as long as it lives."""
    if end <= begin:
        return np.empty(0, dtype=kind)
    return np.asarray(np.memmap(file, dtype=kind, mode="r", offset=begin * kind.itemsize, shape=(end - begin,)))
