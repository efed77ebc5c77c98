"""A video's frames, one at a time: by the clock or where the scene changes.

The pixel cap holds for what the header declares and for what the decoder would allocate. Sound is not decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO

import av
from PIL import Image

from indexer.errors import CrosslensError, NoVideo, Truncated, Unreadable
from indexer.media.ffmpeg import FAILURES, HEADER_ALONE, open_container, picture_stream, reason
from indexer.media.formats import ends_early
from indexer.media.video_pass import SCENE_SECONDS, Pass, check_pixels

_FAR = 2**60  # beyond every timestamp


def pictures(
    file: BinaryIO, media_type: str, *, interval: float, scenes: bool, most: int, max_pixels: int, threads: int
) -> Iterator[tuple[Image.Image, float]]:
    """A video's frames as upright RGB images, each with its seconds from the start; in order, at most `most`.

    By the clock: the first frame at or after every `interval` seconds; a frame that lasts longer is given once. Far
    ones are reached by seeking. By scenes: the first frame, and then each that differs from the last one given. Where
    there would be more than `most`, those that are given are spread evenly.

    Raises:
        NoVideo: it has no video stream, or that has no picture.
        TooManyPixels: by the header, nothing was decoded.
        Truncated: it ends early; raised after the frames before the cut.
        UnsupportedFormat: its codec is not read.
        Unreadable: it cannot be decoded for another reason, or is damaged; raised after the frames before the damage.
    """
    early, source = False, _Source(file, media_type, max_pixels, threads)
    given, end = 0, 0.0
    try:
        early = ends_early(file, media_type)
        for image, end in source.by_scene(most) if scenes else source.by_clock(interval, most):
            given += 1
            yield image, end
    except CrosslensError as error:
        if not (early and isinstance(error, NoVideo)):
            raise
    except FAILURES as error:
        if not (early and isinstance(error, av.FFmpegError)):
            raise Unreadable(f"The video cannot be decoded: {reason(error)}.") from error
    if early:
        raise Truncated(f"The video ends early; {given} frames, up to {end:.1f} s, were read before the cut.")
    if source.broken_off and given:
        raise Unreadable(f"The video is damaged after {end:.1f} s.")
    if source.damage and not given:
        raise Unreadable(f"No frame of the video can be decoded: {source.damage}.")
    if not given:
        raise NoVideo("The file's video stream has no picture.")


def picture_at(
    file: BinaryIO, media_type: str, seconds: float, *, max_pixels: int, threads: int
) -> tuple[Image.Image, float]:
    """The first frame at or after a time, as `pictures` gave it, and its seconds; it is reached by seeking.

    Raises:
        NoVideo, TooManyPixels, UnsupportedFormat: as for `pictures`.
        Unreadable: there is no such frame, or it cannot be decoded.
    """
    source = _Source(file, media_type, max_pixels, threads)
    try:
        found = source.at(seconds)
    except FAILURES as error:
        raise Unreadable(f"The video cannot be decoded: {reason(error)}.") from error
    if found is None:
        raise Unreadable(f"The video has no frame at {seconds:.3f} s{source.damage and ': ' + source.damage}.")
    return found


class _Source:
    """A file that is gone through once or twice."""

    def __init__(self, file: BinaryIO, media_type: str, max_pixels: int, threads: int) -> None:
        self._file = file
        self._media_type = media_type
        self._max_pixels = max_pixels
        self._threads = threads
        # A decoder counts what it adds to align the sides, too; the cap itself is checked on frames.
        self._decoder_options = {"max_pixels": str(2 * max_pixels + 2**17)}
        self.damage = ""
        self.broken_off = False

    def by_clock(self, interval: float, most: int) -> Iterator[tuple[Image.Image, float]]:
        with self._pass() as video:
            length = video.length
            if length is not None and length / interval <= most:
                yield from video.at(interval * count for count in range(most))
                return
        # A header may leave the length out or lie; then all frames would be from the first minutes, or just one given.
        length = min((known for known in (length, self._measured()) if known is not None), default=0.0)
        step = max(interval, length / most)
        with self._pass() as video:
            yield from video.at(step * count for count in range(most))

    def at(self, seconds: float) -> tuple[Image.Image, float] | None:
        """The first frame at or after a time: after a seek, or where that leads nowhere, after all before it."""
        with self._pass() as video:
            found = video.first_from(seconds)
        if found is None:
            with self._pass() as video:
                found = next(video.at([seconds]), None)
        return found

    def by_scene(self, most: int) -> Iterator[tuple[Image.Image, float]]:
        with self._pass() as video:
            if video.length is not None and video.length / SCENE_SECONDS <= most:
                yield from islice(((video.picture(frame), seconds) for frame, seconds in video.scenes()), most)
                return
            times = [seconds for _frame, seconds in video.scenes()]
        if len(times) > most:
            times = [times[count * len(times) // most] for count in range(most)]
        with self._pass() as video:
            yield from video.at(times)

    def _measured(self) -> float | None:
        """Where the last frame ends, by the packets: after the last keyframe if that is found, else of the file."""
        for from_the_end in (True, False):
            with self._pass() as video:
                try:
                    if from_the_end:
                        video.container.seek(_FAR, stream=video.stream)
                except av.FFmpegError:
                    continue
                end = max(
                    (seconds for seconds in map(video.end_of, video.packets()) if seconds is not None), default=None
                )
                if end is not None:
                    return end
        return None

    @contextmanager
    def _pass(self) -> Iterator[Pass]:
        with open_container(self._file, self._media_type, self._decoder_options) as container:
            stream = picture_stream(container)
            width, height = stream.codec_context.width, stream.codec_context.height
            if not width or not height:  # some decoders clear what is over the cap
                place = self._file.tell()
                with open_container(self._file, self._media_type, HEADER_ALONE) as undecoded:
                    context = picture_stream(undecoded).codec_context
                    width, height = context.width, context.height
                self._file.seek(place)
            check_pixels(width, height, self._max_pixels)
            stream.codec_context.options = self._decoder_options
            stream.codec_context.thread_count = self._threads
            stream.codec_context.thread_type = "AUTO"
            video = Pass(container, stream, self._max_pixels)
            try:
                yield video
            finally:
                self.damage = self.damage or video.damage
                self.broken_off = self.broken_off or video.broken_off
