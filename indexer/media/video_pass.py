"""One way through a video, forward: its frames with their times, reached by seeking, and as pictures."""

from __future__ import annotations

import math
import struct
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import TooManyPixels
from indexer.media.decode import _upright
from indexer.media.ffmpeg import reason

SCENE_SECONDS = 1.0
"""The least time from one scene to the next."""
SCENE_CHANGE = 20.0
"""Grey levels (of 255) by which a scene differs from the one before, on average over a thumbnail."""

_THUMBNAIL = 32
_TOLERANCE = 0.001  # Matroska rounds times to milliseconds
_LEAST_MARGIN = 1.0  # seconds
_WORTH_A_SEEK = 2  # keyframe distances: nearer than that, decoding on is as fast
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720
# swscale's threads are as many as there are cores unless told; before 17 it has none.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class Pass:
    """One way through a video's stream; what is damaged is passed over, and `damage` says what that was."""

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
            self.broken_off, self.damage = True, reason(error)
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
                self.damage = reason(error)
                continue
            for frame in decoded:
                check_pixels(frame.width, frame.height, self._max_pixels)  # the size may change on the way
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
        check_pixels(width, height, self._max_pixels)
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
                self.damage = reason(error)  # it goes on from where it is
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


def check_pixels(width: int, height: int, most: int) -> None:
    """Refuse what is over the cap.

    Raises:
        TooManyPixels: it is.
    """
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
