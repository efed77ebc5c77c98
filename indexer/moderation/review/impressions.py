"""How often items were shown to visitors: their reach, by which the review queue is ordered.

<data>/moderation/impressions.sqlite    of moderated collections alone
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

EVERY = 5.0
"""Seconds between writes: a count is worth a little, not a write to disk for each search."""
_MOST = 100_000
"""Items whose counts wait to be written; beyond, while the disk is full, they are dropped."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS impressions (
    collection TEXT NOT NULL, id TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (collection, id)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO impressions VALUES (?, ?, ?) ON CONFLICT (collection, id) DO UPDATE SET count = count + excluded.count
"""
_log = structlog.get_logger("moderation")


class Impressions:
    """The counts of one data folder. Threads and processes may share it; each process writes its own every `EVERY`
    seconds, so that the newest are counted a little late, and those of a process that is killed not at all.

    `clock` is in seconds.
    """

    def __init__(self, data: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = data / "moderation" / "impressions.sqlite"
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: Counter[tuple[str, str]] = Counter()
        self._due = clock() + EVERY

    def add(self, collection: str, ids: Iterable[str]) -> None:
        """Count items as shown once more."""
        with self._lock:
            self._pending.update((collection, each) for each in ids)
            if self._clock() < self._due:
                return
            self._due = self._clock() + EVERY
        self.write()

    def of(self, collection: str, ids: Sequence[str]) -> Mapping[str, int]:
        """How often each was shown, as far as it was written; those that never were are left out."""
        if not self._path.exists():
            return {}
        with self._connected() as database:
            database.execute("CREATE TEMP TABLE asked (id TEXT PRIMARY KEY)")
            database.executemany("INSERT OR IGNORE INTO asked VALUES (?)", ((each,) for each in ids))
            query = "SELECT id, count FROM impressions JOIN asked USING (id) WHERE collection = ?"
            return dict(database.execute(query, (collection,)).fetchall())

    def write(self) -> None:
        """Write what was counted since the last time; where that cannot be done, it waits for the next."""
        with self._lock:
            pending, self._pending = self._pending, Counter()
        if not pending:
            return
        try:
            with self._connected() as database:
                database.executemany(_ADD, [(*key, count) for key, count in pending.items()])
        except (sqlite3.Error, OSError) as error:
            _log.warning("impressions not counted", reason=str(error))
            with self._lock:
                if len(pending) < _MOST:
                    self._pending.update(pending)

    def forget(self, collection: str) -> None:
        """Remove a collection's counts."""
        with self._lock:
            for key in [key for key in self._pending if key[0] == collection]:
                del self._pending[key]
        if self._path.exists():
            with self._connected() as database:
                database.execute("DELETE FROM impressions WHERE collection = ?", (collection,))

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A transaction in a connection of its own, as the outbox's."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._path, timeout=10)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_SCHEMA)
            with database:
                yield database
        finally:
            database.close()
