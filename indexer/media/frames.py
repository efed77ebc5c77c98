"""One file into its pictures: the frames of a video, the frames of an animation, the pages of a PDF.

They come one at a time, and one at a time is held. As for images, the type is told by content, and the pixel cap is
checked before a pixel is decoded.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from PIL import Image

from indexer.errors import EmptyFile, TooManyPixels, Unreadable, UnsupportedFormat
from indexer.media.decode import _check_end, _errors_of_pillow, _orientation, _rgb, _upright, decode, read_file
from indexer.media.formats import PILLOW_FORMATS, SEQUENCE_TYPES, SNIFF_BYTES, is_playlist, sniff
from indexer.settings import Settings

_TOLERANCE = 0.0005  # seconds; durations are in milliseconds
_MAX_THREADS = 4  # of a video's decoder; each holds frames of its own
_REMEDY = "Crosslens takes frames from MP4, MOV, MKV, WebM, AVI, MPEG-TS, GIF, WebP, PNG and PDF."


@dataclass(frozen=True)
class Frame:
    """One picture of a file."""

    image: Image.Image
    """RGB, upright."""
    index: int
    """Its place among those that are given, from 0."""
    seconds: float | None
    """From the start of a video or an animation; None for pages and for animations of one frame."""
    page: int | None
    """Of a PDF; 1 is the first."""
    width: int
    height: int
    """In pixels, as seen: after rotation and with square pixels; a page's as it was drawn."""
    text: str | None = None
    """A page's text, at most 4,000 characters; None if there is none."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is taken from one file, at most."""

    max_pixels: int = 100_000_000
    """Of one picture; larger ones are refused undecoded, pages drawn smaller."""
    max_bytes: int = 256 * 2**20
    """Of an animation, which is read whole. Videos and PDFs are read in part."""
    video_interval: float = 5.0
    """Seconds from frame to frame."""
    video_scenes: bool = False
    """Whether frames are taken where the scene changes, not by the clock."""
    video_frames: int = 200
    animation_frames: int = 16
    pdf_pages: int = 500
    threads: int = _MAX_THREADS
    """That decode one video."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As they are set."""
        return cls(
            max_pixels=settings.max_pixels,
            max_bytes=settings.max_bytes,
            video_interval=settings.video_interval,
            video_scenes=settings.video_scenes,
            video_frames=settings.video_frames,
            animation_frames=settings.animation_frames,
            pdf_pages=settings.pdf_pages,
            threads=min(settings.threads or os.cpu_count() or 1, _MAX_THREADS),
        )


def frames(
    data_or_path: bytes | Path, *, media_type: str | None = None, limits: Limits, target: int | None = None
) -> Iterator[Frame]:
    """The pictures of a video, an animation or a PDF, in order and one at a time.

    `media_type` is what `sniff` said of it; None has it sniffed here. `target` is the shortest side that will be used:
    a page is drawn at twice that (without one, at 144 dpi); other frames keep their size.

    An error may come after some frames: a file that ends early gives those before the cut, a PDF those of its pages
    that can be drawn.

    Raises:
        EmptyFile: it has no bytes.
        UnsupportedFormat: by content.
        NoVideo: a video file without a video stream, or without a picture in it.
        Encrypted: a PDF that opens with a password only.
        TooManyPixels: by the header, nothing was decoded.
        TooLarge: an animation of more bytes than the cap.
        Truncated: it ends before its last picture does.
        Unreadable: it cannot be opened or decoded for another reason.
    """
    with _opened(data_or_path) as file:
        head = file.read(SNIFF_BYTES)
        if not head:
            raise EmptyFile("The file is empty.")
        if is_playlist(head):
            raise UnsupportedFormat(
                "The content is a playlist, which names other files; they are not opened.",
                remedy="Ingest the files that it names.",
            )
        media_type = media_type or sniff(head)
        match SEQUENCE_TYPES.get(media_type or ""):
            case "video" if media_type:
                found = _of_video(file, media_type, limits)
            case "document":
                found = _of_pdf(data_or_path, limits, target)
            case "animation" if media_type:
                found = _of_animation(data_or_path, media_type, limits)
            case _:
                named = f"{media_type}, which has no frames to take" if media_type else "no video, animation or PDF"
                raise UnsupportedFormat(f"The content is {named}.", remedy=_REMEDY)
        yield from found


def frame_at(
    data_or_path: bytes | Path,
    *,
    seconds: float | None,
    page: int | None,
    media_type: str | None = None,
    limits: Limits,
    target: int | None = None,
) -> Image.Image:
    """The one picture that `frames` gave with these `seconds` or this `page`; without either, its first one.

    A video is gone to by seeking, of a PDF one page is drawn; of an animation the frames before it are, too. Of frames
    that an animation shows for no time, those of one moment, it is the first.

    Raises:
        Unreadable: there is no such frame or page; or as for `frames`, whose other errors are raised too.
    """
    with _opened(data_or_path) as file:
        media_type = media_type or sniff(file.read(SNIFF_BYTES))
        match SEQUENCE_TYPES.get(media_type or ""):
            case "video" if media_type:
                from indexer.media.video import picture_at  # noqa: PLC0415  FFmpeg takes 60 ms

                return picture_at(
                    file, media_type, seconds or 0.0, max_pixels=limits.max_pixels, threads=limits.threads
                )[0]
            case "document":
                from indexer.media.pages import page_at  # noqa: PLC0415  PDFium, for those who have PDFs

                return page_at(data_or_path, page or 1, target=target, max_pixels=limits.max_pixels).image
            case "animation" if media_type:
                return _of_animation_at(data_or_path, media_type, limits, seconds or 0.0)
            case _:
                raise UnsupportedFormat("The content is no video, animation or PDF.", remedy=_REMEDY)


def _opened(data_or_path: bytes | Path) -> BinaryIO:
    if isinstance(data_or_path, bytes):
        return io.BytesIO(data_or_path)
    try:
        if data_or_path.exists() and not data_or_path.is_file():  # a pipe would hang
            raise Unreadable("This is no regular file but a folder, pipe, socket or device.")
        return data_or_path.open("rb")
    except (OSError, ValueError) as error:
        raise Unreadable(f"The file cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _of_video(file: BinaryIO, media_type: str, limits: Limits) -> Iterator[Frame]:
    from indexer.media.video import pictures  # noqa: PLC0415  FFmpeg takes 60 ms

    found = pictures(
        file,
        media_type,
        interval=limits.video_interval,
        scenes=limits.video_scenes,
        most=limits.video_frames,
        max_pixels=limits.max_pixels,
        threads=limits.threads,
    )
    for index, (image, seconds) in enumerate(found):
        yield Frame(image, index, seconds, None, *image.size)


def _of_pdf(source: bytes | Path, limits: Limits, target: int | None) -> Iterator[Frame]:
    from indexer.media.pages import pages  # noqa: PLC0415  PDFium, for those who have PDFs

    found = pages(source, target=target, most=limits.pdf_pages, max_pixels=limits.max_pixels)
    for index, (image, number, text) in enumerate(found):
        yield Frame(image, index, None, number, *image.size, text)


def _of_animation(data_or_path: bytes | Path, media_type: str, limits: Limits) -> Iterator[Frame]:
    data = _animation(data_or_path, media_type, limits)
    given = 0
    with _errors_of_pillow():
        for number, count, seconds, opened in _drawn(data, media_type, limits):
            if count == 1:
                decoded = decode(data, max_pixels=limits.max_pixels)
                yield Frame(decoded.image, 0, None, None, decoded.width, decoded.height)
                return
            most = min(count, limits.animation_frames)
            if number == given * count // most:
                image = _upright(_rgb(opened), _orientation(opened))
                yield Frame(image, given, seconds, None, *image.size)
                given += 1
            if given == most:
                return


def _of_animation_at(data_or_path: bytes | Path, media_type: str, limits: Limits, time: float) -> Image.Image:
    data = _animation(data_or_path, media_type, limits)
    with _errors_of_pillow():
        for _number, count, seconds, opened in _drawn(data, media_type, limits):
            if count == 1:
                return decode(data, max_pixels=limits.max_pixels).image
            if seconds >= time - _TOLERANCE:
                return _upright(_rgb(opened), _orientation(opened))
    raise Unreadable(f"The animation has no frame at {time:.3f} s.")


def _animation(data_or_path: bytes | Path, media_type: str, limits: Limits) -> bytes:
    data = data_or_path if isinstance(data_or_path, bytes) else read_file(data_or_path, max_bytes=limits.max_bytes)
    _check_end(data, media_type)
    return data


def _drawn(data: bytes, media_type: str, limits: Limits) -> Iterator[tuple[int, int, float, Image.Image]]:
    """An animation's frames: number, of how many, seconds from the start, and the picture as Pillow has it now.

    Each is drawn over those before it, so that none can be passed over. It raises what Pillow does.
    """
    file = _WatchedGif(data, limits.max_pixels) if media_type == "image/gif" else io.BytesIO(data)
    with Image.open(file, formats=[PILLOW_FORMATS[media_type]]) as opened:
        _check_pixels(*opened.size, limits.max_pixels)
        count: int = getattr(opened, "n_frames", 1)
        seconds = 0.0
        for number in range(count):
            if count > 1:
                opened.seek(number)
                opened.load()  # after which WebP tells the duration
            yield number, count, seconds, opened
            seconds += float(opened.info.get("duration", 0)) / 1000


class _WatchedGif(io.BytesIO):
    """A GIF's content, refused where a frame widens the canvas beyond the cap: Pillow would allocate it at once."""

    def __init__(self, data: bytes, max_pixels: int) -> None:
        super().__init__(data)
        self._max_pixels = max_pixels
        self._width, self._height = struct.unpack_from("<2H", data.ljust(10, b"\0"), 6)
        self._before = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """What Pillow asks for: of a frame first the comma, then the nine bytes with its place and size."""
        data = super().read(size)
        if self._before == b"," and size == 9 and len(data) == 9:
            left, top, width, height = struct.unpack_from("<4H", data)
            self._width, self._height = max(self._width, left + width), max(self._height, top + height)
            _check_pixels(self._width, self._height, self._max_pixels)
        self._before = data
        return data


def _check_pixels(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise TooManyPixels(f"The animation declares {width:,} x {height:,} pixels; {most:,} is the cap.")
