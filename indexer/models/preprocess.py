"""Pixels as an encoder was trained to see them.

The recipe is data in the bundle's manifest, never a guess: SigLIP squashes, CLIP crops, and a square test image
cannot tell the two apart.
"""

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.media.decode import Decoded
from indexer.models.manifest import CropOffset, Interpolation, PixelRecipe, Resize

_FILTERS = {
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}
_LONGEST_RESIZED = 16_384
"""A sliver (1 x 5000) resized by its shortest side would be millions of pixels wide; past this, its middle is cut
first."""


def decode_target(recipe: PixelRecipe) -> int:
    """The shortest side, in pixels, that a scaled decoder must at least keep."""
    return recipe.resize_to or recipe.size


def prepare(image: Image.Image | Decoded, recipe: PixelRecipe) -> NDArray[np.float32]:
    """Turn one RGB image, or one decoded file, into an encoder's input.

    Returns an array of shape (3, size, size), normalised by the recipe's mean and std. Sizes are those of torchvision's
    `Resize`, which open_clip, timm and transformers agree on: the longer side is truncated. Where a crop begins they
    do not agree on, so the recipe says it. A letterbox is open_clip's.
    """
    decoded = image if isinstance(image, Decoded) else Decoded.whole(image)
    resampling = _FILTERS[recipe.interpolation]
    match recipe.resize:
        case Resize.SQUASH:
            square = decoded.image.resize((recipe.size, recipe.size), resampling, decoded.box)
        case Resize.SHORTEST_CROP:
            square = _centre_crop(_resize_shortest(decoded, decode_target(recipe), resampling), recipe)
        case Resize.LETTERBOX:
            square = _letterbox(decoded, recipe, resampling)
        case _:
            assert_never(recipe.resize)
    return normalise(square, recipe)


def normalise(square: Image.Image, recipe: PixelRecipe) -> NDArray[np.float32]:
    """(value / 255 - mean) / std of an RGB image: float32, channels first, one multiplication and one subtraction."""
    pixels = np.asarray(square).transpose(2, 0, 1)
    std = np.asarray(recipe.std, dtype=np.float32)[:, None, None]
    mean = np.asarray(recipe.mean, dtype=np.float32)[:, None, None]
    prepared = np.empty(pixels.shape, dtype=np.float32)
    np.multiply(pixels, 1 / (255 * std), out=prepared, dtype=np.float32)
    prepared -= mean / std
    return prepared


def _resize_shortest(decoded: Decoded, shortest: int, resampling: Image.Resampling) -> Image.Image:
    """Sizes are reckoned from the full image's: a reduced one's are rounded."""
    width, height = decoded.width, decoded.height
    if max(width, height) * shortest > min(width, height) * _LONGEST_RESIZED:
        decoded = Decoded.whole(_middle(decoded.image, min(width, height) * _LONGEST_RESIZED // shortest))
        width, height = decoded.width, decoded.height
    if width <= height:
        size = (shortest, shortest * height // width)
    else:
        size = (shortest * width // height, shortest)
    return decoded.image if size == decoded.image.size else decoded.image.resize(size, resampling, decoded.box)


def _middle(image: Image.Image, longest: int) -> Image.Image:
    """The middle of a sliver, `longest` pixels of its long side; all that a centre crop could keep.

    What is reduced while it is decoded is never a sliver: both of its sides are long.
    """
    width, height = image.size
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def _centre_crop(image: Image.Image, recipe: PixelRecipe) -> Image.Image:
    offset = round if recipe.crop_offset is CropOffset.HALF_EVEN else math.floor
    left, top = (offset((side - recipe.size) / 2) for side in image.size)
    return image.crop((left, top, left + recipe.size, top + recipe.size))


def _letterbox(decoded: Decoded, recipe: PixelRecipe, resampling: Image.Resampling) -> Image.Image:
    ratio = max(decoded.width, decoded.height) / recipe.size
    width, height = (max(1, round(side / ratio)) for side in (decoded.width, decoded.height))
    square = Image.new("RGB", (recipe.size, recipe.size), recipe.fill)
    offset = ((recipe.size - width) // 2, (recipe.size - height) // 2)
    square.paste(decoded.image.resize((width, height), resampling, decoded.box), offset)
    return square
