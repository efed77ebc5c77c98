"""Ranked lists that stay as they are while a reader turns their pages, and the cursors that point into them.

A list is kept in parts: the first page with what was asked, then what was found behind it when the second page was
asked for, and so on. A part never changes once it is there, so that a page asked for twice is the same page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic_core import from_json, to_json

from indexer.errors import InvalidCursor

LIFE_SECONDS = 600
"""For which a list is kept after its first page; what the documentation promises. One that is read on lives longer."""
MAX_BYTES = 64 * 2**20
"""Of the lists that one process keeps, where there is no Redis; the oldest go first."""

_LIST_BYTES = 12
_OFFSET_BYTES = 4
_TIME_BYTES = 5
_SEAL_BYTES = 16
_MOST_CARRIED = 3072
"""Bytes of a first part that travels in its cursor: a text query's with a hundred results, or so, or a vector's."""
MAX_CURSOR = 4200
"""Characters of a cursor at most."""


class Shelf(Protocol):
    """Where parts are kept for their life."""

    def secret(self) -> bytes:
        """The key that cursors are signed with; the same for all who share the shelf."""

    def add(self, key: str, part: bytes) -> bytes:
        """Keep a part if there is none by the key; gives the one that is there."""

    def get(self, key: str) -> bytes | None:
        """A part; None once its life is over."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list."""

    list: str
    offset: int
    carried: bytes = b""
    """The list's first part, where it travels in the cursor."""
    begun: int = 0
    """When, in seconds since 1970; of a carried one."""

    def at(self, offset: int, *, kept: bool) -> Cursor:
        """Another place in the list; `kept`: its first part is on the shelf."""
        return Cursor(self.list, offset) if kept else replace(self, offset=offset)


class Pages:
    """Lists by their parts. Thread-safe.

    Most searches are never paged. So a first part of everyday size is kept nowhere: it travels in the cursor, and is
    put on the shelf when a second part is found behind it.
    """

    def __init__(self, shelf: Shelf, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970, the same in all processes that share the shelf."""
        self._shelf = shelf
        self._clock = clock

    def begin(self, collection: str, first: dict[str, Any], offset: int) -> str:
        """Begin a list with its first part; gives a cursor into it."""
        # Not by `random`, which anybody may seed: two lists of one name would share their further parts.
        name = secrets.token_hex(_LIST_BYTES)
        packed = _packed({"collection": collection, **first})
        if len(packed) <= _MOST_CARRIED:
            return self.sign(Cursor(name, offset, packed, int(self._clock())))
        self._shelf.add(_key(name, 0), packed)
        return self.sign(Cursor(name, offset))

    def extend(self, cursor: Cursor, number: int, part: dict[str, Any]) -> dict[str, Any]:
        """Keep a further part of a cursor's list; gives the one that is there, which may be another request's."""
        if cursor.carried:
            self._shelf.add(_key(cursor.list, 0), cursor.carried)
        return _unpacked(self._shelf.add(_key(cursor.list, number), _packed(part)))

    def parts(self, cursor: Cursor, collection: str) -> list[dict[str, Any]]:
        """What there is of a cursor's list, in order.

        Raises:
            InvalidCursor: its life is over, or it is another collection's.
        """
        found: list[dict[str, Any]] = []
        if cursor.carried and self._clock() - cursor.begun <= LIFE_SECONDS:
            found.append(_unpacked(cursor.carried))
        while (part := self._shelf.get(_key(cursor.list, len(found)))) is not None:
            found.append(_unpacked(part))
        if not found:
            raise InvalidCursor(f"The cursor's life of {LIFE_SECONDS // 60} minutes is over.")
        if found[0]["collection"] != collection:
            raise InvalidCursor("The cursor is of another collection.")
        return found

    def sign(self, cursor: Cursor) -> str:
        """A cursor as callers have it."""
        content = bytes.fromhex(cursor.list) + cursor.offset.to_bytes(_OFFSET_BYTES, "big")
        if cursor.carried:
            content += cursor.begun.to_bytes(_TIME_BYTES, "big") + cursor.carried
        return base64.urlsafe_b64encode(self._seal(content) + content).decode()

    def read(self, text: str) -> Cursor:
        """The cursor that `sign` wrote.

        Raises:
            InvalidCursor: it is none of ours.
        """
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError as error:  # not ASCII, or no base64
            raise InvalidCursor("The cursor is none that was given out here.") from error
        seal, content = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(content)):
            raise InvalidCursor("The cursor is none that was given out here.")
        name, rest = content[:_LIST_BYTES].hex(), content[_LIST_BYTES:]
        offset, rest = int.from_bytes(rest[:_OFFSET_BYTES], "big"), rest[_OFFSET_BYTES:]
        return Cursor(name, offset, rest[_TIME_BYTES:], int.from_bytes(rest[:_TIME_BYTES], "big"))

    def _seal(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self._shelf.secret()[:64], digest_size=_SEAL_BYTES).digest()


class MemoryShelf:
    """Parts in this process."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret = secrets.token_bytes(32)
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def secret(self) -> bytes:
        """As `Shelf.secret`."""
        return self._secret

    def add(self, key: str, part: bytes) -> bytes:
        """As `Shelf.add`."""
        now = self._clock()
        with self._lock:
            until, kept = self._parts.pop(key, (0.0, b""))
            if until > now:
                self._parts[key] = until, kept
                return kept
            self._bytes -= len(kept)
            self._parts[key] = (now + LIFE_SECONDS, part)
            self._bytes += len(part)
            while self._bytes > self._max_bytes or next(iter(self._parts.values()))[0] <= now:
                self._bytes -= len(self._parts.popitem(last=False)[1][1])
        return part

    def get(self, key: str) -> bytes | None:
        """As `Shelf.get`."""
        with self._lock:
            until, part = self._parts.get(key, (0.0, b""))
            return part if until > self._clock() else None


def _key(name: str, number: int) -> str:
    return f"{name}:{number}"


def _packed(part: dict[str, Any]) -> bytes:
    return zlib.compress(to_json(part), level=1)


def _unpacked(part: bytes) -> dict[str, Any]:
    content: dict[str, Any] = from_json(zlib.decompress(part))
    return content
