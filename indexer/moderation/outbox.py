"""Deliveries that wait, on disk until they have arrived: SQLite, for several processes.

<data>/moderation/webhooks/outbox.sqlite    for this user alone (0600)
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MOST_DEAD = 10_000
"""Dead letters that are kept; the oldest go."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, body BLOB NOT NULL, created REAL NOT NULL,
    due REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0, problem TEXT
);
CREATE INDEX IF NOT EXISTS waiting ON deliveries (dead, endpoint, due);
"""
_COLUMNS = "id, endpoint, body, created, due, tries, problem"


@dataclass(frozen=True)
class Delivery:
    """One message to one endpoint."""

    id: str
    """The same in every try, so that the receiver can tell a repetition."""
    endpoint: str
    """Its name."""
    body: bytes
    created: float
    """Seconds since 1970, as all times here."""
    due: float
    tries: int = 0
    problem: str | None = None
    """Why the last try failed."""


class Outbox:
    """The deliveries of one data folder. Threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "outbox.sqlite"
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with self._connected() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(_SCHEMA)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A transaction in a connection of its own: that costs little, and nothing is shared over threads and forks."""
        database = sqlite3.connect(self._path, timeout=30, isolation_level="IMMEDIATE")
        try:
            database.execute("PRAGMA synchronous = FULL")
            with database:
                yield database
        finally:
            database.close()

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Keep deliveries; they are on disk when this returns."""
        rows = [(each.id, each.endpoint, each.body, each.created, each.due) for each in deliveries]
        with self._connected() as database:
            database.executemany(
                "INSERT INTO deliveries (id, endpoint, body, created, due) VALUES (?, ?, ?, ?, ?)", rows
            )

    def claim(self, endpoint: str, now: float, *, until: float) -> Delivery | None:
        """The delivery of an endpoint that is due first, and nobody else's until `until`, should this process die."""
        with self._connected() as database:
            row = database.execute(
                f"UPDATE deliveries SET due = ? WHERE id = (SELECT id FROM deliveries WHERE dead = 0 AND endpoint = ?"  # noqa: S608  constants
                f" AND due <= ? ORDER BY due, rowid LIMIT 1) RETURNING {_COLUMNS}",
                (until, endpoint, now),
            ).fetchone()
        return Delivery(*row) if row else None

    def arrived(self, delivery: Delivery) -> None:
        """Forget a delivery."""
        with self._connected() as database:
            database.execute("DELETE FROM deliveries WHERE id = ?", (delivery.id,))

    def failed(self, delivery: Delivery, problem: str, *, again: float | None) -> None:
        """Count a try that failed; it is made again at `again`, or if that is None it is a dead letter."""
        with self._connected() as database:
            database.execute(
                "UPDATE deliveries SET tries = tries + 1, problem = ?, dead = ?, due = ? WHERE id = ?",
                (problem, again is None, delivery.due if again is None else again, delivery.id),
            )
            if again is None:
                database.execute(
                    "DELETE FROM deliveries WHERE dead = 1 AND id NOT IN"
                    " (SELECT id FROM deliveries WHERE dead = 1 ORDER BY created DESC, rowid DESC LIMIT ?)",
                    (MOST_DEAD,),
                )

    def next_due(self, endpoint: str) -> float | None:
        """When the next of an endpoint's deliveries is due; None if none waits."""
        with self._connected() as database:
            (due,) = database.execute(
                "SELECT min(due) FROM deliveries WHERE dead = 0 AND endpoint = ?", (endpoint,)
            ).fetchone()
        return None if due is None else float(due)

    def counts(self) -> tuple[int, int]:
        """How many wait, and how many are dead letters."""
        with self._connected() as database:
            rows = dict(database.execute("SELECT dead, count(*) FROM deliveries GROUP BY dead").fetchall())
        return rows.get(0, 0), rows.get(1, 0)

    def dead(self, limit: int = 100) -> list[Delivery]:
        """The dead letters, the newest first."""
        with self._connected() as database:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM deliveries WHERE dead = 1 ORDER BY created DESC, rowid DESC LIMIT ?",  # noqa: S608  constants
                (limit,),
            ).fetchall()
        return [Delivery(*row) for row in rows]

    def revive(self, ids: Sequence[str], now: float) -> int:
        """Let dead letters be tried anew; how many there were."""
        with self._connected() as database:
            return sum(
                database.execute(
                    "UPDATE deliveries SET dead = 0, tries = 0, due = ? WHERE dead = 1 AND id = ?", (now, each)
                ).rowcount
                for each in ids
            )
