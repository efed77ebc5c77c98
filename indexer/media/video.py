"""A video's frames, one at a time: by the clock or where the scene changes.

FFmpeg (through PyAV) gets the file's bytes and the one demuxer for the sniffed type: it guesses no format, and opens no
other file and no address. The pixel cap holds for what the header declares and for what the decoder would allocate.
Sound is not decoded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from typing import Any, BinaryIO, NoReturn

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import CrosslensError, NoVideo, TooManyPixels, Truncated, Unreadable, UnsupportedFormat
from indexer.media.decode import _upright
from indexer.media.formats import ends_early

SCENE_SECONDS = 1.0
"""The least time from one scene to the next."""
SCENE_CHANGE = 20.0
"""Grey levels (of 255) by which a scene differs from the one before, on average over a thumbnail."""

_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "video/x-matroska": "matroska",
    "video/webm": "matroska",
    "video/x-msvideo": "avi",
    "video/mp2t": "mpegts",
}
_THUMBNAIL = 32
_TOLERANCE = 0.001  # Matroska rounds times to milliseconds
_LEAST_MARGIN = 1.0  # seconds
_WORTH_A_SEEK = 2  # keyframe distances: nearer than that, decoding on is as fast
# No decoder runs but those without which MP4 has no size; they read their headers, which hold 13 bits for each side.
_HEADER_ALONE = {"codec_whitelist": "h261,h263,mpeg4", "skip_frame": "all"}
_FAR = 2**60  # beyond every timestamp
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: a cover, not a video
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720
_FAILURES = (
    av.FFmpegError, OSError, ValueError, RuntimeError, ArithmeticError, MemoryError, AssertionError, EOFError,
)  # fmt: skip
"""What a broken file may have PyAV raise."""
# swscale's threads are as many as there are cores unless told; before 17 it has none.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


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
    except _FAILURES as error:
        if not (early and isinstance(error, av.FFmpegError)):
            raise Unreadable(f"The video cannot be decoded: {_reason(error)}.") from error
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
    except _FAILURES as error:
        raise Unreadable(f"The video cannot be decoded: {_reason(error)}.") from error
    if found is None:
        raise Unreadable(f"The video has no frame at {seconds:.3f} s{source.damage and ': ' + source.damage}.")
    return found


class _Source:
    """A file that is gone through once or twice."""

    def __init__(self, file: BinaryIO, media_type: str, max_pixels: int, threads: int) -> None:
        self._file = file
        self._demuxer = _DEMUXERS[media_type]
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
    def _pass(self) -> Iterator[_Pass]:
        with self._opened(self._decoder_options) as container:
            stream = _picture_stream(container)
            width, height = stream.codec_context.width, stream.codec_context.height
            if not width or not height:  # some decoders clear what is over the cap
                place = self._file.tell()
                with self._opened(_HEADER_ALONE) as undecoded:
                    context = _picture_stream(undecoded).codec_context
                    width, height = context.width, context.height
                self._file.seek(place)
            _check_pixels(width, height, self._max_pixels)
            stream.codec_context.options = self._decoder_options
            stream.codec_context.thread_count = self._threads
            stream.codec_context.thread_type = "AUTO"
            video = _Pass(container, stream, self._max_pixels)
            try:
                yield video
            finally:
                self.damage = self.damage or video.damage
                self.broken_off = self.broken_off or video.broken_off

    def _opened(self, options: dict[str, str]) -> InputContainer:
        self._file.seek(0)
        return av.open(
            self._file, "r", format=self._demuxer, options=options, metadata_errors="replace", io_open=_refuse
        )


class _Pass:
    """One way through a video, forward."""

    def __init__(self, container: InputContainer, stream: av.VideoStream, max_pixels: int) -> None:
        self.container = container
        self.stream = stream
        self.damage = ""
        self.broken_off = False
        self._max_pixels = max_pixels
        self._unit = stream.time_base or Fraction(1, av.time_base)
        start = container.start_time
        self._start = start / av.time_base if start is not None else float((stream.start_time or 0) * self._unit)
        self._seconds = 0.0
        self._key_seconds: float | None = None
        self._key_distance = 0.0
        self._margin = 0.0
        self._colour, self._grey = VideoReformatter(), VideoReformatter()

    @property
    def length(self) -> float | None:
        """Seconds, as the header says; None if it does not."""
        if self.stream.duration is not None and self.stream.duration > 0:
            return float(self.stream.duration * self._unit)
        whole = self.container.duration
        return whole / av.time_base if whole is not None and whole > 0 else None

    def end_of(self, packet: av.Packet[av.VideoStream]) -> float | None:
        """Seconds from the start at which a packet's frame ends; None if it does not say."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        return None if stamp is None else float((stamp + (packet.duration or 0)) * self._unit) - self._start

    def packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        """The stream's packets from here on; those after damage to the container are missing."""
        try:
            yield from self.container.demux(self.stream)
        except av.FFmpegError as error:
            self.broken_off, self.damage = True, _reason(error)
        except IndexError:
            return  # PyAV's, at the end, where a stream appeared on the way

    def frames(self) -> Generator[tuple[av.VideoFrame, float]]:
        """The frames from here on with their seconds; those that cannot be decoded are missing."""
        for packet in chain(self.packets(), (None,)):  # None has the decoder give what it still holds
            if packet is not None and packet.is_keyframe and packet.pts is not None:
                key = float(packet.pts * self._unit)
                if self._key_seconds is not None:
                    self._key_distance = max(self._key_distance, key - self._key_seconds)
                self._key_seconds = key
            try:
                decoded = self.stream.codec_context.decode(packet)
            except EOFError:  # it gave all
                continue
            except av.FFmpegError as error:
                self.damage = _reason(error)
                continue
            for frame in decoded:
                _check_pixels(frame.width, frame.height, self._max_pixels)  # the size may change on the way
                if not frame.is_corrupt:
                    yield frame, self._seconds_of(frame)

    def at(self, times: Iterable[float]) -> Iterator[tuple[Image.Image, float]]:
        """For each of the rising times the first frame at or after it, unless that was given already."""
        frames, here = self.frames(), -math.inf
        for time in times:
            if here >= time - _TOLERANCE:
                continue
            # Before two keyframes were seen, a seek might lead back to where this began.
            if self._key_distance and time - here > _WORTH_A_SEEK * max(self._key_distance, self._margin):
                frames.close()
                frames = self._from_before(time)
            for frame, seconds in frames:
                if seconds >= time - _TOLERANCE:
                    here = seconds
                    yield self.picture(frame), seconds
                    break
            else:
                return

    def first_from(self, time: float) -> tuple[Image.Image, float] | None:
        """The first frame at or after a time, by a seek; None if that does not lead to one before it."""
        is_behind = True
        for frame, seconds in self._from_before(time):
            if seconds >= time - _TOLERANCE:
                # An earlier one that the seek passed over might be at or after the time as well.
                return (self.picture(frame), seconds) if seconds <= time + _TOLERANCE or not is_behind else None
            is_behind = False
        return None

    def scenes(self) -> Iterator[tuple[av.VideoFrame, float]]:
        """The first frame, and each that differs from the last one given; not sooner than `SCENE_SECONDS` after it."""
        kept: NDArray[np.int16] | None = None
        since = 0.0
        for frame, seconds in self.frames():
            if kept is not None and seconds - since < SCENE_SECONDS - _TOLERANCE:
                continue
            small = self._grey.reformat(frame, _THUMBNAIL, _THUMBNAIL, "gray", interpolation="AREA", **_ONE_THREAD)
            thumbnail = small.to_ndarray().astype(np.int16)
            if kept is None or np.abs(thumbnail - kept).mean() > SCENE_CHANGE:
                kept, since = thumbnail, seconds
                yield frame, seconds

    def picture(self, frame: av.VideoFrame) -> Image.Image:
        """A frame in RGB, with square pixels, upright."""
        width, height = frame.width, frame.height
        aspect = self.stream.sample_aspect_ratio
        if aspect and 1 / 8 <= aspect <= 8:
            width, height = max(width, round(width * aspect)), max(height, round(height / aspect))
        _check_pixels(width, height, self._max_pixels)
        # What does not say is BT.709 if it is HD, and else BT.601, which swscale assumes.
        unsaid = frame.colorspace == _UNSPECIFIED and frame.height >= _HD_LINES and not frame.format.is_rgb
        matrix = Colorspace.ITU709 if unsaid else None
        rgb = self._colour.reformat(frame, width, height, "rgb24", src_colorspace=matrix, **_ONE_THREAD)
        image: Image.Image = rgb.to_image()  # type: ignore[no-untyped-call]
        return _upright(image, _orientation(frame))

    def _from_before(self, time: float) -> Generator[tuple[av.VideoFrame, float]]:
        """The frames from a keyframe at or before a time on."""
        while True:
            # MPEG-TS has no index: a seek leads to any packet, and the next keyframe may lie past the time.
            target = max(0.0, time - self._margin)
            self._key_seconds = None
            try:
                self.container.seek(int((target + self._start) / self._unit), stream=self.stream)
            except av.FFmpegError as error:
                self.damage = _reason(error)  # it goes on from where it is
            frames = self.frames()
            first = next(frames, None)
            if not target or (first is not None and first[1] <= time + _TOLERANCE):
                break
            self._margin = 2 * max(self._margin, self._key_distance, _LEAST_MARGIN)
        if first is not None:
            yield first
        yield from frames

    def _seconds_of(self, frame: av.VideoFrame) -> float:
        if frame.pts is not None and frame.time_base:
            self._seconds = max(0.0, float(frame.pts * frame.time_base) - self._start)
        else:
            self._seconds += 1 / float(self.stream.average_rate or 25)
        return self._seconds


def _picture_stream(container: InputContainer) -> av.VideoStream:
    for stream in container.streams.video:
        disposition = getattr(stream, "disposition", None)  # PyAV 14 does not tell
        if disposition is not None and disposition.value & _ATTACHED_PICTURE:
            continue
        if stream.codec_context is None:
            raise UnsupportedFormat("The video's codec is not read.", remedy="Convert it to H.264 in MP4.")
        return stream
    raise NoVideo("The file has no video stream.")


def _check_pixels(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise TooManyPixels(f"The video declares {width:,} x {height:,} pixels; {most:,} is the cap.")


def _orientation(frame: av.VideoFrame) -> int:
    """What the display matrix does to a frame, to the next quarter turn, in EXIF's numbers; 1 if there is none."""
    side_data: Any = frame.side_data  # PyAV's stubs know one kind of it alone
    if "DISPLAYMATRIX" not in side_data:
        return 1
    # x' = a x + c y, y' = b x + d y; y points down.
    a, b, _u, c, d = struct.unpack_from("=5i", bytes(side_data["DISPLAYMATRIX"]))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(True, True): 1, (False, True): 2, (False, False): 3, (True, False): 4}[a >= 0, d >= 0]
    return {(True, True): 5, (True, False): 6, (False, False): 7, (False, True): 8}[b >= 0, c >= 0]


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:200] or type(error).__name__


def _refuse(*_: object) -> NoReturn:
    raise PermissionError("A video may not open other files.")
