"""FFmpeg, through PyAV, kept to one file: it gets the bytes and the one demuxer for their type.

It guesses no format, and opens no other file and no address.
"""

from __future__ import annotations

from typing import BinaryIO, NoReturn

import av
from av.container import InputContainer

from indexer.errors import NoVideo, UnsupportedFormat

DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/x-matroska": "matroska",
    "video/webm": "matroska",
    "video/x-msvideo": "avi",
    "video/mp2t": "mpegts",
}
"""By media type."""
# No decoder runs but those without which MP4 has no size; they read their headers, which hold 13 bits for each side.
HEADER_ALONE = {"codec_whitelist": "h261,h263,mpeg4", "skip_frame": "all"}
"""Options by which no frame is decoded."""
FAILURES = (
    av.FFmpegError, OSError, ValueError, RuntimeError, ArithmeticError, MemoryError, AssertionError, EOFError,
)  # fmt: skip
"""What a broken file may have PyAV raise."""

_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: a cover, not a video


def open_container(file: BinaryIO, media_type: str, options: dict[str, str]) -> InputContainer:
    """A file from its beginning, by the demuxer for its type, which is one of `DEMUXERS`; close it after use.

    Raises:
        FAILURES: it cannot be opened.
    """
    file.seek(0)
    return av.open(file, "r", format=DEMUXERS[media_type], options=options, metadata_errors="replace", io_open=_refuse)


def picture_stream(container: InputContainer) -> av.VideoStream:
    """The first stream that is a video.

    Raises:
        NoVideo: there is none.
        UnsupportedFormat: its codec is not read.
    """
    for stream in container.streams.video:
        disposition = getattr(stream, "disposition", None)  # PyAV 14 does not tell
        if disposition is not None and disposition.value & _ATTACHED_PICTURE:
            continue
        if stream.codec_context is None:
            raise UnsupportedFormat("The video's codec is not read.", remedy="Convert it to H.264 in MP4.")
        return stream
    raise NoVideo("The file has no video stream.")


def reason(error: Exception) -> str:
    """What FFmpeg or PyAV says is wrong, in short."""
    return str(getattr(error, "strerror", None) or error)[:200] or type(error).__name__


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("A video may not open other files.")
