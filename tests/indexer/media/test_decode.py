"""Decoding: every format as Pillow sees it, every broken file an error of ours."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from indexer.errors import (
    EmptyFile,
    MediaError,
    NotAnImage,
    TooManyPixels,
    Truncated,
    UnsupportedFormat,
)
from indexer.media.decode import decode
from indexer.media.thumbnails import thumbnail
from tests.hostile import FORMATS, huge_png, photo

MANY = 10**8
ALL_FORMATS = [*FORMATS, "HEIF"]


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(data: bytes, **options: int) -> np.ndarray:
    return np.asarray(decode(data, max_pixels=MANY, **options).image, dtype=float)


@pytest.mark.parametrize("form", ALL_FORMATS)
def test_every_format_is_decoded_as_pillow_does(form: str) -> None:
    data = photo(1, (90, 50), form)
    decoded = decode(data, max_pixels=MANY)
    assert (decoded.width, decoded.height, decoded.image.mode) == (90, 50, "RGB")
    reference = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decoded.image), np.asarray(reference))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("target", [None, 20])
def test_exif_orientation_is_applied(orientation: int, target: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(io.BytesIO(photo(2, (400, 240), "PNG")))
    data = saved(image, "JPEG", exif=exif, quality=95)
    decoded = decode(data, target=target, max_pixels=MANY)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert (decoded.width, decoded.height) == upright.size
    assert (decoded.image.size == upright.size) == (target is None)
    shrunk = decoded.image.resize((40, 40)), upright.resize((40, 40))
    assert np.abs(np.asarray(shrunk[0], float) - np.asarray(shrunk[1], float)).mean() < 2


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (pixels(saved(clear)) == 255).all()
    half = Image.new("LA", (4, 4), (0, 128))
    assert np.abs(pixels(saved(half)) - 127).max() <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (pixels(saved(palette, transparency=1)) == 255).all()
    assert (pixels(saved(palette)) == [10, 20, 30]).all()


def test_deep_greys_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for form in ("PNG", "TIFF"):
        grey = pixels(saved(Image.fromarray(ramp), form))[..., 0].ravel()
        assert np.abs(grey - np.arange(256)).max() <= 1
    floats = Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    assert np.abs(pixels(saved(floats, "TIFF"))[..., 0].ravel() - np.arange(256)).max() <= 1


def test_cmyk_and_one_bit() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(saved(cmyk, "JPEG", quality=100)) - [255, 0, 0]).max() < 6
    assert (pixels(saved(Image.new("1", (8, 8), 1))) == 255).all()


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        data = saved(
            frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
        )
        assert np.abs(pixels(data) - [255, 0, 0]).max() <= 1


def test_a_large_jpeg_is_decoded_small_and_hardly_differs() -> None:
    data = photo(3, (2000, 1400), "JPEG")
    decoded = decode(data, target=224, max_pixels=MANY)
    assert (decoded.width, decoded.height) == (2000, 1400)
    assert 448 <= min(decoded.image.size) < 900
    whole = Image.open(io.BytesIO(data)).resize((320, 224), Image.Resampling.BICUBIC)
    scaled = decoded.image.resize((320, 224), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(whole, float) - np.asarray(scaled, float)).mean() < 0.5


@pytest.mark.parametrize("form", ALL_FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_ends_early_is_refused(form: str, share: float) -> None:
    whole = photo(4, (300, 200), form)
    with pytest.raises(Truncated):
        decode(whole[: int(len(whole) * share)], target=224, max_pixels=MANY)


def test_a_progressive_jpeg_that_ends_early_is_refused() -> None:
    whole = saved(Image.open(io.BytesIO(photo(5, (300, 200), "PNG"))), "JPEG", progressive=True)
    for share in (0.4, 0.7, 0.95):
        with pytest.raises(Truncated):
            decode(whole[: int(len(whole) * share)], max_pixels=MANY)


def test_the_cap_is_checked_before_a_pixel_is_decoded() -> None:
    with pytest.raises(TooManyPixels, match="50,000 x 50,000"):
        decode(huge_png(), max_pixels=MANY)
    for form in ALL_FORMATS:
        with pytest.raises(TooManyPixels):
            decode(photo(6, (40, 30), form), max_pixels=1199)
        decode(photo(6, (40, 30), form), max_pixels=1200)


def test_content_counts_not_names() -> None:
    cases = {
        b"": EmptyFile,
        b"hello": NotAnImage,
        b"%PDF-1.4": UnsupportedFormat,
        b"<svg/>": UnsupportedFormat,
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom": UnsupportedFormat,
    }
    for data, error in cases.items():
        with pytest.raises(error):
            decode(data, max_pixels=MANY)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    form=st.sampled_from(ALL_FORMATS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.floats(0.2, 1),
)
def test_whatever_is_broken_only_our_errors_come_out(form: str, edits: list[tuple[float, int]], cut: float) -> None:
    data = bytearray(photo(7, (48, 32), form))
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    try:
        decoded = decode(bytes(data[: max(1, int(len(data) * cut))]), target=24, max_pixels=10**6)
    except MediaError:
        return
    assert decoded.image.mode == "RGB"


def test_a_thumbnail_is_small_and_keeps_its_shape() -> None:
    small = Image.open(io.BytesIO(thumbnail(photo(8, (400, 200), "JPEG"), 100, MANY)))
    assert (small.format, small.size) == ("WEBP", (100, 50))
