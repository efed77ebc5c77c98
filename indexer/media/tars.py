"""Tars, plain or as a stream out of a decompressor: headers one at a time, nothing kept of those that are past.

`tarfile` keeps every member and believes an extended header of any size; here only its header parser is used.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from indexer.errors import ArchiveRefused, Truncated, Unreadable
from indexer.media.entries import FREE_BYTES, MAX_RATIO, Entry, Limits, Place, label

_BLOCK = 512
_CHUNK = 2**20
_MAX_EXTENDED = 2**20
"""Bytes of one extended header: names and attributes."""
_MAX_EXTENSIONS = 16
"""Extended headers of one member."""

_PAX = (b"x", b"X")
_LONG_NAME = b"L"
_IGNORED_EXTENSIONS = (b"g", b"K")
"""Attributes of all members, and where links lead."""
_REGULAR = (b"0", b"\0", b"7")
_SPARSE = b"S"
_WITHOUT_DATA = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
}


class Tar:
    """A tar of which `file` gives the bytes.

    `size` is that of a plain tar, whose file can be sought in; `packed` is the compressed file behind a stream, by
    which its ratio is told. One of both is given.
    """

    def __init__(
        self, file: BinaryIO, limits: Limits, *, size: int | None = None, packed: BinaryIO | None = None
    ) -> None:
        self._file = file
        self._limits = limits
        self._size = size
        self._packed = packed
        self._position = 0

    def entries(self) -> Iterator[Entry]:
        """See `Archive.entries`."""
        at = 0
        extensions = 0
        attributes: dict[str, str] = {}
        while True:
            self._go(at)
            block = self._read(_BLOCK)
            if not any(block):
                return
            header = _parsed(block, first=at == 0)
            at += _BLOCK
            if header.type in (*_PAX, _LONG_NAME, *_IGNORED_EXTENSIONS):
                extensions += 1
                self._check_extension(header, extensions)
                data = self._read(_padded(header.size))[: header.size]
                at += _padded(header.size)
                if header.type in _PAX:
                    attributes |= _attributes(data)
                elif header.type == _LONG_NAME:
                    attributes["path"] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                continue
            if header.type == _SPARSE and block[482]:
                at = self._behind_sparse_map(at)
            size = _size(header, attributes)
            name = attributes.get("path") or header.name
            if header.type == b"5":
                name = name.rstrip("/") + "/"
            if self._size is not None and at + size > self._size:
                raise _cut()
            yield Entry(label(name), size, (at, size), _problem(header, attributes))
            at += _padded(size)
            extensions = 0
            attributes = {}

    def read(self, place: Place, count: int) -> bytes:
        """See `Archive.read`. A tar has no checksums of its members."""
        at, size = place
        self._go(at)
        return self._read(min(size, count))

    def reaches(self, place: Place) -> bool:
        """See `Archive.reaches`."""
        return self._size is not None or place[0] >= self._position

    def holds(self, place: Place) -> bool:
        """See `Archive.holds`."""
        return self._size is not None or sum(place) <= self._position

    def _check_extension(self, header: tarfile.TarInfo, count: int) -> None:
        if not 0 <= header.size <= _MAX_EXTENDED or count > _MAX_EXTENSIONS:
            raise ArchiveRefused(f"A member's extended headers are of more than {_MAX_EXTENDED:,} bytes, or too many.")

    def _behind_sparse_map(self, at: int) -> int:
        """Where the data begin, behind the rest of a sparse file's map; who writes an endless one meets its end."""
        while True:
            block = self._read(_BLOCK)
            at += _BLOCK
            if not block[504]:
                return at

    def _go(self, to: int) -> None:
        if self._size is not None:
            if to > self._size:
                raise _cut()
            self._file.seek(to)
            self._position = to
        while self._position < to:
            if not self._some(min(_CHUNK, to - self._position)):
                raise _cut()

    def _read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        parts = []
        while count > 0:
            part = self._some(min(_CHUNK, count))
            if not part:
                raise _cut()
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _some(self, count: int) -> bytes:
        """Up to `count` bytes, none at the end; counted against the limits as they come."""
        try:
            data = self._file.read(count)
        except EOFError as error:
            raise _cut() from error
        except (OSError, zlib.error, zstandard.ZstdError) as error:
            raise Unreadable(f"The archive is damaged from here on: {error}.") from error
        self._position += len(data)
        if self._packed is not None:
            if self._position > self._limits.max_archive_bytes:
                raise ArchiveRefused(f"It unpacks to more than {self._limits.max_archive_bytes:,} bytes.")
            if self._position > FREE_BYTES + MAX_RATIO * self._packed.tell():
                raise ArchiveRefused(f"It unpacks to more than {MAX_RATIO} times its size.")
        return data


def gunzipped(file: BinaryIO, limits: Limits) -> Tar:
    """A gzipped tar."""
    return Tar(gzip.GzipFile(fileobj=file), limits, packed=file)  # type: ignore[arg-type]


def unzstd(file: BinaryIO, limits: Limits) -> Tar:
    """A tar compressed by Zstandard; its window is capped at 128 MiB, the most that `zstd` uses unasked."""
    stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file, read_across_frames=True)
    return Tar(stream, limits, packed=file)


def is_tar(block: bytes) -> bool:
    """Whether a file that begins with `block`, 512 bytes, may be a tar."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _parsed(block: bytes, *, first: bool) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        message = (
            "The content is no tar." if first else "The archive is damaged from here on: no header where one is due."
        )
        raise Unreadable(message) from error
    if header.size < 0:
        raise Unreadable("The archive is damaged from here on: a member's size is negative.")
    return header


def _size(header: tarfile.TarInfo, attributes: dict[str, str]) -> int:
    if header.type in _WITHOUT_DATA:
        return 0
    size = attributes.get("size", "")
    return int(size) if size.isascii() and size.isdecimal() and len(size) < 20 else header.size


def _problem(header: tarfile.TarInfo, attributes: dict[str, str]) -> str | None:
    if header.type == _SPARSE or any(key.startswith("GNU.sparse.") for key in attributes):
        return "a sparse file"
    if header.type in _REGULAR:
        return None
    return _WITHOUT_DATA.get(header.type, "of a kind that is not known")


def _attributes(data: bytes) -> dict[str, str]:
    """The records of a pax header, each `<length> <key>=<value>\\n` (POSIX.1-2001)."""
    found = {}
    while data.rstrip(b"\0"):
        length, space, _ = data[:12].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 3 <= int(length) <= len(data):
            raise Unreadable("The archive is damaged from here on: an extended header does not parse.")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _cut() -> Truncated:
    return Truncated("The archive ends early; what is before the cut was read.")
