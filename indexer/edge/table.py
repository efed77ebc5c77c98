"""The files of a copy in columns: a row of facts and a vector for each item, found by its id."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.edge.files import sync_folder, write_atomically
from indexer.edge.places import Places
from indexer.edge.wire import PointId
from indexer.moderation.facts import FACTS, FORMAT, THERE, Names, facts_of


class Unfit(Exception):
    """A point that is no item."""


class Table:
    """The files: a row for each item, found by its id."""

    def __init__(self, folder: Path, size: int) -> None:
        """Open what is there, or begin anew where it is not known to be whole."""
        self._folder, self._width = folder, size * 4
        head = _head(folder, size)
        self.whole = head is not None
        self.names = Names(head["names"] if head else ())
        self.count = int(head["rows"]) if head else 0
        if head is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        self._facts, self._vectors = (
            os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in ("facts", "vectors")
        )
        there = np.fromfile(folder / "facts", dtype=FACTS, count=self.count)
        used = there["bits"] & THERE != 0
        self._places = Places(there["id"][used], np.flatnonzero(used))
        self._free: list[int] = np.flatnonzero(~used).tolist()

    def unsettle(self) -> None:
        """Before the first write: from here on the files are not known to be whole."""
        if self.whole:
            (self._folder / "head.json").unlink()
            sync_folder(self._folder)
            self.whole = False

    def settle(self) -> None:
        """Write out the files and say that they are whole."""
        if not self.whole:
            os.fsync(self._facts)
            os.fsync(self._vectors)
            head = {"format": FORMAT, "size": self._width // 4, "rows": self.count, "names": list(self.names)}
            write_atomically(self._folder / "head.json", head)
            self.whole = True

    def put(self, records: Sequence[Any]) -> None:
        """Write the rows of points as the engine gives them.

        Raises:
            Unfit: a point has no UUID.
        """
        if not records:
            return
        ids = [_bytes(record.id) for record in records]
        vectors = np.array([record.vector for record in records], dtype="<f4")
        if vectors.shape != (len(ids), self._width // 4):
            raise Unfit("a point has another vector")
        rows = facts_of(ids, [record.payload or {} for record in records], self.names)
        slots = self._places.find(np.array(ids, dtype="S16"))
        for row in np.flatnonzero(slots < 0):
            slots[row] = self._new(ids[row])
        order = np.argsort(slots)
        # A run of neighbours at a time: a new copy's rows, and those of an ingest, are one.
        for run in np.split(order, np.flatnonzero(np.diff(slots[order]) != 1) + 1):
            first = int(slots[run[0]])
            _write(self._vectors, vectors[run].tobytes(), first * self._width)
            _write(self._facts, rows[run].tobytes(), first * FACTS.itemsize)

    def _new(self, item: bytes) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot, self.count = self.count, self.count + 1
        self._places.add(item, slot)
        return slot

    def free(self, ids: Sequence[PointId]) -> None:
        """Give up the rows of points that are gone."""
        for each in ids:
            slot = self._places.remove(_bytes(each))
            if slot is not None:
                _write(self._facts, bytes(FACTS.itemsize), slot * FACTS.itemsize)
                self._free.append(slot)

    def close(self) -> None:
        """Let go of the files."""
        for file in (self._facts, self._vectors):
            os.close(file)


def _head(folder: Path, size: int) -> dict[str, Any] | None:
    """What says that the files are whole, if it is there and they are as long as it says."""
    try:
        head: dict[str, Any] = json.loads((folder / "head.json").read_bytes())
        rows, _ = int(head["rows"]), Names(head["names"])
        fits = [(folder / "facts").stat().st_size, (folder / "vectors").stat().st_size] == [
            rows * FACTS.itemsize,
            rows * size * 4,
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return head if fits and (head.get("format"), head.get("size")) == (FORMAT, size) else None


def _write(file: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _bytes(each: Any) -> bytes:
    if isinstance(each, int):
        raise Unfit("a point's id is a number")
    return each.bytes if isinstance(each, uuid.UUID) else uuid.UUID(each).bytes
