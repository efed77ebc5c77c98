"""What videos and PDFs say of themselves, as fields of their payloads: the same ones as a photo's, and the duration."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from indexer.errors import MediaError
from indexer.media import values
from indexer.media.formats import SNIFF_BYTES, sniff
from indexer.media.frames import _opened
from indexer.media.values import first, first_caption

_EPOCHS = ("1904-01-01T00:00:00", "1970-01-01T00:00:00")  # what containers count from: a clock that was never set
_LONGEST = 1e9  # seconds
_MAX_PDF_TEXT = 2**16  # bytes
_MAX_KEYWORDS = 2**16  # characters of a video's, all together
# Of what opens videos and PDFs, over bad files.
_ERRORS = (
    OSError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError, AssertionError, EOFError, LookupError,
    struct.error, ctypes.ArgumentError,
)  # fmt: skip


def describe_video(source: bytes | Path) -> dict[str, Any]:
    """What a video's container says: `taken_at`, `year`, `month`, `place`, `altitude`, `camera`, texts, `tags`.

    And `duration` in seconds, as the header has it. Empty if it says nothing or cannot be read; never
    raises. The file is opened as for its frames: by the demuxer for its content alone, which opens
    no other file. No frame is decoded.
    """
    import av  # noqa: PLC0415  FFmpeg takes 60 ms

    from indexer.media.ffmpeg import DEMUXERS, HEADER_ALONE, open_container  # noqa: PLC0415

    told: dict[str, str] = {}
    length: float | None = None
    with suppress(MediaError, av.FFmpegError, *_ERRORS), _opened(source) as file:
        media_type = sniff(file.read(SNIFF_BYTES))
        if media_type not in DEMUXERS:
            return {}
        with open_container(file, media_type, HEADER_ALONE) as container:
            for metadata in (container.metadata, *(stream.metadata for stream in container.streams.video)):
                for key, value in metadata.items():
                    told.setdefault(key.lower().removeprefix("com.apple.quicktime."), value)
            length = container.duration / av.time_base if container.duration is not None else None
    return _of_container(told, length)


def _of_container(told: dict[str, str], length: float | None) -> dict[str, Any]:
    def say(*names: str) -> Iterator[str]:
        return (told.get(name, "") for name in names)

    # Apple's date has the offset of the place; the container's own is in UTC.
    dates = say("creationdate", "creation_time", "date")
    moments = (values.moment(date) for date in dates if not date.startswith(_EPOCHS))
    texts = {
        "camera": values.camera(
            first(*say("make", "com.android.manufacturer")), first(*say("model", "com.android.model"))
        ),
        "title": first_caption(*say("title", "displayname")),
        "caption": first_caption(*say("description", "comment", "synopsis")),
        "creator": first(*say("artist", "author", "director")),
        "copyright": first(*say("copyright")),
        "software": first(*say("software")),
    }
    found: dict[str, Any] = next((known for known in moments if known), {})
    found |= {name: text for name, text in texts.items() if text}
    found |= values.iso_6709(first(*say("location.iso6709", "location", "location-eng")))
    if tags := values.tags(re.split("[,;]", told.get("keywords", "")[:_MAX_KEYWORDS])):
        found["tags"] = tags
    if length is not None and 0 < length < _LONGEST:
        found["duration"] = round(length, 3)
    return found


def describe_pdf(source: bytes | Path) -> dict[str, Any]:
    """What a PDF's information dictionary says: `title`, `creator` (its author), `caption` (its subject), `tags`.

    And `software`, and when it was made as `taken_at`, `year` and `month`, so that one field dates everything. Empty if
    it says nothing or cannot be opened; never raises.
    """
    import pypdfium2.raw as pdfium  # noqa: PLC0415  PDFium, for those who have PDFs

    from indexer.media import pages  # noqa: PLC0415

    told: dict[str, str] = {}
    with suppress(MediaError, *_ERRORS):
        with _opened(source) as file:
            if sniff(file.read(SNIFF_BYTES)) != "application/pdf":
                return {}
        with pages._LOCK:
            document = pages._opened(source, ends_early=False)
            try:
                for key in ("Title", "Author", "Subject", "Keywords", "Creator", "Producer", "CreationDate"):
                    told[key] = _pdf_text(pdfium, document, key)
            finally:
                document.close()
    texts = {
        "title": first_caption(told.get("Title")),
        "caption": first_caption(told.get("Subject")),
        "creator": first(told.get("Author")),
        "software": first(told.get("Creator"), told.get("Producer")),
    }
    found = values.moment(told.get("CreationDate", "")) | {name: text for name, text in texts.items() if text}
    if tags := values.tags(re.split("[,;]", told.get("Keywords", ""))):
        found["tags"] = tags
    return found


def _pdf_text(pdfium: Any, document: Any, key: str) -> str:
    name = key.encode() + b"\0"
    size = pdfium.FPDF_GetMetaText(document, name, None, 0)
    if not 2 < size <= _MAX_PDF_TEXT:
        return ""
    buffer = ctypes.create_string_buffer(size)
    pdfium.FPDF_GetMetaText(document, name, buffer, size)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")
