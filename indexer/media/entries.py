"""What archives have in common: their members' names and places, and the limits within which they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from indexer.errors import EmptyFile, TooLarge
from indexer.settings import MAX_ARCHIVE_BYTES, MAX_ARCHIVE_MEMBERS

MAX_RATIO = 200
"""Unpacked to packed bytes; photos do not shrink, and deflate reaches 1,000 on nothing but zeros."""
FREE_BYTES = 64 * 2**20
"""Unpacked bytes for which no ratio is asked: a few blank scans in a small archive are no bomb."""

Place = Sequence[int]
"""Where a member lies, as its format has it; numbers alone, so that it can be JSON."""


@dataclass(frozen=True)
class Limits:
    """How much of an archive is read."""

    max_bytes: int
    """Of one member."""
    max_archive_bytes: int = MAX_ARCHIVE_BYTES
    """Of all members, unpacked."""
    max_archive_members: int = MAX_ARCHIVE_MEMBERS


@dataclass(frozen=True)
class Entry:
    """A member as its header tells it."""

    name: str
    """A label and nothing else: it may be absolute, lead upwards, or be there twice. A folder's ends with `/`."""
    size: int
    """Unpacked bytes."""
    place: Place
    problem: str | None = None
    """Why it is not read: what it is instead of a plain file."""


class Archive(Protocol):
    """An open archive."""

    def entries(self) -> Iterator[Entry]:
        """Its members, in order.

        Raises:
            Truncated, Unreadable: it is cut or damaged here.
            ArchiveRefused: it unpacks to more than the limits allow.
        """

    def read(self, place: Place, count: int) -> bytes:
        """The first `count` bytes of a member, or all, which are then checked as far as the format allows.

        Raises:
            BadMember: the member alone is damaged.
            Truncated, Unreadable, ArchiveRefused: as for `entries`.
        """

    def reaches(self, place: Place) -> bool:
        """Whether `read` can be asked for it; a stream does not go back."""

    def holds(self, place: Place) -> bool:
        """Whether a member that was listed is known to be there to its end."""


def label(name: str) -> str:
    """A member's name as valid Unicode without NUL; names that differ keep differing."""
    return name.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def check_size(size: int, limits: Limits) -> None:
    """Refuse a member by its size alone.

    Raises:
        EmptyFile, TooLarge: as the names say.
    """
    if not size:
        raise EmptyFile("The member is empty.")
    if size > limits.max_bytes:
        raise TooLarge(f"The member has more than {limits.max_bytes:,} bytes.")
