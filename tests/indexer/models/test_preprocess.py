"""Preparation by recipe, against torchvision's rules written out with NumPy and Pillow."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.models.manifest import CropOffset, PixelRecipe, Resize
from indexer.models.preprocess import decode_target, prepare

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def recipe(resize: Resize, **more: Any) -> PixelRecipe:
    return PixelRecipe(size=24, resize=resize, mean=MEAN, std=STD, **more)


def image(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def normalised(square: Image.Image) -> np.ndarray:
    return ((np.asarray(square, np.float64) / 255 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(31, 30), (90, 41), (41, 90), (24, 24), (7, 5), (300, 29)])
def test_shortest_side_then_centre_crop(size: tuple[int, int]) -> None:
    whole = image(*size)
    width, height = size
    short = min(size)
    resized = whole.resize((int(30 * width / short), int(30 * height / short)), Image.Resampling.BICUBIC)
    left, top = round((resized.width - 24) / 2.0), round((resized.height - 24) / 2.0)
    expected = normalised(resized.crop((left, top, left + 24, top + 24)))
    got = prepare(whole, recipe(Resize.SHORTEST_CROP, resize_to=30))
    assert got.shape == (3, 24, 24)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 1e-5


def test_a_crop_begins_where_the_recipe_says() -> None:
    whole = image(
        33, 30
    )  # a margin of nine: 4.5 pixels a side, which both round to 4; of three: 1.5, which they do not
    for width, half_even, down in ((33, 4, 4), (27, 2, 1)):
        square = whole.resize((width, 24))
        for offset, left in ((CropOffset.HALF_EVEN, half_even), (CropOffset.DOWN, down)):
            got = prepare(square, recipe(Resize.SHORTEST_CROP, crop_offset=offset))
            assert np.abs(got - normalised(square.crop((left, 0, left + 24, 24)))).max() < 1e-5


def test_squash_keeps_nothing_of_the_shape() -> None:
    whole = image(90, 41)
    expected = normalised(whole.resize((24, 24), Image.Resampling.BICUBIC))
    assert np.abs(prepare(whole, recipe(Resize.SQUASH)) - expected).max() < 1e-5


def test_letterbox_fills_with_the_recipes_colour() -> None:
    got = prepare(Image.new("RGB", (48, 24), "white"), recipe(Resize.LETTERBOX, fill=(10, 20, 30)))
    colour = normalised(Image.new("RGB", (24, 24), (10, 20, 30)))
    assert np.allclose(got[:, :6], colour[:, :6], atol=1e-5)
    assert np.allclose(got[:, 7:17], normalised(Image.new("RGB", (24, 24), "white"))[:, 7:17], atol=1e-5)


def test_a_sliver_does_not_explode() -> None:
    for size in ((1, 200_000), (200_000, 1)):
        assert prepare(Image.new("RGB", size, "red"), recipe(Resize.SHORTEST_CROP)).shape == (3, 24, 24)


def test_the_decoder_is_asked_for_what_the_recipe_resizes_to() -> None:
    assert decode_target(recipe(Resize.SHORTEST_CROP, resize_to=30)) == 30
    assert decode_target(recipe(Resize.SQUASH)) == 24
