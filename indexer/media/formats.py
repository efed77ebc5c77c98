"""What a file is, by its content: names lie."""

from __future__ import annotations

import io
from typing import BinaryIO, Literal

SNIFF_BYTES = 1024
"""Bytes from a file's beginning that `sniff` looks at."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib"}
    | {".avif", ".heic", ".heif", ".hif"}
)
"""Names by which a file in a folder claims to be an image that is read; if it is none, that is a failure."""

MEDIA_SUFFIXES = IMAGE_SUFFIXES | {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".pdf"}
"""Names by which a file counts as media where its content is not looked at. `.ts` is TypeScript far more often."""

PILLOW_FORMATS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/tiff": "TIFF",
    "image/bmp": "BMP",
    "image/avif": "AVIF",
    "image/heic": "HEIF",
}
"""The formats that are read, each by the one Pillow plugin that reads it."""

SEQUENCE_TYPES: dict[str, Literal["video", "animation", "document"]] = {
    "video/mp4": "video",
    "video/quicktime": "video",
    "video/x-matroska": "video",
    "video/webm": "video",
    "video/x-msvideo": "video",
    "video/mp2t": "video",
    "image/gif": "animation",
    "image/webp": "animation",
    "image/png": "animation",
    "application/pdf": "document",
}
"""The types of files that may hold several pictures, each with the kind of reader that it needs."""

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"\0\0\1\0", "image/x-icon"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\x76\x2f\x31\x01", "image/x-exr"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
)
_BMP_HEADER_SIZES = frozenset((12, 40, 52, 56, 64, 108, 124))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_VIDEO_BRANDS = frozenset(
    {b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp4v"}
    | {b"avc1", b"qt  ", b"M4V ", b"M4VH", b"f4v ", b"MSNV", b"dash", b"cmfc", b"3gp4", b"3gp5", b"3gp6", b"3g2a"}
)
_MATROSKA = b"\x1aE\xdf\xa3"
_BARE_QUICKTIME = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip"))
_IMAGE_BYTES = 64  # enough for what an image begins with; in more, a text might come to look like one
_TS_PACKETS = ((0, 188), (4, 192))  # where an MPEG-TS packet's sync byte is, and its length; M2TS puts a time before it
_ISO_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"styp", b"free", b"skip", b"wide", b"uuid")
)
_EBML_SEGMENT = b"\x18S\x80g"
_MAX_PARTS = 1_000_000  # of a file that is walked through; a day of one-second fragments has a sixth of it
_TS_SYNC = 0x47
_TS_SYNCS = 5
_PLAYLISTS = (b"#extm3u", b"#ext-x-", b"ffconcat", b"[playlist]", b"[reference]", b"rtsptext", b"v=0\r\n", b"v=0\n")
_MANIFEST_ROOTS = (b"<mpd", b"<smoothstreamingmedia", b"<smil", b"<asx", b"<playlist")


def sniff(head: bytes) -> str | None:
    """The media type of a file that begins with `head` (`SNIFF_BYTES` of it are enough); None if it is not known.

    Types that are recognised but not read are named too, so that the error can say what the file is.
    """
    return _single(head[:_IMAGE_BYTES]) or _stream(head)


def _single(head: bytes) -> str | None:
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return "image/svg+xml" if text.startswith(b"<svg") else None


def _of_brands(head: bytes) -> str | None:
    """The kind of an ISO base media file, which its major and compatible brands tell (ISO/IEC 14496-12)."""
    size = max(16, int.from_bytes(head[:4], "big"))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))]
    if {b"avif", b"avis"} & set(brands):
        return "image/avif"
    if _HEIF_BRANDS & set(brands):
        return "image/heic"
    if brands[0] == b"qt  ":
        return "video/quicktime"
    return "video/mp4" if _VIDEO_BRANDS & set(brands) else None


def _stream(head: bytes) -> str | None:
    """The kind of a video container that has no magic of its own at its first byte, or one that two kinds share."""
    if head.startswith(_MATROSKA):
        return "video/webm" if b"webm" in head[:_IMAGE_BYTES] else "video/x-matroska"  # as the DocType says
    # QuickTime before 2001 has no `ftyp`. The size before the name tells it from a text: it begins with a zero, or the
    # box is `mdat`, which may be large.
    if head[4:8] in _BARE_QUICKTIME and (head[0] == 0 or head[4:8] == b"mdat"):
        return "video/quicktime"
    for first, size in _TS_PACKETS:
        syncs = head[first::size][:_TS_SYNCS]
        if set(syncs) == {_TS_SYNC} and len(syncs) >= (_TS_SYNCS if len(head) >= SNIFF_BYTES else 3):
            return "video/mp2t"
    return None


def is_animated(data: bytes) -> bool:
    """Whether a GIF, WebP or PNG has more than one frame, read from its headers alone."""
    match sniff(data[:SNIFF_BYTES]):
        case "image/webp":  # the flag in its extended header
            return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 2)
        case "image/png":  # the chunk that must come before the first picture
            first = data.find(b"IDAT")
            return b"acTL" in data[: first if first >= 0 else None]
        case "image/gif":
            return _gif_frames(data, most=2) > 1
        case _:
            return False


def _gif_frames(data: bytes, most: int) -> int:
    """A GIF's image descriptors, counted up to `most` (GIF89a, section 20)."""
    found, at = 0, 13 + _gif_colours(data[10:11])
    while at < len(data) and found < most:
        match data[at]:
            case 0x21:  # an extension
                at += 2
            case 0x2C:
                found += 1
                at += 11 + _gif_colours(data[at + 9 : at + 10])
            case _:
                break
        while at < len(data) and data[at]:  # sub-blocks, each with its length before it
            at += 1 + data[at]
        at += 1
    return found


def _gif_colours(packed: bytes) -> int:
    """Bytes of the colour table that a packed field announces."""
    return 3 * 2 ** ((packed[0] & 7) + 1) if packed and packed[0] & 0x80 else 0


def is_playlist(head: bytes) -> bool:
    """Whether a file that begins with `head` names other files or addresses instead of holding pictures.

    These are HLS (RFC 8216), DASH and Smooth Streaming manifests, FFmpeg's concat scripts, and the likes of PLS, ASX,
    SMIL and SDP.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n\0").lower()
    if text.startswith(_PLAYLISTS):
        return True
    return text.startswith(b"<") and any(root in text for root in _MANIFEST_ROOTS)


def ends_early(file: BinaryIO, media_type: str) -> bool:
    """Whether a video ends before its container says that it does, read from the outermost headers alone.

    A container that does not say (MPEG-TS cut between packets, a live WebM) counts as whole.

    Raises:
        OSError: the file cannot be read.
    """
    length = file.seek(0, io.SEEK_END)
    match media_type:
        case "video/mp4" | "video/quicktime":
            return _ends_in_box(file, length)
        case "video/webm" | "video/x-matroska":
            return _ends_in_segment(file, length)
        case "video/x-msvideo":
            return _ends_in_riff(file, length)
        case "video/mp2t":
            file.seek(0)
            first = file.read(1)
            return length % (188 if first == bytes((_TS_SYNC,)) else 192) != 0
        case _:
            return False


def _ends_in_box(file: BinaryIO, length: int) -> bool:
    """Whether a top-level box is cut, or the one with the index never came (ISO/IEC 14496-12, 4.2)."""
    at, indexed = 0, False
    for _ in range(_MAX_PARTS):
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind not in _ISO_BOXES:  # the end, or something appended
            break
        indexed = indexed or kind == b"moov"
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0 is "to the end of the file"
            break
        at += size
        if at > length:
            return True
    return not indexed


def _ends_in_segment(file: BinaryIO, length: int) -> bool:
    """Whether a Matroska file ends before its one segment does (RFC 9559; RFC 8794 for the notation of sizes)."""
    file.seek(4)
    size, at = _vint(file)
    if size is None:
        return False
    if at + size <= length:
        file.seek(at + size)
        if file.read(4) != _EBML_SEGMENT:
            return False
        size, at = _vint(file)
    return size is not None and at + size > length


def _vint(file: BinaryIO) -> tuple[int | None, int]:
    """An EBML size (None if it is unknown, as in a live stream) and where it ends."""
    first = int.from_bytes(file.read(1), "big")
    width = 9 - first.bit_length()
    rest = file.read(width - 1) if first else b""
    size = int.from_bytes(bytes((first,)) + rest, "big") & ((1 << 7 * width) - 1)
    unknown = not first or len(rest) < width - 1 or size == (1 << 7 * width) - 1
    return (None if unknown else size), file.tell()


def _ends_in_riff(file: BinaryIO, length: int) -> bool:
    """Whether one of an AVI's RIFF chunks is cut; there are several beyond 1 GiB (OpenDML)."""
    at = 0
    for _ in range(_MAX_PARTS):
        file.seek(at)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not size:  # what writes to a pipe leaves 0
            break
        at += 8 + size + size % 2
    return at > length + 1
