"""Ranked lists that stay as they are while a reader turns their pages, and the cursors that point into them.

A list is kept in parts: the first page with what was asked, then what was found behind it when the second page was
asked for, and so on. A part never changes once it is there, so that a page asked for twice is the same page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from indexer.errors import InvalidCursor

LIFE_SECONDS = 600
"""For which a list is kept after its first page; what the documentation promises."""
MAX_BYTES = 64 * 2**20
"""Of the lists that one process keeps, where there is no Redis; the oldest go first."""

_LIST_BYTES = 12
_OFFSET_BYTES = 4
_SEAL_BYTES = 12


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


class Pages:
    """Lists by their parts. Thread-safe."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def begin(self, collection: str, first: dict[str, Any]) -> str:
        """Keep a list's first part; gives the list's name."""
        name = secrets.token_hex(_LIST_BYTES)
        self._shelf.add(_key(name, 0), _packed({"collection": collection, **first}))
        return name

    def extend(self, name: str, number: int, part: dict[str, Any]) -> dict[str, Any]:
        """Keep a further part; gives the one that is there, which may be another request's."""
        return _unpacked(self._shelf.add(_key(name, number), _packed(part)))

    def parts(self, name: str, collection: str) -> list[dict[str, Any]]:
        """What is kept of a list, in order.

        Raises:
            InvalidCursor: its life is over, or it is another collection's.
        """
        found: list[dict[str, Any]] = []
        while (part := self._shelf.get(_key(name, len(found)))) is not None:
            found.append(_unpacked(part))
        if not found:
            raise InvalidCursor(f"The cursor's life of {LIFE_SECONDS // 60} minutes is over.")
        if found[0]["collection"] != collection:
            raise InvalidCursor("The cursor is of another collection.")
        return found

    def sign(self, cursor: Cursor) -> str:
        """A cursor as callers have it."""
        content = bytes.fromhex(cursor.list) + cursor.offset.to_bytes(_OFFSET_BYTES, "big")
        return base64.urlsafe_b64encode(content + self._seal(content)).decode()

    def read(self, text: str) -> Cursor:
        """The cursor that `sign` wrote.

        Raises:
            InvalidCursor: it is none of ours.
        """
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        except ValueError as error:  # not ASCII, or no base64
            raise InvalidCursor("The cursor is none that was given out here.") from error
        content, seal = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
        if len(content) != _LIST_BYTES + _OFFSET_BYTES or not hmac.compare_digest(seal, self._seal(content)):
            raise InvalidCursor("The cursor is none that was given out here.")
        return Cursor(content[:_LIST_BYTES].hex(), int.from_bytes(content[_LIST_BYTES:], "big"))

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self._shelf.secret(), content, hashlib.sha256)[:_SEAL_BYTES]


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
    return zlib.compress(json.dumps(part, separators=(",", ":")).encode(), level=1)


def _unpacked(part: bytes) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(zlib.decompress(part))
    return content
