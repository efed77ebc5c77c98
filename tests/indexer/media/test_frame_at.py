"""One picture of a file: the same that taking all of them gave."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import MediaError, TooManyPixels, Unreadable, UnsupportedFormat
from indexer.media.frames import Frame, frame_at
from indexer.media.video_pass import Pass
from tests.hostile import photo
from tests.indexer.media.test_frames import (
    ANIMATED,
    CONTAINERS,
    animated,
    document,
    encoded,
    limits,
    number_of,
    numbered,
    taken,
    with_index_first,
    words,
)


def again(data: bytes | Path, frame: Frame, **options: object) -> Image.Image:
    target = options.pop("target", None)
    return frame_at(data, seconds=frame.seconds, page=frame.page, limits=limits(**options), target=target)


def assert_same(data: bytes, found: list[Frame], **options: object) -> None:
    assert found
    for frame in found:
        assert np.array_equal(np.asarray(again(data, frame, **options)), np.asarray(frame.image)), frame


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("interval", [0.7, 4.1])
def test_a_video_s_frame_is_the_one_that_was_taken(name: str, interval: float) -> None:
    data = encoded(name, numbered(120))
    assert_same(data, taken(data, video_interval=interval))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_video_of_one_keyframe(name: str) -> None:
    data = encoded(name, numbered(40), options={"g": "1000"})
    assert_same(data, taken(data, video_interval=0.9))


@pytest.mark.parametrize("name", ["mp4", "mkv", "webm", "mov"])
def test_a_video_of_changing_rate_and_one_by_scenes(name: str) -> None:
    data = encoded(name, numbered(6), times=[0, 0.1, 7, 7.1, 20, 21])
    assert_same(data, taken(data))
    assert_same(data, taken(data, video_scenes=True))


def test_a_live_video_and_one_from_a_file(tmp_path: Path) -> None:
    live = encoded("mkv", numbered(120), live=True, muxer={"live": "1"})
    assert_same(live, taken(live, video_interval=3.0))
    path = tmp_path / "clip"
    path.write_bytes(with_index_first(encoded("mp4", numbered(60))))
    [*_, last] = taken(path, video_interval=2.0)
    assert number_of(again(path, last)) == 40


def test_a_frame_far_into_a_video_is_reached_by_seeking(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded("mp4", numbered(240))
    frame = taken(data, video_interval=20.0)[1]
    decoded = []
    seconds_of = Pass._seconds_of
    monkeypatch.setattr(Pass, "_seconds_of", lambda self, each: decoded.append(each) or seconds_of(self, each))
    assert number_of(again(data, frame)) == 200
    assert len(decoded) < 40


def test_a_time_past_the_end_and_a_broken_video_are_told(tmp_path: Path) -> None:
    data = encoded("mp4", numbered(30))
    for seconds in (3.5, 1e9):
        with pytest.raises(Unreadable):
            frame_at(data, seconds=seconds, page=None, limits=limits())
    with pytest.raises(MediaError):
        frame_at(data[: len(data) // 3], seconds=2.0, page=None, limits=limits())
    with pytest.raises(TooManyPixels):
        frame_at(data, seconds=0.0, page=None, limits=limits(max_pixels=100))
    with pytest.raises(Unreadable):
        frame_at(tmp_path / "gone", seconds=0.0, page=None, limits=limits())
    with pytest.raises(UnsupportedFormat):
        frame_at(photo(1), seconds=0.0, page=None, limits=limits())


@pytest.mark.parametrize("form", ANIMATED)
def test_an_animation_s_frame_is_the_one_that_was_taken(form: str) -> None:
    data = animated(form, numbered(20), duration=[50 * (1 + number % 3) for number in range(20)])
    found = taken(data, animation_frames=7)
    assert len(found) == 7
    assert_same(data, found)
    with pytest.raises(Unreadable):
        frame_at(data, seconds=60.0, page=None, limits=limits())


@pytest.mark.parametrize("form", ANIMATED)
def test_a_picture_that_is_no_animation_after_all(form: str) -> None:
    data = animated(form, numbered(20)[3:4])
    assert_same(data, taken(data))


@pytest.mark.parametrize("target", [None, 100])
def test_a_page_is_the_one_that_was_taken(target: int | None, tmp_path: Path) -> None:
    data = document(words("One"), b"1 0 0 rg 0 0 300 400 re f", words("Three"))
    assert_same(data, taken(data, target=target), target=target)
    path = tmp_path / "paper"
    path.write_bytes(data)
    assert np.asarray(frame_at(path, seconds=None, page=2, limits=limits(), target=8))[8, 8].tolist() == [255, 0, 0]
    for page in (4, -1):
        with pytest.raises(Unreadable, match=f"no page {page}"):
            frame_at(data, seconds=None, page=page, limits=limits())
