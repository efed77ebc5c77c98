"""Zips: the directory at their end read entry by entry, members wherever they lie, a cut one from its beginning.

`zipfile` holds the whole directory, some 700 bytes a member, and gives nothing of a zip that is cut.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from indexer.errors import BadMember, Truncated, Unreadable
from indexer.media.entries import Entry, Limits, Place, label

_STORED, _DEFLATED = 0, 8
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s2B5H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL_32 = 0xFFFFFFFF
_LONGEST_COMMENT = 2**16
_CHUNK = 2**16
_LOCAL_SIGN, _CENTRAL_SIGN, _DESCRIPTOR_SIGN = b"PK\3\4", b"PK\1\2", b"PK\7\x08"
_UNIX = 3


class _Packed(NamedTuple):
    """A zip's `Place`."""

    header: int
    method: int
    packed: int
    size: int
    crc: int


class Zip:
    """A zip of `size` bytes."""

    def __init__(self, file: BinaryIO, limits: Limits, *, size: int) -> None:
        self._file = file
        self._limits = limits
        self._size = size

    def entries(self) -> Iterator[Entry]:
        """See `Archive.entries`. Of a zip without a directory, which is cut, members come in the order they lie."""
        directory = self._directory()
        if directory is None:
            yield from self._scan()
            raise Truncated("The archive ends early, without its directory; what is before the cut was read.")
        at, end, shift = directory
        while at < end:
            fixed = self._at(at, _CENTRAL.size)
            if len(fixed) < _CENTRAL.size or not fixed.startswith(_CENTRAL_SIGN):
                raise Unreadable("The archive's directory is damaged from here on.")
            (_, _, system, _, flags, method, _, _, crc, packed, size, names, extras, comments, _, _, modes, header) = (
                _CENTRAL.unpack(fixed)
            )
            variable = self._at(at + _CENTRAL.size, names + extras)
            size, packed, header = _wide(variable[names:], size, packed, header)
            mode = modes >> 16 if system == _UNIX else 0
            place = _Packed(header + shift, method, packed, size, crc)
            yield Entry(_name(variable[:names]), size, place, _problem(flags, method, mode))
            at += _CENTRAL.size + names + extras + comments

    def read(self, place: Place, count: int) -> bytes:
        """See `Archive.read`."""
        member = _Packed(*place)
        local = self._at(member.header, _LOCAL.size)
        if len(local) < _LOCAL.size or not local.startswith(_LOCAL_SIGN):
            raise BadMember("The member is not where the archive's directory says.")
        names, extras = _LOCAL.unpack(local)[-2:]
        self._file.seek(member.header + _LOCAL.size + names + extras)
        count = min(count, member.size)
        data = self._stored(member, count) if member.method == _STORED else self._inflated(member, count)
        if len(data) < count or (count == member.size and zlib.crc32(data) != member.crc):
            raise BadMember("The member is damaged: it is not what its size or its checksum says.")
        return data

    def reaches(self, place: Place) -> bool:  # noqa: ARG002
        """See `Archive.reaches`."""
        return True

    def holds(self, place: Place) -> bool:  # noqa: ARG002
        """See `Archive.holds`."""
        return True

    def _at(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        return self._file.read(count)

    def _stored(self, member: _Packed, count: int) -> bytes:
        return self._file.read(min(member.packed, count))

    def _inflated(self, member: _Packed, count: int) -> bytes:
        """Up to `count` bytes."""
        unpacked = io.BytesIO()
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        left = member.packed
        try:
            while left > 0 and unpacked.tell() < count and not inflate.eof:
                chunk = self._file.read(min(_CHUNK, left))
                if not chunk:
                    break
                left -= len(chunk)
                while chunk and unpacked.tell() < count:
                    unpacked.write(inflate.decompress(chunk, min(2**20, count - unpacked.tell())))
                    chunk = inflate.unconsumed_tail
        except zlib.error as error:
            raise BadMember(f"The member is damaged: {error}.") from error
        return unpacked.getvalue()

    def _directory(self) -> tuple[int, int, int] | None:
        """Where the directory begins and ends, and by how much every offset is off if something was put before."""
        base = max(0, self._size - _END.size - _LONGEST_COMMENT)
        tail = self._at(base, _END.size + _LONGEST_COMMENT)
        # The comment must end where the file does: in a cut zip this sign may be that of another zip, stored in it.
        found = len(tail)
        comment = -1
        while found + _END.size + comment != len(tail):
            found = tail.rfind(b"PK\5\6", 0, found)
            if found < 0:
                return None
            length, offset, comment = _END.unpack_from(tail.ljust(found + _END.size, b"\0"), found)[5:]
        end = base + found
        locator = self._at(end - _LOCATOR_64.size, _LOCATOR_64.size) if end >= _LOCATOR_64.size else b""
        if locator.startswith(b"PK\6\7"):
            at = end - _LOCATOR_64.size - _END_64.size
            wide = self._at(max(0, at), _END_64.size)
            if at < 0 or len(wide) < _END_64.size or not wide.startswith(b"PK\6\6"):
                return None
            end = at
            length, offset = _END_64.unpack(wide)[-2:]
        begin = end - length
        return (begin, end, begin - offset) if begin >= offset else None

    def _scan(self) -> Iterator[Entry]:
        """Members from the front, each by the header before it, up to one that is not whole."""
        at = 0
        while True:
            local = self._at(at, _LOCAL.size)
            if len(local) < _LOCAL.size or not local.startswith(_LOCAL_SIGN):
                return
            _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(local)
            variable = self._at(at + _LOCAL.size, names + extras)
            size, packed, _ = _wide(variable[names:], size, packed, 0)
            begin = at + _LOCAL.size + names + extras
            after = begin + packed
            if flags & 8 and not packed:
                measured = self._measured(begin) if method == _DEFLATED else None
                if measured is None:
                    return
                crc, packed, size, after = measured
            if after > self._size:
                return
            place = _Packed(at, method, packed, size, crc)
            yield Entry(_name(variable[:names]), size, place, _problem(flags, method, 0))
            at = after

    def _measured(self, begin: int) -> tuple[int, int, int, int] | None:
        """The checksum, sizes and end of a member that was written before its size was known, by inflating it."""
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        size = packed = crc = 0
        self._file.seek(begin)
        try:
            while not inflate.eof:
                chunk = self._file.read(_CHUNK)
                if not chunk:
                    return None
                packed += len(chunk)
                while chunk and not inflate.eof:
                    some = inflate.decompress(chunk, 2**20)
                    crc = zlib.crc32(some, crc)
                    size += len(some)
                    if size > self._limits.max_bytes:
                        return None
                    chunk = inflate.unconsumed_tail
        except zlib.error:
            return None
        packed -= len(inflate.unused_data)
        behind = self._at(begin + packed, 28)
        for length in (12, 16, 20, 24):  # with its sign or without, of 32 bits or of 64
            if behind[length : length + 4] in {_LOCAL_SIGN, _CENTRAL_SIGN}:
                return crc, packed, size, begin + packed + length
        return None


def _wide(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset, from the zip64 field where 32 bits are too few."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}Q", extra, 4))
            return tuple(next(values, value) if value == _FULL_32 else value for value in (size, packed, header))  # type: ignore[return-value]
        extra = extra[4 + length :]
    return size, packed, header


def _name(raw: bytes) -> str:
    """A name as UTF-8, which many write without saying so, or else as the format's own code page."""
    try:
        return label(raw.decode())
    except UnicodeDecodeError:
        return label(raw.decode("cp437"))


def _problem(flags: int, method: int, mode: int) -> str | None:
    if flags & 0x41:
        return "encrypted"
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "a link" if stat.S_ISLNK(mode) else "a device or pipe"
    if method not in {_STORED, _DEFLATED}:
        return f"compressed by method {method}, which is not read"
    return None
