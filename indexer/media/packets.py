"""Where each format keeps its metadata: the blocks of EXIF, IPTC and XMP out of a file, without a pixel decoded.

The outer structure of JPEG, PNG and WebP is walked here, for Pillow would decode a PNG to find EXIF, allocate a WebP's
canvas to open it, and join a JPEG's segments in the square of their number. HEIF and AVIF are opened by their decoders.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from indexer.errors import MediaError
from indexer.media.decode import _errors_of_pillow, _opened
from indexer.media.exif import MAX_BLOCK, Exif
from indexer.media.exif import read as read_exif
from indexer.media.iptc import resources

_MAX_SEGMENTS = 1000  # of a JPEG before its picture; XMP beyond 64 KiB takes some hundred
_MAX_CHUNKS = 20_000  # of a PNG or WebP; metadata may stand behind the picture
_MAX_EXIF = 2**24
_MAX_GIF = 2**16  # bytes of a GIF in which its comment is looked for

_JPEG_EXIF = b"Exif\0\0"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_PHOTOSHOP = b"Photoshop 3.0\0"
_EOI, _SOS, _APP1, _APP13, _FILL = 0xD9, 0xDA, 0xE1, 0xED, 0xFF
_ALONE = frozenset({0, 1, *range(0xD0, _EOI)})  # markers without a segment
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_KEYWORDS = frozenset({b"Title", b"Author", b"Description", b"Copyright", b"Software", b"Comment"})


@dataclass
class Packets:
    """A file's metadata, each kind as it was found, the first of each kind alone."""

    exif: Exif = field(default_factory=lambda: Exif({}, {}, {}))
    iptc: bytes = b""
    digest: bytes = b""
    """Of the IPTC, at the time when XMP was last written with it."""
    xmp: bytes = b""
    texts: dict[str, str] = field(default_factory=dict)
    """PNG's own, by their keywords (`Title`, `Author`, ...); a GIF's `Comment`."""


def packets(data: bytes, media_type: str) -> Packets:
    """The metadata of an image; what is broken or beyond its cap is missing. Never raises."""
    reader = _READERS.get(media_type)
    return reader(data) if reader else Packets()


def _of_jpeg(data: bytes) -> Packets:
    exif = xmp = b""
    photoshop: list[bytes] = []
    for marker, segment in _segments(data):
        if marker == _APP13:
            if segment.startswith(_JPEG_PHOTOSHOP) and len(photoshop) * 2**16 < MAX_BLOCK:
                photoshop.append(segment.removeprefix(_JPEG_PHOTOSHOP))  # a long resource goes on in the next one
        elif segment.startswith(_JPEG_EXIF):
            exif = exif or segment
        elif segment.startswith(_JPEG_XMP):
            xmp = xmp or segment.removeprefix(_JPEG_XMP)
    found = resources(b"".join(photoshop))
    return Packets(read_exif(exif), found.iptc, found.digest, xmp)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The APP1 and APP13 segments before a JPEG's first scan (ITU-T T.81, B.1.1)."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        at = data.find(b"\xff", at, at + MAX_BLOCK)
        if at < 0:
            return
        marker = data[at + 1] if at + 1 < len(data) else _EOI
        if marker == _FILL:  # before a marker
            at += 1
            continue
        at += 2
        if marker in _ALONE:
            continue
        if marker in {_EOI, _SOS}:
            return
        size = int.from_bytes(data[at : at + 2], "big")
        if marker in {_APP1, _APP13}:
            yield marker, data[at + 2 : at + size]
        at += max(size, 2)


def _of_png(data: bytes) -> Packets:
    found = Packets()
    exif = b""
    at = 8
    for _ in range(_MAX_CHUNKS):
        head = data[at : at + 8]
        if len(head) < 8:
            break
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        at += 8
        if kind == b"eXIf" and size <= _MAX_EXIF:
            exif = exif or data[at : at + size]
        elif kind in {b"tEXt", b"zTXt", b"iTXt"} and size <= MAX_BLOCK:
            keyword, _, chunk = data[at : at + size].partition(b"\0")
            if keyword == _PNG_XMP:
                found.xmp = found.xmp or _png_text(kind, chunk)
            elif keyword in _PNG_KEYWORDS and (name := keyword.decode()) not in found.texts:
                encoding = "utf-8" if kind == b"iTXt" else "latin-1"
                found.texts[name] = _png_text(kind, chunk).decode(encoding, "replace")
        elif kind == b"IEND":
            break
        at += size + 4
    found.exif = read_exif(exif)
    return found


def _png_text(kind: bytes, chunk: bytes) -> bytes:
    """The text of a chunk from behind its keyword, at most `MAX_BLOCK` bytes of it (PNG 3, 11.3.3); empty if broken."""
    packed = kind == b"zTXt" or (kind == b"iTXt" and chunk[:1] == b"\1")
    if kind == b"zTXt":
        chunk = chunk[1:]
    elif kind == b"iTXt":  # between the two flags and the text are a language and a translated keyword
        chunk = chunk[2:].partition(b"\0")[2].partition(b"\0")[2]
    try:
        return zlib.decompressobj().decompress(chunk, MAX_BLOCK) if packed else chunk
    except zlib.error:
        return b""


def _of_webp(data: bytes) -> Packets:
    exif = xmp = b""
    at = 12
    for _ in range(_MAX_CHUNKS):
        try:
            kind, size = struct.unpack_from("<4sI", data, at)
        except struct.error:
            break
        at += 8
        if kind == b"EXIF" and size <= _MAX_EXIF:
            exif = exif or data[at : at + size]
        elif kind == b"XMP " and size <= MAX_BLOCK:
            xmp = xmp or data[at : at + size]
        at += size + size % 2
    return Packets(read_exif(exif), xmp=xmp)


def _of_tiff(data: bytes) -> Packets:
    exif = read_exif(data)
    found = resources(exif.blocks.get("Photoshop", b""))
    return Packets(exif, exif.blocks.get("IPTC") or found.iptc, found.digest, exif.blocks.get("XMP", b""))


def _of_info(media_type: str, data: bytes) -> Packets:
    """By the decoder, which reads the boxes of the file; pixels are decoded when they are asked for."""
    found = Packets()
    with suppress(MediaError), _errors_of_pillow(), _opened(data, media_type) as image:
        exif, xmp = image.info.get("exif"), image.info.get("xmp")
        if isinstance(exif, bytes) and len(exif) <= _MAX_EXIF:
            found.exif = read_exif(exif)
        if isinstance(xmp, bytes):
            found.xmp = xmp
    return found


def _of_gif(data: bytes) -> Packets:
    found = Packets()
    with suppress(MediaError), _errors_of_pillow(), _opened(data[:_MAX_GIF], "image/gif") as image:
        comment = image.info.get("comment")
        if isinstance(comment, bytes):
            found.texts["Comment"] = comment.decode("utf-8", "replace")
    return found


_READERS: dict[str, Callable[[bytes], Packets]] = {
    "image/jpeg": _of_jpeg,
    "image/png": _of_png,
    "image/webp": _of_webp,
    "image/tiff": _of_tiff,
    "image/heic": partial(_of_info, "image/heic"),
    "image/avif": partial(_of_info, "image/avif"),
    "image/gif": _of_gif,
}
