"""The audit trail of moderation: who decided what about which item, a JSON line each, chained by hashes.

    <data>/moderation/<collection>/trail.jsonl    only ever appended to, for this user alone (0600), on disk at once
    <data>/moderation/<collection>/head.json      the number and the hash of its last line
    <data>/moderation/<collection>/trail.lock     one writer at a time, of however many processes

Each line holds the SHA-256 of the line before, and the head that of the last: what is altered, taken out or cut off is
seen. Who can write the whole folder can write the chain anew; against that, keep a `Head` elsewhere and give it to
`Trail.check`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.edge.files import FileLock, write_atomically
from indexer.errors import InvalidRequest, TooBusy, TrailEntryNotFound
from indexer.items import check_collection_name, now

LONGEST_NAME, LONGEST_NOTE = 200, 2000
"""Characters of a person's name, and of a note."""
MOST_BYTES = 256 * 2**10
"""Of a line; policies are in the trail by name and version, not whole."""
_PATIENCE_SECONDS = 30.0
_BLOCK = 2**16
_NONE_BEFORE = "0" * 64


class What(StrEnum):
    """What was done."""

    APPROVE = "approve"
    REJECT = "reject"
    RECATEGORISE = "recategorise"
    WITHDRAW = "withdraw"
    UNDO = "undo"
    APPEAL = "appeal"
    POLICY = "policy"
    """A policy was put in force, or taken out."""


@dataclass(frozen=True)
class Draft:
    """What is to be written; the trail adds number, time and hash."""

    who: str
    what: What
    item: str | None = None
    """Its id; None for what concerns the collection."""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    note: str = ""
    undoes: int | None = None
    """The number of the entry that this one undoes."""


class Entry(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """1, 2, 3, ..."""
    at: str
    """RFC 3339, in UTC."""
    who: str
    what: What
    item: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    note: str
    undoes: int | None = None
    previous: str
    """SHA-256 of the line before, without its line feed; 64 zeros in the first."""

    def to_line(self) -> str:
        """As it stands in the file, without the line feed."""
        return self.model_dump_json(exclude={"undoes"} if self.undoes is None else None)


@dataclass(frozen=True)
class Head:
    """The last line."""

    number: int = 0
    hash: str = _NONE_BEFORE


@dataclass(frozen=True)
class Fault:
    """The first thing that is wrong with a trail."""

    number: int
    """Of the first entry that was altered or is missing; the next may be it, where only its hash of this one was."""
    problem: str


class Trail:
    """The trail of one collection. Threads and processes may share it, where the file system has locks (`flock`).

    Usage:
        trail = Trail(settings.data, "media")
        trail.append([Draft("alice", What.POLICY, after={"name": "adult", "version": "..."})])
        assert trail.check() is None
    """

    def __init__(self, data: Path, collection: str, *, clock: Callable[[], datetime] = now) -> None:
        self.folder = data / "moderation" / check_collection_name(collection)
        self._clock = clock
        self._path = self.folder / "trail.jsonl"

    def append(self, drafts: Sequence[Draft]) -> list[Entry]:
        """Write entries, all together; they are on disk when this returns. What a crash left half of a line goes.

        Raises:
            InvalidRequest: a name or a note that is too long or cannot be printed; nothing was written.
            TooBusy: another process writes for too long.
        """
        for draft in drafts:
            _check(draft)
        if not drafts:
            return []
        with self.locked("trail.lock"), self._opened() as file:
            head = self._mend(file)
            at = stamp(self._clock())
            entries, lines = [], []
            for draft in drafts:
                entry = Entry(number=head.number + 1, at=at, previous=head.hash, **vars(draft))
                line = entry.to_line().encode()
                if len(line) > MOST_BYTES:
                    raise InvalidRequest(f"An entry of the trail can have no more than {MOST_BYTES:,} bytes.")
                head = Head(entry.number, hashlib.sha256(line).hexdigest())
                entries.append(entry)
                lines.append(line + b"\n")
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
            write_atomically(self.folder / "head.json", vars(head))
        return entries

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of the collection's, a file in its folder; not twice in one thread.

        Raises:
            TooBusy: another holds it for half a minute.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self.folder / name)
        try:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while not lock.try_acquire():
                if time.monotonic() > deadline:
                    raise TooBusy("Another process is just writing to the moderation of this collection.")
                time.sleep(0.005)
            yield
        finally:
            lock.close()

    @property
    def head(self) -> Head:
        """The last entry's number and hash, as the last append noted them."""
        try:
            noted = json.loads((self.folder / "head.json").read_bytes())
            return Head(int(noted["number"]), str(noted["hash"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Head()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._path, flags, 0o600), "r+b") as file:
            yield file

    def _mend(self, file: BinaryIO) -> Head:
        """Cut off half a line, which nobody was told is written; and where the chain goes on."""
        size = file.seek(0, os.SEEK_END)
        last = next(_backwards(file, size), b"")
        if not last.endswith(b"\n"):
            file.truncate(size - len(last))
            file.flush()
            last = next(_backwards(file, size - len(last)), b"")
        noted = self.head
        entry = _parsed(last)
        # Numbers are never used again, though somebody took lines away, nor is a line believed that is not as noted.
        if entry is None or entry.number <= noted.number:
            return noted
        return Head(entry.number, hashlib.sha256(last.removesuffix(b"\n")).hexdigest())

    def entries(
        self,
        *,
        since: datetime | None = None,
        to: datetime | None = None,
        who: str | None = None,
        item: str | None = None,
        after: int = 0,
    ) -> Iterator[Entry]:
        """Entries from `since` (included) to `to` (not included), of a person, of an item, numbered above `after`.

        The oldest first, as many as there were when it began; lines that are no entries do not come (`check`).
        """
        first, last = (stamp(moment) if moment else None for moment in (since, to))
        for line in self._lines():
            entry = _parsed(line)
            if (
                entry is not None
                and entry.number > after
                and (first is None or entry.at >= first)
                and (last is None or entry.at < last)
                and (who is None or entry.who == who)
                and (item is None or entry.item == item)
            ):
                yield entry

    def latest(self) -> Iterator[Entry]:
        """Entries, the newest first."""
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            for line in _backwards(file, file.seek(0, os.SEEK_END)):
                entry = _parsed(line) if line.endswith(b"\n") else None
                if entry is not None:
                    yield entry

    def numbered(self, numbers: Sequence[int]) -> list[Entry]:
        """Entries by their numbers; quick for late ones.

        Raises:
            TrailEntryNotFound: there is none of a number.
        """
        wanted, found = set(numbers), dict[int, Entry]()
        for entry in self.latest():
            if entry.number in wanted:
                found[entry.number] = entry
            if len(found) == len(wanted) or entry.number < min(wanted):
                break
        if missing := sorted(wanted - set(found)):
            raise TrailEntryNotFound(f"The trail has no entry number {missing[0]}.", numbers=missing)
        return [found[number] for number in numbers]

    def check(self, known: Head | None = None) -> Fault | None:
        """The first entry that was altered or is missing; None if all is as it was written.

        `known` is a head that was noted elsewhere before: that it is still in the chain is checked too.
        """
        before, noted = Head(), [each for each in (known, self.head) if each is not None]
        for line in self._lines():
            entry = _parsed(line)
            if entry is None:
                return Fault(before.number + 1, "The line is no entry.")
            if (fault := _misplaced(before, entry)) is not None:
                return fault
            before = Head(entry.number, hashlib.sha256(line.removesuffix(b"\n")).hexdigest())
            if any(each.number == before.number and each.hash != before.hash for each in noted):
                return Fault(before.number, "The entry is not what was noted of it.")
        end = max(each.number for each in noted)
        if end > before.number:
            return Fault(before.number + 1, f"Entries are missing at the end, up to number {end}.")
        return None

    def _lines(self) -> Iterator[bytes]:
        """The lines, as many as there are now, half a one at the end left out."""
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            left = os.fstat(file.fileno()).st_size
            while left > 0 and (line := file.readline(min(left, MOST_BYTES + 1))):
                left -= len(line)
                if left > 0 or line.endswith(b"\n"):
                    yield line


def stamp(moment: datetime) -> str:
    """A time as the trail has it: in UTC, to the microsecond, so that times are in the order of their texts."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _check(draft: Draft) -> None:
    if not draft.who or len(draft.who) > LONGEST_NAME or not draft.who.isprintable():
        raise InvalidRequest(f"Who decides has a name of 1 to {LONGEST_NAME} printable characters.")
    if len(draft.note) > LONGEST_NOTE or any("\ud800" <= each <= "\udfff" for each in draft.note):
        raise InvalidRequest(f"A note can have no more than {LONGEST_NOTE:,} characters, all of them Unicode's.")


def _misplaced(before: Head, entry: Entry) -> Fault | None:
    """What is wrong with an entry coming next."""
    if entry.number > before.number + 1:
        return Fault(before.number + 1, f"Entries are missing, up to number {entry.number - 1}.")
    if entry.number != before.number + 1:
        return Fault(before.number + 1, f"There is an entry numbered {entry.number} in its place.")
    if entry.previous != before.hash:
        if before.number == 0:
            return Fault(1, "The first entry says that there was one before.")
        return Fault(before.number, "It, or what the next says of it, is not what was written.")
    return None


def _parsed(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None


def _backwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The lines of a file up to `end`, the last first, with their line feeds; read in blocks."""
    rest = b""
    while end > 0:
        size = min(_BLOCK, end)
        end -= size
        file.seek(end)
        rest, *lines = _split(file.read(size) + rest)
        yield from reversed(lines)
    if rest:
        yield rest


def _split(data: bytes) -> list[bytes]:
    """Lines with their line feeds, split at these alone."""
    *whole, rest = data.split(b"\n")
    lines = [line + b"\n" for line in whole]
    return [*lines, rest] if rest else lines
