"""A copy of a collection in columns, beside its generations: what judges a million items reads files, and no JSON.

    <collection>/columns/facts       a row of `indexer.moderation.facts.FACTS` for each item, some of them free
    <collection>/columns/vectors     the vector of each row, float32
    <collection>/columns/head.json   how many rows there are; there only while the files are known to be whole

It is made when somebody first asks for it, and from then on every write is in it before it is acknowledged. What says
that it is whole goes before the first write and comes back when nobody writes, or at the end: so a copy that a crash
left behind is made anew, never believed. A disk that is full costs the copy alone.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import qdrant_edge as edge
import structlog

from indexer.edge.filters import filter_of
from indexer.edge.operations import Operation
from indexer.edge.table import Table, Unfit
from indexer.edge.wire import PointId, Refused, point_id
from indexer.moderation.facts import FIELDS, FORMAT

_log = structlog.get_logger("index")

_AT_ONCE = 256
"""Points that are copied at a time; searches wait meanwhile."""
_RETRY_SECONDS = 300.0
"""After a copy that could not be kept, as the disk was full or a point was no item."""
_QUIET_SECONDS = 5.0
"""Without a write, after which the files are written out and called whole."""

Read = Callable[[Callable[[edge.EdgeShard], Any]], Any]


class Columns:
    """The copy of one collection, or the place for it: nothing is copied until `ask`.

    `lock` is held by whoever writes to the collection; `read` asks its current generation.
    """

    def __init__(self, folder: Path, size: int, read: Read, lock: threading.Lock) -> None:
        self._folder, self._size, self._read, self._lock = folder, size, read, lock
        self._table: Table | None = None
        self._after: PointId | None = None
        """The point that is copied next; None at the beginning, and when all are."""
        self._complete = self._closed = False
        self._maker: threading.Thread | None = None
        self._written = time.monotonic()
        self._not_before = 0.0
        if folder.is_dir():
            self._open()

    def _open(self) -> None:
        try:
            self._table = Table(self._folder, self._size)
            self._complete = self._table.whole
        except OSError as error:
            self._give_up(error)

    def ask(self) -> dict[str, Any]:
        """Where the copy is and how far; it is begun by whoever asks first.

        Raises:
            Refused: it cannot be made here.
        """
        with self._lock:
            if self._closed:
                raise Refused("The collection was just removed.", 404)
            if self._table is None and time.monotonic() > self._not_before:
                self._open()
            table = self._table
            if table is None:
                raise Refused("A copy in columns cannot be kept here.")
            told = {
                "ready": self._complete,
                "folder": str(self._folder),
                "rows": table.count,
                "size": self._size,
                "names": list(table.names),
                "format": FORMAT,
            }
        self._make()
        return told

    def drop(self) -> None:
        """Remove the copy; who reads it reads to the end."""
        with self._lock:
            self._discard()

    def tend(self) -> None:
        """Go on with a copy that was begun, or call it whole once nobody has written for a while."""
        table = self._table
        if table is None or self._closed:
            return
        if not self._complete:
            self._make()
        elif not table.whole and time.monotonic() - self._written > _QUIET_SECONDS:
            with self._lock:
                self._settle()

    def close(self) -> None:
        """Write out what there is; the caller holds the lock."""
        self._closed = True
        if self._complete:
            self._settle()
        if self._table is not None:
            self._table.close()
            self._table = None

    @contextmanager
    def following(self, operations: Sequence[Operation]) -> Iterator[None]:
        """The time in which writes are applied: what they concern is copied when it ends, however it ends.

        The caller holds the lock.
        """
        table = self._table
        if table is None:
            yield
            return
        # What a later one of them concerns by its filter passes that filter now, or is concerned by an earlier one.
        concerned = list(dict.fromkeys(each for operation in operations for each in self._concerned(operation)))
        if concerned:
            try:
                table.unsettle()
            except OSError as error:
                self._give_up(error)
        try:
            yield
        finally:
            self._written = time.monotonic()
            for at in range(0, len(concerned), _AT_ONCE):
                self._copy(concerned[at : at + _AT_ONCE])

    def _concerned(self, operation: Operation) -> Iterator[PointId]:
        ((kind, body),) = operation.items()
        if kind in ("create_index", "delete_index"):
            return
        if kind == "upsert":
            batch = body.get("batch")
            yield from map(point_id, batch["ids"] if batch else [each["id"] for each in body.get("points") or []])
        elif body.get("filter") is None:
            yield from map(point_id, body.get("points") or [])
        else:
            yield from self._passing(filter_of(body["filter"]))

    def _passing(self, among: edge.Filter | None) -> Iterator[PointId]:
        after: PointId | None = None
        while True:
            records, after = self._page(after, among, whole=False)
            yield from (_plain(record.id) for record in records)
            if after is None:
                return

    def _page(self, after: PointId | None, among: edge.Filter | None = None, *, whole: bool = True) -> Any:
        asked = edge.ScrollRequest(
            offset=after,
            limit=_AT_ONCE,
            filter=among,
            with_payload=FIELDS if whole else False,
            with_vector=whole,
        )
        return self._read(lambda shard: shard.scroll(asked))

    def _copy(self, ids: Sequence[PointId]) -> None:
        """Bring some rows up to date."""
        if self._table is None:
            return
        try:
            there = self._read(lambda shard: shard.retrieve(list(ids), FIELDS, True))
            self._table.put(there)
            kept = {_plain(record.id) for record in there}
            self._table.free([each for each in ids if each not in kept])
        except (OSError, Refused, Unfit) as error:
            self._give_up(error)

    def _make(self) -> None:
        """Copy what is not copied yet, in a thread."""
        with self._lock:
            if self._complete or self._closed or self._table is None or self._maker is not None:
                return
            name = f"columns {self._folder.parent.name}"
            self._maker = threading.Thread(target=self._make_all, name=name, daemon=True)
            self._maker.start()

    def _make_all(self) -> None:
        started = time.monotonic()
        while True:
            with self._lock:
                if not self._make_some():
                    self._maker = None
                    break
            time.sleep(0)  # who waits to write or to read comes in between
        seconds = round(time.monotonic() - started, 2)
        _log.info("columns copied", collection=self._folder.parent.name, complete=self._complete, seconds=seconds)

    def _make_some(self) -> bool:
        """Copy a page; whether there is more to do."""
        if self._closed or self._table is None:
            return False
        try:
            records, self._after = self._page(self._after)
            self._table.put(records)
            self._complete = self._after is None
        except (OSError, Refused, Unfit) as error:
            self._give_up(error)
        return self._table is not None and not self._complete

    def _settle(self) -> None:
        if self._table is not None:
            try:
                self._table.settle()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, reason: Exception) -> None:
        _log.warning("columns given up", collection=self._folder.parent.name, reason=str(reason))
        self._not_before = time.monotonic() + _RETRY_SECONDS
        self._discard()

    def _discard(self) -> None:
        if self._table is not None:
            self._table.close()
        self._table, self._complete, self._after = None, False, None
        with suppress(OSError):
            # What says that it is whole is the first to go.
            (self._folder / "head.json").unlink(missing_ok=True)
            shutil.rmtree(self._folder)


def _plain(each: Any) -> PointId:
    """An id as `point_id` gives it."""
    return each if isinstance(each, int) else str(each)
