"""One file into several pictures: videos, animations and PDFs, whole, broken and hostile."""

import functools
import hashlib
import io
import socket
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pypdfium2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from indexer.errors import (
    CrosslensError,
    EmptyFile,
    Encrypted,
    NoVideo,
    TooLarge,
    TooManyPixels,
    Truncated,
    Unreadable,
    UnsupportedFormat,
)
from indexer.media import video
from indexer.media.decode import decode
from indexer.media.ffmpeg import DEMUXERS
from indexer.media.formats import SEQUENCE_TYPES, SNIFF_BYTES, sniff
from indexer.media.frames import Frame, Limits, frames
from indexer.media.video_pass import SCENE_SECONDS, Pass
from indexer.settings import Settings
from tests.hostile import FORMATS, huge_png, photo

RATE = 10
SIZE = (64, 48)
# PyAV's name of the muxer, an encoder for it, and what the file is sniffed as.
CONTAINERS = {
    "mp4": ("mp4", "libx264", "video/mp4"),
    "mp4 mpeg4": ("mp4", "mpeg4", "video/mp4"),
    "mov": ("mov", "mpeg4", "video/quicktime"),
    "mkv": ("matroska", "libx264", "video/x-matroska"),
    "webm": ("webm", "libvpx-vp9", "video/webm"),
    "avi": ("avi", "mpeg4", "video/x-msvideo"),
    "ts": ("mpegts", "libx264", "video/mp2t"),
    "ts mpeg2": ("mpegts", "mpeg2video", "video/mp2t"),
}
each_container = pytest.mark.parametrize("name", CONTAINERS)


def grey(level: int, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def numbered(count: int) -> list[Image.Image]:
    """Pictures that tell their number even after lossy coding: its bits as bars."""
    pictures = []
    for number in range(count):
        bits = np.array([255 * (number >> bit & 1) for bit in range(8)], dtype=np.uint8)
        pictures.append(Image.fromarray(np.tile(bits.repeat(SIZE[0] // 8), (SIZE[1], 1))).convert("RGB"))
    return pictures


def number_of(image: Image.Image) -> int:
    middles = np.asarray(image.convert("L"))[SIZE[1] // 2, SIZE[0] // 16 :: SIZE[0] // 8]
    return sum(1 << bit for bit in range(8) if middles[bit] > 127)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


class Pipe(io.RawIOBase):
    """What a muxer cannot seek in, as when it streams live."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.content += data
        return len(data)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def encoded(
    name: str,
    pictures: Iterable[Image.Image],
    *,
    times: list[float] | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    live: bool = False,
    aspect: Fraction | None = None,
    colorspace: int | None = None,
) -> bytes:
    form, codec, _media_type = CONTAINERS[name]
    pipe, file = Pipe(), io.BytesIO()
    with av.open(pipe if live else file, "w", format=form, options=muxer or {}) as container:
        # AVI has no presentation times, so that frames that are reordered would be a frame late.
        chosen = {"g": "12", "bf": "0" if name == "avi" else "2", **(options or {})}
        if codec == "libvpx-vp9":
            chosen.pop("bf")
        stream = container.add_stream(codec, rate=RATE, options=chosen)
        if codec.startswith("mpeg"):
            stream.bit_rate = 4_000_000
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, RATE)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, picture in enumerate(pictures):
            if not number:
                stream.width, stream.height = picture.size
            frame = av.VideoFrame.from_image(picture)
            if colorspace is not None:
                frame = frame.reformat(format="yuv420p", dst_colorspace=colorspace)
                frame.colorspace = 2
            frame.pts, frame.time_base = (
                (round(1000 * times[number]), Fraction(1, 1000)) if times else (number, Fraction(1, RATE))
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return bytes(pipe.content) if live else file.getvalue()


def with_index_first(data: bytes) -> bytes:
    """An MP4 whose `moov` is moved before its `mdat`, as for the web."""
    boxes, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        boxes.append(data[at : at + size])
        at += size
    index = bytearray(next(box for box in boxes if box[4:8] == b"moov"))
    place = index.index(b"stco") + 8
    for entry in range(int.from_bytes(index[place : place + 4], "big")):
        [offset] = struct.unpack_from(">I", index, place + 4 + 4 * entry)
        struct.pack_into(">I", index, place + 4 + 4 * entry, offset + len(index))
    return boxes[0] + bytes(index) + b"".join(box for box in boxes[1:] if box[4:8] != b"moov")


def sound(form: str = "mp4") -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("mp2" if form == "mpegts" else "aac", rate=44100)
        samples = np.zeros((1, 1152 * 20), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 44100
        for part in av.AudioResampler(
            "s16" if form == "mpegts" else "fltp", "mono", 44100, frame_size=stream.codec_context.frame_size or 1024
        ).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return file.getvalue()


def limits(**options: object) -> Limits:
    return Limits(**{"max_pixels": 10**6, "video_interval": 5.0, "threads": 2, **options})


def taken(data: bytes | Path, **options: object) -> list[Frame]:
    target = options.pop("target", None)
    return list(frames(data, limits=limits(**options), target=target))


def until_error(data: bytes, **options: object) -> tuple[list[Frame], CrosslensError]:
    found: list[Frame] = []
    with pytest.raises(CrosslensError) as caught:
        for frame in frames(data, limits=limits(**options)):
            found.append(frame)
    return found, caught.value


def seconds_of(found: list[Frame]) -> list[float | None]:
    return [None if frame.seconds is None else round(frame.seconds, 2) for frame in found]


# What the display matrix is for each of EXIF's orientations: a, b, c, d.
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


class TestVideo:
    @each_container
    def test_by_the_clock(self, name: str) -> None:
        data = encoded(name, numbered(120))
        assert sniff(data[:SNIFF_BYTES]) == CONTAINERS[name][2]
        found = taken(data)
        assert seconds_of(found) == [0, 5, 10]
        assert [number_of(frame.image) for frame in found] == [0, 50, 100]
        assert [frame.index for frame in found] == [0, 1, 2]
        assert {(frame.image.size, frame.width, frame.height, frame.image.mode) for frame in found} == {
            (SIZE, *SIZE, "RGB")
        }
        assert {(frame.page, frame.text) for frame in found} == {(None, None)}

    @each_container
    @pytest.mark.parametrize("interval", [0.25, 0.7, 1.9, 4.1])
    def test_seeking_gives_what_decoding_everything_gives(self, name: str, interval: float) -> None:
        data = encoded(name, numbered(120))
        wanted = [number for number in range(120) if (number / RATE) // interval != ((number - 1) / RATE) // interval]
        assert [number_of(frame.image) for frame in taken(data, video_interval=interval)] == wanted

    def test_long_intervals_do_not_read_everything(self) -> None:
        class Counting(io.BytesIO):
            count = 0

            def read(self, size: int | None = -1) -> bytes:
                data = super().read(size)
                self.count += len(data)
                return data

        data = encoded("avi", (noise(seed) for seed in range(600)), options={"g": "10", "b": "4000000"})
        file = Counting(data)
        found = list(
            video.pictures(file, "video/x-msvideo", interval=20, scenes=False, most=9, max_pixels=10**6, threads=1)
        )
        assert [seconds for _image, seconds in found] == [0, 20, 40]
        assert len(data) > 2_000_000
        assert file.count < len(data) / 2

    @pytest.mark.parametrize("name", ["mp4", "mkv", "webm", "mov"])
    def test_variable_frame_rate(self, name: str) -> None:
        times = [0, 0.1, 7, 7.1, 20, 21]
        found = taken(encoded(name, numbered(len(times)), times=times))
        assert seconds_of(found) == [0, 7, 20]
        assert [number_of(frame.image) for frame in found] == [0, 2, 4]

    @each_container
    def test_more_than_the_cap_are_spread_over_the_duration(self, name: str) -> None:
        data = encoded(name, numbered(120))
        assert seconds_of(taken(data, video_interval=1, video_frames=4)) == [0, 3, 6, 9]
        assert len(taken(data, video_interval=1, video_frames=12)) == 12
        assert seconds_of(taken(data, video_interval=0.01, video_frames=1)) == [0]

    @pytest.mark.parametrize("name", ["mkv", "webm"])
    def test_a_missing_duration(self, name: str) -> None:
        data = encoded(name, numbered(120), live=True, muxer={"live": "1"})
        with av.open(io.BytesIO(data)) as container:
            assert container.duration is None
        assert seconds_of(taken(data)) == [0, 5, 10]
        assert seconds_of(taken(data, video_interval=1, video_frames=4)) == [0, 3, 6, 9]

    @pytest.mark.parametrize("lie", [1e12, 86_400_000.0])
    def test_a_duration_that_is_too_long(self, lie: float) -> None:
        data = encoded("mkv", numbered(120))
        place = data.index(b"\x44\x89\x88") + 3
        assert struct.unpack(">d", data[place : place + 8])[0] == 12_000
        data = data[:place] + struct.pack(">d", lie) + data[place + 8 :]
        assert seconds_of(taken(data, video_frames=4)) == [0, 5, 10]

    def test_a_duration_that_is_too_short(self) -> None:
        data = encoded("mkv", numbered(120))
        place = data.index(b"\x44\x89\x88") + 3
        data = data[:place] + struct.pack(">d", 1.0) + data[place + 8 :]
        assert seconds_of(taken(data)) == [0, 5, 10]

    def test_time_begins_with_the_video(self) -> None:
        times = [number / RATE + 3600 for number in range(60)]
        for name in ("mkv", "ts"):
            assert seconds_of(taken(encoded(name, numbered(60), times=times), video_interval=2)) == [0, 2, 4]

    @each_container
    def test_one_frame(self, name: str) -> None:
        [frame] = taken(encoded(name, numbered(2)[1:]))
        assert (frame.index, frame.seconds, number_of(frame.image)) == (0, 0, 1)

    def test_it_is_lazy(self) -> None:
        data = encoded("mkv", numbered(60))
        found = frames(data[: len(data) * 9 // 10], limits=limits(video_interval=1))
        assert next(found).index == 0
        found.close()  # type: ignore[attr-defined]

    def test_a_path_is_read_as_bytes_are(self, tmp_path: Path) -> None:
        path = tmp_path / "clip.jpg"
        path.write_bytes(encoded("mp4", numbered(60)))
        assert seconds_of(taken(path, video_interval=2)) == [0, 2, 4]

    @pytest.mark.parametrize("orientation", MATRICES)
    def test_rotation_is_applied(self, orientation: int) -> None:
        picture = Image.open(io.BytesIO(photo(1, SIZE, "PNG"))).convert("RGB")
        data = bytearray(encoded("mp4", [picture], options={"qp": "0"}))
        a, b, c, d = MATRICES[orientation]
        place = data.index(b"tkhd") + 44
        struct.pack_into(">9i", data, place, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        [frame] = taken(bytes(data))
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        picture.save(file, "PNG", exif=exif)
        upright = decode(file.getvalue(), max_pixels=10**6)
        assert (frame.width, frame.height) == (upright.width, upright.height) == frame.image.size
        assert np.abs(np.asarray(frame.image, float) - np.asarray(upright.image, float)).mean() < 6

    def test_pixels_become_square(self) -> None:
        data = encoded("mp4", [grey(100)], aspect=Fraction(2, 1))
        [frame] = taken(data)
        assert frame.image.size == (frame.width, frame.height) == (128, 48)
        [frame] = taken(encoded("mp4", [grey(100)], aspect=Fraction(1, 2)))
        assert frame.image.size == (64, 96)
        with pytest.raises(TooManyPixels, match="128 x 48"):
            taken(data, max_pixels=128 * 48 - 1)

    @pytest.mark.parametrize(("size", "matrix"), [((320, 240), 5), ((1280, 720), 1)])
    def test_colours_that_are_not_declared_are_those_of_the_size(self, size: tuple[int, int], matrix: int) -> None:
        data = encoded("mp4", [Image.new("RGB", size, (200, 40, 90))], colorspace=matrix, options={"qp": "0"})
        [frame] = taken(data)
        assert np.abs(np.asarray(frame.image, float) - [200, 40, 90]).max() < 6

    def test_a_cover_is_no_video(self) -> None:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("mjpeg", rate=1)
            stream.width, stream.height = SIZE
            stream.pix_fmt = "yuvj420p"
            stream.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_image(grey(9))
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        with av.open(io.BytesIO(file.getvalue())) as container:
            assert container.streams.video[0].disposition & av.stream.Disposition.attached_pic
        with pytest.raises(NoVideo):
            taken(file.getvalue())

    @pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts"])
    def test_sound_alone_is_no_video(self, form: str) -> None:
        with pytest.raises(NoVideo) as caught:
            taken(sound(form))
        assert caught.value.code == "no_video"


class TestScenes:
    @staticmethod
    def cuts(times: list[float], count: int = 120) -> Iterator[Image.Image]:
        """A picture for each tenth of a second, another from each of the times on."""
        for number in range(count):
            scene = sum(number / RATE >= time for time in times)
            yield Image.open(io.BytesIO(photo(100 + scene, SIZE, "PNG")))

    @each_container
    def test_frames_where_the_scene_changes(self, name: str) -> None:
        found = taken(encoded(name, self.cuts([2.5, 6, 9.9])), video_scenes=True)
        assert seconds_of(found) == [0, 2.5, 6, 9.9]
        for scene, frame in enumerate(found):
            picture = Image.open(io.BytesIO(photo(100 + scene, SIZE, "PNG")))
            assert np.abs(np.asarray(frame.image, float) - np.asarray(picture, float)).mean() < 20

    def test_one_scene_is_one_frame(self) -> None:
        assert seconds_of(taken(encoded("mp4", self.cuts([])), video_scenes=True)) == [0]

    def test_a_slight_change_is_no_scene(self) -> None:
        pictures = [grey(100 if number < 50 else 115) for number in range(100)]
        assert seconds_of(taken(encoded("mp4", pictures), video_scenes=True)) == [0]

    def test_scenes_keep_their_distance(self) -> None:
        flicker = [grey(255 * (number % 2)) for number in range(60)]
        found = taken(encoded("mp4", flicker), video_scenes=True)
        gaps = np.diff([frame.seconds for frame in found])
        assert len(found) >= 5
        assert gaps.min() >= SCENE_SECONDS - 0.01

    @pytest.mark.parametrize("name", ["mp4", "webm"])
    def test_more_scenes_than_the_cap_are_spread(self, name: str) -> None:
        data = encoded(name, self.cuts([1.5, 3, 4.5, 6, 7.5, 9, 10.5]))
        assert seconds_of(taken(data, video_scenes=True, video_frames=4)) == [0, 3, 6, 9]
        assert seconds_of(taken(data, video_scenes=True, video_frames=8)) == [0, 1.5, 3, 4.5, 6, 7.5, 9, 10.5]


PLAYLISTS = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "\ufeff\n#EXTM3U\n#EXTINF:10,\n{url}\n",
    "ffconcat version 1.0\nfile {url}\n",
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
    "<SmoothStreamingMedia MajorVersion='2'></SmoothStreamingMedia>",
    "[playlist]\nFile1={url}\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
)


class TestBrokenVideo:
    @pytest.mark.parametrize("name", [*CONTAINERS, "mp4 fragments"])
    def test_what_ends_early_gives_the_frames_before_the_cut(self, name: str) -> None:
        if name.endswith("fragments"):
            data = encoded("mp4", numbered(120), muxer={"movflags": "frag_keyframe+empty_moov"})
        else:
            data = encoded(name, numbered(120))
            data = with_index_first(data) if CONTAINERS[name][0] in {"mp4", "mov"} else data
        found, error = until_error(data[: len(data) * 6 // 10 - 1], video_interval=1)
        assert isinstance(error, Truncated)
        assert len(found) > 2
        numbers = [number_of(frame.image) for frame in found]
        wanted = [RATE * place for place in range(len(found))]
        assert numbers[:-1] == wanted[:-1]
        assert 0 <= numbers[-1] - wanted[-1] <= 2  # the frames just before may come after it, and be cut

    def test_what_ends_before_its_index(self) -> None:
        data = encoded("mp4", numbered(30))
        assert data.index(b"mdat") < data.index(b"moov")
        for share in (0.2, 0.6, 0.95):
            found, error = until_error(data[: int(len(data) * share)])
            assert (found, error.code) == ([], "truncated")

    @each_container
    def test_damage_inside_gives_the_rest(self, name: str) -> None:
        data = encoded(name, numbered(120))
        data = bytearray(with_index_first(data) if CONTAINERS[name][0] in {"mp4", "mov"} else data)
        middle = len(data) // 2
        data[middle : middle + 40] = bytes(40)
        found: list[Frame] = []
        try:
            found.extend(frames(bytes(data), limits=limits(video_interval=1)))
        except CrosslensError:
            return
        assert len(found) > 3

    @each_container
    def test_the_cap_is_checked_before_a_frame_is_decoded(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        data = encoded(name, [Image.open(io.BytesIO(photo(3, (640, 480), "PNG")))] * 3)
        assert len(taken(data, max_pixels=640 * 480)) == 1
        monkeypatch.setattr(Pass, "frames", None)
        with pytest.raises(TooManyPixels, match="640 x 480"):
            taken(data, max_pixels=640 * 480 - 1)
        with pytest.raises(TooManyPixels, match="640 x 480"):  # far beyond, the decoder refuses too
            taken(data, max_pixels=10)

    @pytest.mark.parametrize("name", ["mp4", "mp4 mpeg4", "mkv"])
    def test_a_header_that_declares_too_much(self, name: str) -> None:
        data = bytearray(encoded(name, numbered(3)))
        if name == "mkv":
            place = data.index(b"\xb0\x81\x40\xba\x81\x30")
            data[place : place + 6] = b"\xb0\x81\xff\xba\x81\xff"
            cap = 255 * 255 - 1
        else:
            place = data.index(b"avc1" if name == "mp4" else b"mp4v", data.index(b"stsd")) + 28
            struct.pack_into(">2H", data, place, 60_000, 60_000)
            cap = 10**8
        try:
            [frame] = taken(bytes(data), max_pixels=cap)
        except TooManyPixels:
            return
        assert frame.height == SIZE[1]  # what the stream itself says outranks the container

    def test_a_size_that_grows_on_the_way(self) -> None:
        small, large = encoded("ts", numbered(30)), encoded("ts", [grey(9, (400, 300))] * 30)
        found: list[Frame] = []
        with pytest.raises(CrosslensError):
            for frame in frames(small + large, limits=limits(video_interval=1, max_pixels=64 * 48)):
                found.append(frame)
                assert frame.width * frame.height <= 64 * 48
        assert found

    def test_a_decoder_allocates_no_more_than_the_cap_allows(self) -> None:
        small, large = encoded("ts", numbered(30)), encoded("ts", [grey(9, (1280, 720))] * 30)
        with av.open(io.BytesIO(small + large)) as container:
            assert {frame.width for frame in container.decode(video=0)} == {64, 1280}
        source = video._Source(io.BytesIO(small + large), "video/mp2t", 64 * 48, 1)
        with source._pass() as through:
            assert {frame.width for frame, _seconds in through.frames()} == {64}
        assert source.damage

    @pytest.mark.parametrize("playlist", PLAYLISTS)
    @pytest.mark.parametrize("media_type", [None, "video/mp4", "video/mp2t", "video/webm"])
    def test_a_playlist_is_refused_and_opens_nothing(
        self, playlist: str, media_type: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            port = server.getsockname()[1]
            data = playlist.format(url=f"http://127.0.0.1:{port}/a.ts", port=port).encode()
            with pytest.raises(UnsupportedFormat, match="playlist") as caught:
                list(frames(data, media_type=media_type, limits=limits()))
            assert "Ingest the files" in caught.value.remedy
            # Even unrecognised, it gets a demuxer that knows no playlists.
            monkeypatch.setattr("indexer.media.frames.is_playlist", lambda head: False)
            with pytest.raises(CrosslensError):
                list(frames(data, media_type=media_type, limits=limits()))
            with pytest.raises(BlockingIOError):
                server.accept()

    def test_a_demuxer_that_would_open_a_file_may_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
            monkeypatch.setitem(DEMUXERS, "video/mp2t", "hls")
            with pytest.raises(CrosslensError):
                list(
                    video.pictures(
                        io.BytesIO(PLAYLISTS[0].format(url=url).encode()),
                        "video/mp2t",
                        interval=5,
                        scenes=False,
                        most=9,
                        max_pixels=10**6,
                        threads=1,
                    )
                )
            with pytest.raises(BlockingIOError):
                server.accept()

    def test_an_iso_file_without_pictures_in_its_stream(self) -> None:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as container:
            stream = container.add_stream("mpeg4", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            container.start_encoding()
        with pytest.raises((NoVideo, Unreadable)):
            taken(file.getvalue())


ANIMATED = {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}}
each_animation = pytest.mark.parametrize("form", ANIMATED)


def animated(form: str, pictures: list[Image.Image], **options: object) -> bytes:
    file = io.BytesIO()
    pictures[0].save(
        file,
        form,
        save_all=True,
        append_images=pictures[1:],
        **{"duration": 200, "loop": 0, **ANIMATED[form], **options},
    )
    return file.getvalue()


class TestAnimations:
    @each_animation
    def test_all_frames(self, form: str) -> None:
        found = taken(animated(form, numbered(5), duration=[100, 200, 300, 400, 500]))
        assert [number_of(frame.image) for frame in found] == [0, 1, 2, 3, 4]
        assert seconds_of(found) == [0, 0.1, 0.3, 0.6, 1.0]
        assert [(frame.index, frame.width, frame.height, frame.image.mode) for frame in found] == [
            (place, *SIZE, "RGB") for place in range(5)
        ]

    @each_animation
    def test_more_than_the_cap_are_spread(self, form: str) -> None:
        found = taken(animated(form, numbered(20)), animation_frames=4)
        assert [number_of(frame.image) for frame in found] == [0, 5, 10, 15]
        assert seconds_of(found) == [0, 1, 2, 3]
        assert [number_of(frame.image) for frame in taken(animated(form, numbered(20)), animation_frames=1)] == [0]

    @pytest.mark.parametrize("form", ["GIF", "PNG"])
    @pytest.mark.parametrize("disposal", [0, 1, 2])
    def test_disposal(self, form: str, disposal: int) -> None:
        """A square walks over a picture; what it leaves behind is up to the disposal."""
        pictures = []
        for place in range(4):
            picture = Image.new("RGBA", SIZE, (0, 0, 0, 0))
            ImageDraw.Draw(picture).rectangle((8 * place, 8, 8 * place + 7, 15), (200, 0, 0, 255))
            pictures.append(picture)
        data = animated(form, pictures, disposal=disposal + (form == "GIF"), **({"blend": 1} if form == "PNG" else {}))
        found = taken(data)
        assert len(found) == 4
        with Image.open(io.BytesIO(data)) as reference:
            for place, frame in enumerate(found):
                reference.seek(place)
                shown = reference.convert("RGBA")
                white = Image.new("RGBA", SIZE, "white")
                white.alpha_composite(shown)
                assert np.array_equal(np.asarray(frame.image), np.asarray(white.convert("RGB")))
        if (form, disposal) == ("PNG", 2):
            return  # as Pillow writes it, this is to look like no disposal
        squares = [int((np.asarray(frame.image)[10, ::8] == [200, 0, 0]).all(axis=1).sum()) for frame in found]
        assert squares == ([1, 2, 3, 4] if disposal == 0 else [1, 1, 1, 1])

    @pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
    def test_one_frame_has_no_time(self, form: str) -> None:
        data = photo(5, SIZE, form)
        [frame] = taken(data)
        assert (frame.index, frame.seconds, frame.page) == (0, None, None)
        assert np.array_equal(np.asarray(frame.image), np.asarray(decode(data, max_pixels=10**6).image))

    @each_animation
    def test_the_cap_holds(self, form: str) -> None:
        data = animated(form, numbered(3))
        assert len(taken(data, max_pixels=64 * 48)) == 3
        with pytest.raises(TooManyPixels):
            taken(data, max_pixels=64 * 48 - 1)
        with pytest.raises(TooManyPixels):
            taken(huge_png())

    @pytest.mark.parametrize("disposal", [1, 2, 3])
    def test_a_gif_whose_later_frames_widen_it(self, disposal: int) -> None:
        control = bytes((0x21, 0xF9, 4, disposal << 2, 10, 0, 0, 0))
        dot = bytes((2, 2, 0x44, 1, 0))
        small = control + b"," + struct.pack("<4HB", 0, 0, 1, 1, 0) + dot
        large = control + b"," + struct.pack("<4HB", 0, 0, 60_000, 60_000, 0) + dot
        data = (
            b"GIF89a"
            + struct.pack("<2H3B", 1, 1, 0x80, 0, 0)
            + bytes((0, 0, 0, 255, 255, 255))
            + small
            + large
            + small
            + b";"
        )
        found, error = until_error(data, max_pixels=10**6)
        assert isinstance(error, TooManyPixels)
        assert "60,000 x 60,000" in error.message
        assert len(found) <= 1

    @each_animation
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_what_ends_early(self, form: str, share: float) -> None:
        data = animated(form, [noise(seed) for seed in range(5)])
        _found, error = until_error(data[: int(len(data) * share)])
        assert isinstance(error, Truncated)

    def test_a_png_that_promises_more_frames_than_it_has(self) -> None:
        data = animated("PNG", numbered(3))
        place = data.index(b"acTL")
        promised = b"acTL" + struct.pack(">2I", 2**31 - 1, 0)
        data = data[:place] + promised + struct.pack(">I", zlib.crc32(promised)) + data[place + 16 :]
        found, error = until_error(data)
        assert isinstance(error, Truncated)
        assert len(found) == 1

    def test_too_many_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.gif"
        path.write_bytes(animated("GIF", numbered(3)))
        assert len(taken(path)) == 3
        with pytest.raises(TooLarge):
            taken(path, max_bytes=100)


def pdf(objects: list[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, of which the first is its catalogue."""
    out, offsets = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer\n<< /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, len(out))
    return out + b"xref\n0 %d\n" % (len(objects) + 1) + table + end


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), entries, data)


def document(
    *contents: bytes,
    box: str = "0 0 300 400",
    entries: bytes = b"",
    more: tuple[bytes, ...] = (),
    catalogue: bytes = b"",
) -> bytes:
    """A PDF of a page for each of the contents; `more` are the objects from number 4 on."""
    first = 4 + len(more)
    numbers = [first + 2 * place for place in range(len(contents))]
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R %b >>" % catalogue,
        b"<< /Type /Pages /Count %d /Kids [%b] >>"
        % (len(contents), b" ".join(b"%d 0 R" % number for number in numbers)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        *more,
    ]
    for number, content in zip(numbers, contents, strict=True):
        resources = b"/Resources << /Font << /F 3 0 R >> %b >>" % entries
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [%b] /Contents %d 0 R %b >>"
            % (box.encode(), number + 1, resources)
        )
        objects.append(stream(content))
    return pdf(objects)


def words(text: str) -> bytes:
    return b"BT /F 20 Tf 20 300 Td (%b) Tj ET" % text.encode()


def locked(password: bytes, owner: bytes = b"owner") -> bytes:
    """A PDF that is encrypted with 40-bit RC4, the standard security handler's second revision (PDF 1.7, 7.6.3)."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")

    def rc4(key: bytes, data: bytes) -> bytes:
        box, j = list(range(256)), 0
        for i in range(256):
            j = (j + box[i] + key[i % len(key)]) % 256
            box[i], box[j] = box[j], box[i]
        out, i, j = bytearray(), 0, 0
        for byte in data:
            i = (i + 1) % 256
            j = (j + box[i]) % 256
            box[i], box[j] = box[j], box[i]
            out.append(byte ^ box[(box[i] + box[j]) % 256])
        return bytes(out)

    user_padded, owner_padded = ((word + padding)[:32] for word in (password, owner))
    identity, allowed = bytes(range(16)), struct.pack("<i", -4)
    owner_entry = rc4(hashlib.md5(owner_padded).digest()[:5], user_padded)
    key = hashlib.md5(user_padded + owner_entry + allowed + identity).digest()[:5]
    content = words("Secret")
    entry_key = hashlib.md5(key + (5).to_bytes(3, "little") + bytes(2)).digest()[:10]
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 400] /Contents 5 0 R /Resources << /Font << /F 3 0 R >> >> >>",
        stream(rc4(entry_key, content)),
        b"<< /Filter /Standard /V 1 /R 2 /O <%b> /U <%b> /P -4 >>"
        % (owner_entry.hex().encode(), rc4(key, padding).hex().encode()),
    ]
    return pdf(objects, b"/Encrypt 6 0 R /ID [<%b> <%b>]" % ((identity.hex().encode(),) * 2))


class TestPages:
    def test_pages_with_their_text(self) -> None:
        data = document(words("One"), b"", words("Three"), b"1 0 0 rg 0 0 300 400 re f")
        found = taken(data, target=100)
        assert [(frame.index, frame.page, frame.text, frame.seconds) for frame in found] == [
            (0, 1, "One", None),
            (1, 2, None, None),
            (2, 3, "Three", None),
            (3, 4, None, None),
        ]
        assert {(frame.image.size, frame.width, frame.height, frame.image.mode) for frame in found} == {
            ((200, 267), 200, 267, "RGB")
        }
        assert (np.asarray(found[1].image) == 255).all()
        assert (np.asarray(found[3].image) == [255, 0, 0]).all()
        assert (np.asarray(found[0].image) < 100).any()

    def test_without_a_target_at_144_dpi(self, tmp_path: Path) -> None:
        path = tmp_path / "paper"
        path.write_bytes(document(words("One")))
        [frame] = taken(path)
        assert frame.image.size == (600, 800)

    def test_text_is_kept_short(self) -> None:
        lines = b"\n".join(b"BT /F 1 Tf 5 %d Td (%b) Tj ET" % (395 - line, b"abcde " * 20) for line in range(90))
        [frame] = taken(document(lines))
        assert frame.text is not None
        assert 3990 <= len(frame.text) <= 4000
        assert frame.text == frame.text.strip()
        assert "\r" not in frame.text

    def test_only_the_first_pages(self) -> None:
        data = document(*(words(str(number)) for number in range(1, 8)))
        assert [frame.text for frame in taken(data, pdf_pages=3)] == ["1", "2", "3"]

    @pytest.mark.parametrize("box", ["0 0 14400 14400", "0 0 1440000 1440000", "0 0 1 14400", "0 0 14400 1"])
    @pytest.mark.parametrize("target", [None, 224])
    def test_a_page_of_any_size_has_no_more_pixels_than_the_cap(
        self, box: str, target: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[tuple[int, int]] = []
        make = pypdfium2.PdfBitmap.new_native.__func__

        def watched(cls: type, width: int, height: int, *rest: object, **options: object) -> object:
            drawn.append((width, height))
            return make(cls, width, height, *rest, **options)

        render = pypdfium2.PdfPage.render
        monkeypatch.setattr(
            pypdfium2.PdfPage,
            "render",
            lambda page, **options: render(
                page, bitmap_maker=lambda *a, **k: watched(pypdfium2.PdfBitmap, *a, **k), **options
            ),
        )
        [frame] = taken(document(b"", box=box), max_pixels=10**6, target=target)
        assert drawn == [frame.image.size]
        assert frame.width * frame.height <= 10**6
        if target and box == "0 0 14400 14400":
            assert frame.image.size == (448, 448)

    def test_an_image_beyond_the_cap_is_not_decoded(self) -> None:
        image = stream(
            zlib.compress(b""),
            b"/Type /XObject /Subtype /Image /Width 30000 /Height 30000 /BitsPerComponent 8 /ColorSpace /DeviceRGB /Filter /FlateDecode",
        )
        data = document(
            words("One"), b"q 300 0 0 400 0 0 cm /I Do Q", entries=b"/XObject << /I 4 0 R >>", more=(image,)
        )
        found, error = until_error(data, max_pixels=10**8)
        assert ([frame.text for frame in found], error.code) == (["One"], "too_many_pixels")
        assert "30,000 x 30,000" in error.message
        assert [frame.page for frame in taken(data, max_pixels=10**9, target=50)] == [1, 2]

    def test_a_page_that_cannot_be_drawn_is_left_out(self) -> None:
        data = document(words("One"), words("Two"), words("Three"))
        assert data.count(b"6 0 R 8 0 R") == 1
        found, error = until_error(data.replace(b"6 0 R 8 0 R", b"3 0 R 8 0 R"))
        assert [(frame.index, frame.page, frame.text) for frame in found] == [(0, 1, "One"), (1, 3, "Three")]
        assert isinstance(error, Unreadable)
        assert "Page 2" in error.message

    def test_encrypted(self, tmp_path: Path) -> None:
        data = locked(b"sesame")
        with pypdfium2.PdfDocument(data, password="sesame") as opened:
            assert len(opened) == 1
        path = tmp_path / "locked.pdf"
        path.write_bytes(data)
        for source in (data, path):
            with pytest.raises(Encrypted) as caught:
                taken(source)
            assert caught.value.code == "encrypted"

    def test_encrypted_without_a_password_opens(self) -> None:
        [frame] = taken(locked(b""))
        assert frame.text == "Secret"

    def test_no_pages(self) -> None:
        with pytest.raises(Unreadable, match="no pages"):
            taken(document())

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
    def test_what_ends_early(self, share: float) -> None:
        data = document(*(words(f"Page {number}") for number in range(1, 21)))
        found, error = until_error(data[: int(len(data) * share)])
        assert isinstance(error, Truncated)
        assert [frame.text for frame in found] == [f"Page {number}" for number in range(1, len(found) + 1)]

    def test_forms_are_not_filled_and_scripts_not_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("no form environment")

        monkeypatch.setattr(pypdfium2.PdfDocument, "init_forms", refuse)
        script = b"/OpenAction << /S /JavaScript /JS (app.alert\\(1\\)) >> /AcroForm << /Fields [4 0 R] >>"
        field = b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (a) /V (b) /Rect [0 0 99 99] >>"
        [frame] = taken(document(words("One"), more=(field,), catalogue=script))
        assert frame.text == "One"

    def test_threads_take_turns(self) -> None:
        data = document(*(words(f"Page {number}") for number in range(12)))
        texts: list[list[str | None]] = []
        threads = [
            threading.Thread(target=lambda: texts.append([frame.text for frame in taken(data, target=20)]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == [[f"Page {number}" for number in range(12)]] * 4


class TestSniffing:
    def test_images_are_what_they_were(self) -> None:
        for form in (*FORMATS, "HEIF"):
            kind = {"HEIF": "heic", "JPEG": "jpeg"}.get(form, form.lower())
            data = photo(1, form=form)
            assert sniff(data) == sniff(data[:64]) == sniff(data[:SNIFF_BYTES]) == f"image/{kind}"

    @pytest.mark.parametrize(
        ("head", "media_type"),
        [
            (b"%PDF-1.4\n", "application/pdf"),
            (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "video/quicktime"),
            (b"\0\0\0\x08wide\0\0\x10Vmdat", "video/quicktime"),
            (b"\0\0\x10\0moov\0\0\0\x6cmvhd", "video/quicktime"),
            (b"\x12\x34\x56\x78mdat\0\0\0\0", "video/quicktime"),
            (b"\0\0\0\x18ftypiso6\0\0\0\0iso6dash", "video/mp4"),
            (b"\0\0\0\x1cftypmsf1\0\0\0\0msf1heviso8", "image/heic"),
            (b"\0\0\0\x18ftypavis\0\0\0\0avismsf1", "image/avif"),
            (b"\x1aE\xdf\xa3\xa3B\x86\x81\x01B\x82\x88matroska", "video/x-matroska"),
            (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"),
            (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
            (b"RIFF\0\0\0\0WAVEfmt ", None),
            ((b"G" + bytes(187)) * 5, "video/mp2t"),
            ((bytes(4) + b"G" + bytes(187)) * 5, "video/mp2t"),
            ((b"G" + bytes(187)) * 2, None),
            (b"G" * 20 + b"reat expectations" * 60, None),
            (b"Not free software, but cheap" * 30, None),
            (b"mostskip this", None),
            (b"#EXTM3U\n", None),
            (b"", None),
        ],
    )  # fmt: skip
    def test_containers(self, head: bytes, media_type: str | None) -> None:
        assert sniff(head[:SNIFF_BYTES]) == media_type

    def test_images_among_texts_stay_texts(self) -> None:
        assert sniff(b" " * 100 + b"<svg>") is None


@functools.cache
def good() -> dict[str, bytes]:
    """A small file of each kind."""
    return {
        **{name: encoded(name, numbered(25)) for name in CONTAINERS},
        **{form: animated(form, numbered(4)) for form in ANIMATED},
        "PDF": document(words("One"), words("Two")),
    }


class TestAnyFile:
    def test_what_is_none(self, tmp_path: Path) -> None:
        for data, error in (
            (b"", EmptyFile),
            (b"hello", UnsupportedFormat),
            (photo(1), UnsupportedFormat),
            (photo(1, form="AVIF"), UnsupportedFormat),
        ):
            with pytest.raises(error):
                taken(data)
        (tmp_path / "empty").touch()
        for path, error in ((tmp_path / "empty", EmptyFile), (tmp_path, Unreadable), (tmp_path / "none", Unreadable)):
            with pytest.raises(error):
                taken(path)
        with pytest.raises(CrosslensError):  # a claim that content does not bear out
            list(frames(b"hello", media_type="image/png", limits=limits()))

    def test_limits_are_as_set(self) -> None:
        chosen = Settings(
            video_interval=2,
            video_scenes=True,
            video_frames=7,
            animation_frames=3,
            pdf_pages=9,
            max_pixels=5,
            max_bytes=6,
            threads=1,
        )
        assert Limits.of(chosen) == Limits(
            video_interval=2,
            video_scenes=True,
            video_frames=7,
            animation_frames=3,
            pdf_pages=9,
            max_pixels=5,
            max_bytes=6,
            threads=1,
        )
        assert 1 <= Limits.of(Settings(threads=64)).threads <= 4
        defaults = Settings()
        assert (
            defaults.video_interval,
            defaults.video_scenes,
            defaults.video_frames,
            defaults.animation_frames,
            defaults.pdf_pages,
        ) == (5, False, 200, 16, 500)

    @settings(max_examples=150, deadline=None)
    @given(media_type=st.sampled_from([None, *SEQUENCE_TYPES]), data=st.binary(max_size=3000), scenes=st.booleans())
    def test_of_garbage_only_our_errors_come_out(self, media_type: str | None, data: bytes, scenes: bool) -> None:
        with pytest.raises(CrosslensError):
            list(frames(data, media_type=media_type, limits=limits(video_scenes=scenes)))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        name=st.sampled_from([*CONTAINERS, *ANIMATED, "PDF"]),
        edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
        cut=st.floats(0.3, 1),
        scenes=st.booleans(),
    )
    def test_of_what_is_broken_too(self, name: str, edits: list[tuple[float, int]], cut: float, scenes: bool) -> None:
        data = bytearray(good()[name])
        for place, value in edits:
            data[int(place * (len(data) - 1))] = value
        try:
            for frame in frames(
                bytes(data[: int(len(data) * cut)]),
                limits=limits(video_interval=0.5, video_scenes=scenes, video_frames=9),
                target=20,
            ):
                assert frame.image.mode == "RGB"
                assert frame.width * frame.height <= 10**6
        except CrosslensError:
            return
