"""EXIF: the tags of a photo that tell of it, out of the TIFF structure that holds them.

Pillow reads every value of every directory into memory. Here the tags that are wanted are looked up, each with a cap,
in three directories: the first, and the two that it points to. Nothing else is followed, so that nothing can loop.
(CIPA DC-008-2023, Exif 3.0; TIFF 6.0; BigTIFF)
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from indexer.media.values import decoded

MAX_BLOCK = 2**20
"""Bytes of XMP or IPTC that are read."""

_MAX_VALUE = 2**16  # bytes of any other value
_MAX_ENTRIES = 1000  # of a directory; cameras write fewer than 100
_MAX_NUMBERS = 8  # of one tag

_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
_TEXTS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x8298: "Copyright",
    0x9003: "DateTimeOriginal",
    0x9004: "DateTimeDigitized",
    0x9011: "OffsetTimeOriginal",
    0x9012: "OffsetTimeDigitized",
    0x9291: "SubSecTimeOriginal",
    0x9292: "SubSecTimeDigitized",
    0xA434: "LensModel",
}
# Windows' own, in UTF-16.
_WIDE_TEXTS = {
    0x9C9B: "XPTitle",
    0x9C9C: "XPComment",
    0x9C9D: "XPAuthor",
    0x9C9E: "XPKeywords",
    0x9C9F: "XPSubject",
}
_USER_COMMENT = 0x9286
_NUMBERS = {
    _EXIF_DIRECTORY: "ExifDirectory",
    _GPS_DIRECTORY: "GPSDirectory",
    0x4746: "Rating",
    0x829A: "ExposureTime",
    0x829D: "FNumber",
    0x8827: "PhotographicSensitivity",
    0x8831: "StandardOutputSensitivity",
    0x8832: "RecommendedExposureIndex",
    0x9209: "Flash",
    0x920A: "FocalLength",
    0xA405: "FocalLengthIn35mmFilm",
}
_BLOCKS = {0x02BC: "XMP", 0x83BB: "IPTC", 0x8649: "Photoshop"}
_OF_PHOTO = frozenset({*_TEXTS, *_WIDE_TEXTS, *_NUMBERS, *_BLOCKS, _USER_COMMENT})

_GPS_TEXTS = {1: "GPSLatitudeRef", 3: "GPSLongitudeRef", 9: "GPSStatus"}
_GPS_NUMBERS = {2: "GPSLatitude", 4: "GPSLongitude", 5: "GPSAltitudeRef", 6: "GPSAltitude"}
_OF_GPS = frozenset({*_GPS_TEXTS, *_GPS_NUMBERS})

# Types by number: bytes, texts, integers, floats as `struct` has them. Rationals are two integers.
_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_RATIONALS = {5: "I", 10: "i"}
_SIZES = {
    **{kind: struct.calcsize(form) for kind, form in _FORMATS.items()},
    **dict.fromkeys(_RATIONALS, 8),
    2: 1,  # ASCII
    18: 8,  # a directory's offset in BigTIFF
    129: 1,  # UTF-8, since Exif 3.0
}
_CLASSIC, _BIG = 42, 43
_HEADER = 8  # bytes in which no value can be
_Entry = tuple[int, bytes]  # an entry's type, and its value as it is stored


class Exif(NamedTuple):
    """What was found, by the names that the standards give to the tags."""

    texts: dict[str, str]
    numbers: dict[str, tuple[float, ...]]
    """At least one of each; NaN where a denominator is zero."""
    blocks: dict[str, bytes]
    """Other metadata that TIFF keeps in tags: `XMP`, `IPTC`, `Photoshop`."""


def read(data: bytes) -> Exif:
    """The known tags of a TIFF structure, with or without the mark that JPEG puts before it; never raises."""
    found = Exif({}, {}, {})
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return found
    try:
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        (first,) = struct.unpack_from(
            f"{order}Q" if version == _BIG else f"{order}I", data, 8 if version == _BIG else 4
        )
    except struct.error:
        return found
    if version not in {_CLASSIC, _BIG}:
        return found
    tiff = _Tiff(data, order, big=version == _BIG)
    photo = tiff.entries(first, _OF_PHOTO)
    # The first directory's own are overruled: what belongs into the second is sometimes in both.
    photo |= tiff.entries(tiff.pointer(photo, _EXIF_DIRECTORY), _OF_PHOTO - {_EXIF_DIRECTORY, _GPS_DIRECTORY})
    gps = tiff.entries(tiff.pointer(photo, _GPS_DIRECTORY), _OF_GPS)
    for entries, texts, numbers in ((photo, _TEXTS, _NUMBERS), (gps, _GPS_TEXTS, _GPS_NUMBERS)):
        for tag, entry in entries.items():
            if tag in texts:
                found.texts[texts[tag]] = _text(entry[1], every=texts[tag] == "Copyright")
            elif tag in numbers and (known := tiff.numbers(entry)):
                found.numbers[numbers[tag]] = known
    for tag, (_kind, value) in photo.items():
        if tag in _WIDE_TEXTS:
            found.texts[_WIDE_TEXTS[tag]] = value.decode("utf-16-le", "replace").split("\0")[0]
        elif tag in _BLOCKS:
            found.blocks[_BLOCKS[tag]] = value
        elif tag == _USER_COMMENT:
            found.texts["UserComment"] = _comment(value, order)
    return found


class _Tiff:
    """Directories of a TIFF structure; nothing in them is believed before it is seen to lie within the data."""

    def __init__(self, data: bytes, order: str, *, big: bool) -> None:
        self._data = data
        self._order = order
        self._count = struct.Struct(f"{order}{'Q' if big else 'H'}")
        self._entry = struct.Struct(f"{order}{'HHQ8s' if big else 'HHI4s'}")
        self._offset = struct.Struct(f"{order}{'Q' if big else 'I'}")

    def entries(self, at: int, wanted: frozenset[int]) -> dict[int, _Entry]:
        """The wanted entries of the directory at an offset; of one that is there twice, the first."""
        found: dict[int, _Entry] = {}
        if not 0 < at <= len(self._data) - self._count.size:
            return found
        (count,) = self._count.unpack_from(self._data, at)
        at += self._count.size
        fit = min(count, (len(self._data) - at) // self._entry.size, _MAX_ENTRIES)
        for place in range(at, at + fit * self._entry.size, self._entry.size):
            tag, kind, length, inline = self._entry.unpack_from(self._data, place)
            if tag not in wanted or tag in found:
                continue
            size = min(length * _SIZES.get(kind, 0), MAX_BLOCK if tag in _BLOCKS else _MAX_VALUE)
            if size > len(inline):
                (start,) = self._offset.unpack(inline)
                value = self._data[start : start + size] if start >= _HEADER else b""
            else:
                value = inline[:size]
            if value and len(value) == size:
                found[tag] = (kind, value)
        return found

    def pointer(self, entries: dict[int, _Entry], tag: int) -> int:
        """Where an entry says that another directory is; 0 if it does not."""
        known = self.numbers(entries[tag]) if tag in entries else ()
        return int(known[0]) if known and math.isfinite(known[0]) else 0

    def numbers(self, entry: _Entry) -> tuple[float, ...]:
        """An entry's first values as numbers; none if it holds something else."""
        kind, value = entry
        form = _RATIONALS.get(kind) or _FORMATS.get(kind) or ("Q" if kind == 18 else "")
        if not form:
            return ()
        count = min(len(value) // _SIZES[kind], _MAX_NUMBERS) * (2 if kind in _RATIONALS else 1)
        known: tuple[float, ...] = struct.unpack_from(f"{self._order}{count}{form}", value)
        if kind in _RATIONALS:
            pairs = zip(known[::2], known[1::2], strict=True)
            known = tuple(above / below if below else math.nan for above, below in pairs)
        return known


def _text(value: bytes, *, every: bool) -> str:
    """Up to its end mark; of the copyright, which has the photographer's and then the editor's, all parts."""
    parts = value.rstrip(b"\0").split(b"\0")
    texts = [decoded(part).strip() for part in (parts if every else parts[:1])]
    return ", ".join(text for text in texts if text)


def _comment(value: bytes, order: str) -> str:
    """A user comment, whose first eight bytes name its encoding."""
    mark, body = value[:8].rstrip(b"\0 ").upper(), value[8:]
    match mark:
        case b"UNICODE":
            if body[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                return body.decode("utf-16", "replace").split("\0")[0]
            # The order is the directory's, or so it should be: in Latin scripts it shows where the zeros are.
            first, second = body[0::2].count(0), body[1::2].count(0)
            big = order == ">" if first == second else first > second
            return body.decode("utf-16-be" if big else "utf-16-le", "replace").split("\0")[0]
        case b"JIS":
            return body.decode("iso2022_jp", "replace").split("\0")[0]
        case b"ASCII" | b"":
            return decoded(body.split(b"\0")[0])
        case _:  # no mark at all
            return decoded(value.split(b"\0")[0])
