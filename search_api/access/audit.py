"""The audit log: who changed what, and who was refused, a JSON line each, in a file a day of the data folder.

    <data>/audit/2026-01-31.jsonl    for this user alone (0600), only ever appended to, one write a line

Never in it: keys' secrets, bodies, queries. Each API process logs what it answered; on several machines, each has its
own folder.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import structlog

from search_api.access.keys import without_secrets

MOST_ENTRIES = 1000
MOST_BYTES = 64 * 2**20
"""What one question reads at most, however rare what it looks for is."""
_BLOCK = 2**16
_LONGEST = 1000

_log = structlog.get_logger("access")


@dataclass(frozen=True)
class Entry:
    """One line of the log, beside its time."""

    key: str | None
    """The key's id; of a key that was refused, the id that it gave, which anybody can."""
    name: str | None
    """The key's name; None if it was refused or there was none."""
    address: str
    method: str
    path: str
    collection: str | None
    status: int
    request: str
    """The id that the answer has in `X-Request-Id`."""
    unlogged: int = 0
    """Refusals of the same address since its last line: a flood gets one line a second."""


@dataclass(frozen=True)
class Page:
    """What was found."""

    entries: list[dict[str, Any]]
    """Newest first."""
    next: str | None
    """Ask with `to` set to this for what is older; None when there is nothing more."""


class AuditLog:
    """The log of one data folder. Thread-safe; several processes may write."""

    def __init__(self, folder: Path, *, days: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._folder = folder
        self._days = days
        self._now = now
        self._lock = threading.Lock()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._cleaned: date | None = None

    def write(self, entry: Entry) -> None:
        """Append a line. If the disk refuses it, the server's own log says so: the request is over by then."""
        # A key may stand anywhere in a path by mistake.
        fields = {
            name: without_secrets(value)[:_LONGEST] if isinstance(value, str) else value
            for name, value in asdict(entry).items()
        }
        with self._lock:
            # No two lines of a process have the same time: a page ends at one.
            self._last = moment = max(self._now(), self._last + timedelta(microseconds=1))
            line = json.dumps({"when": _stamp(moment), **fields}) + "\n"
            try:
                self._append(moment.date(), line.encode())
                self._remove_old(moment.date())
            except OSError as error:
                _log.error("not audited", line=line, detail=str(error))

    def _append(self, day: date, line: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._folder / f"{day}.jsonl", flags, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def read(
        self, *, since: datetime | None = None, to: datetime | None = None, key: str | None = None, limit: int = 100
    ) -> Page:
        """Lines from `since` (included) to `to` (not included), of one key if one is named; newest first."""
        found: list[dict[str, Any]] = []
        first, last = (_stamp(moment) if moment else None for moment in (since, to))
        budget = MOST_BYTES
        for line in chain.from_iterable(_backwards(path) for path in self._files(first, last)):
            budget -= len(line)
            entry = _entry(line)
            if entry is None or (last is not None and entry["when"] >= last):
                continue
            if first is not None and entry["when"] < first:
                break
            if len(found) >= limit:
                return Page(found, found[-1]["when"])
            if key is None or entry["key"] == key:
                found.append(entry)
            if budget < 0:
                return Page(found, entry["when"])
        return Page(found, None)

    def _files(self, first: str | None, last: str | None) -> list[Path]:
        """The days from one moment to another, the newest first."""
        days = sorted(self._folder.glob("????-??-??.jsonl"), reverse=True) if self._folder.is_dir() else []
        return [day for day in days if (first or "")[:10] <= day.stem <= (last or "9999")[:10].ljust(10, "9")]

    def _remove_old(self, today: date) -> None:
        """Once a day."""
        if self._cleaned == today:
            return
        self._cleaned = today
        oldest = str(today - timedelta(days=self._days))
        for path in self._folder.glob("????-??-??.jsonl"):
            if path.stem < oldest:
                path.unlink(missing_ok=True)  # another process may be faster


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's entry; None for what a crash or a full disk left half."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("when"), str) and "key" in entry else None


def _backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last first, read in blocks from its end."""
    try:
        file = path.open("rb")
    except OSError:
        return  # removed since it was listed
    with file:
        at = file.seek(0, os.SEEK_END)
        rest = b""
        while at > 0:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
        if rest:
            yield rest
