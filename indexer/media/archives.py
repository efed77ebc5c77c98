"""Archives, read in place: the pictures in zips and tars, as they come and once more by their place or name.

Nothing is ever unpacked to disk, and a member's name decides nothing but what its source is called.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Self

from indexer.errors import EmptyFile, MediaError, MediaGone, Unreadable
from indexer.media.entries import Archive, Limits, Place, check_size
from indexer.media.samples import Listing, Member
from indexer.media.tars import Tar, gunzipped, is_tar, unzstd
from indexer.media.zips import Zip
from indexer.report import Counts, Failure

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst")
_ZSTD = b"\x28\xb5\x2f\xfd"
_EMPTY_TAR = 20 * 512
"""Bytes to which an empty tar is filled up; more of nothing was once meant to be something."""


def is_archive(name: str) -> bool:
    """Whether a file's name claims that it is an archive that is read."""
    return name.lower().endswith(_SUFFIXES)


def members(path: Path, *, source: str, limits: Limits, counts: Counts) -> Iterator[Member | Failure]:
    """The members of an archive that may be images, in order; one that is wrong is one failure.

    An archive that is cut, damaged or refused is a failure of its own, after the members before. A member counts as an
    image as a file in a folder does; others are passed over, and hidden ones ignored.
    """
    listing = Listing(source, limits, counts)
    ended: MediaError | None = None
    try:
        with _open(path, limits) as (archive, status):
            try:
                for entry in archive.entries():
                    yield from listing.take(entry, archive, status.st_size)
            finally:
                listing.drop_cut(archive)
    except MediaError as error:
        ended = error
    except OSError as error:
        ended = Unreadable(f"The archive cannot be read: {error.strerror or error}.")
    yield from listing.flush()
    if ended is not None:
        yield Failure(source, ended)


class Reader:
    """Reads members again; cheap if they are asked for in their archive's order. For one thread; close it after use."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stack = contextlib.ExitStack()
        self._path: Path | None = None
        self._archive: Archive | None = None
        self._version = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive that is open."""
        self._stack.close()
        self._path = self._archive = None

    def read(
        self, path: Path, name: str, *, place: Place | None = None, version: tuple[int | None, int | None] | None = None
    ) -> bytes:
        """A member's content.

        `place` is where it was when the archive had the size and mtime in nanoseconds of `version`; without it, or if
        the archive has changed, the member is looked up by its name, the first of it.

        Raises:
            MediaGone: there is no such member, or it cannot be read in place.
            TooLarge, EmptyFile: by its header.
            BadMember: it is damaged.
            Truncated, Unreadable, ArchiveRefused: the archive is.
        """
        try:
            archive = self._opened(path)
            if place is None or version != self._version:
                place = _directory(str(path), *self._version, self._limits).get(name)
                if place is None:
                    raise MediaGone(f"The archive has no {name!r}, or not as a plain file.")
            if not archive.reaches(place):
                self.close()
                archive = self._opened(path)
            size = _size_at(place)
            check_size(size, self._limits)
            return archive.read(place, size)
        except OSError as error:
            raise Unreadable(f"The archive cannot be read: {error.strerror or error}.") from error

    def _opened(self, path: Path) -> Archive:
        if self._archive is None or self._path != path:
            self.close()
            self._archive, status = self._stack.enter_context(_open(path, self._limits))
            self._path = path
            self._version = (status.st_size, status.st_mtime_ns)
        return self._archive


@lru_cache(maxsize=4)
def _directory(path: str, size: int, mtime_ns: int, limits: Limits) -> dict[str, Place]:  # noqa: ARG001  size and mtime tell versions apart
    """Where each member of an archive lies, by its name; of the same name, the first."""
    places: dict[str, Place] = {}
    # What is before the cut or the damage can be read.
    with contextlib.suppress(MediaError), _open(Path(path), limits) as (archive, _):
        for count, entry in enumerate(archive.entries(), start=1):
            if count > limits.max_archive_members:
                break
            if entry.problem is None:
                places.setdefault(entry.name, entry.place)
    return places


@contextlib.contextmanager
def _open(path: Path, limits: Limits) -> Iterator[tuple[Archive, os.stat_result]]:
    """An archive of the kind that its content shows, and its file's status."""
    is_zip = path.suffix.lower() == ".zip"
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        size = status.st_size
        head = file.read(512)
        file.seek(0)
        if not head:
            raise EmptyFile("The archive is empty.")
        # A zip that unpacks itself begins with a program; an empty tar is nothing but zeros.
        if head.startswith((b"PK\3\4", b"PK\5\6")) or (is_zip and head.startswith(b"MZ")):
            yield Zip(file, limits, size=size), status
        elif head.startswith(b"\x1f\x8b"):
            yield gunzipped(file, limits), status
        elif head.startswith(_ZSTD):
            yield unzstd(file, limits), status
        elif is_tar(head) or (not is_zip and size <= _EMPTY_TAR and not any(head)):
            yield Tar(file, limits, size=size), status
        else:
            raise Unreadable("The content is no archive that is known.", remedy="Name it after what it is.")


def _size_at(place: Place) -> int:
    """A member's size by its place: the second number of a tar's, the fourth of a zip's."""
    return place[1] if len(place) == 2 else place[3]
