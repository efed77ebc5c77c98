"""PDQ: 256 bits of a picture that stay nearly the same when it is resized, recompressed or slightly changed.

The algorithm is Facebook's ("The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019;
reference code in ThreatExchange, pdq/cpp): luma, two passes of a box filter along each side, 64 x 64 samples of that,
the 16 x 16 lowest frequencies of their DCT but the constant ones, and a bit for each of those above their median.
Everything before the median is linear and separable, so here it is a few products of matrices. The hashes are those
of the reference up to the last bit of a float; where that decides, a bit or two differ.

Rotations and mirror images have other hashes: `pdq_dihedral` gives those of all eight.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    Floats = NDArray[np.float32]
    Array = TypeVar("Array", bound=NDArray[np.generic])

HASH_BYTES = 32
MIN_QUALITY = 50
"""Below it a picture is too flat for its hash to mean anything: the reference discards hashes of quality 49 or less."""
MATCH_DISTANCE = 31
"""Up to how many bits the hashes of one picture differ, as the reference recommends."""

_SAMPLES = 64
_FREQUENCIES = 16
_MIN_SIDE = 5
_FULL_SIDE = 1024
"""A side of twice that or more is averaged down to it first; the reference does so from 512 on."""


class Turn(StrEnum):
    """The eight ways to lay a picture on its place; named by what was done to it."""

    ORIGINAL = "original"
    ROTATED_90 = "rotated 90"
    """Counter-clockwise, as Pillow's `ROTATE_90`."""
    ROTATED_180 = "rotated 180"
    ROTATED_270 = "rotated 270"
    FLIPPED_TOP_BOTTOM = "flipped top to bottom"
    FLIPPED_LEFT_RIGHT = "flipped left to right"
    TRANSPOSED = "transposed"
    TRANSVERSED = "transversed"


def pdq(image: Image.Image) -> tuple[bytes, int]:
    """A picture's PDQ hash, 32 bytes, and its quality, 0 to 100; no bits and 0 for one of less than 5 pixels a side.

    The bytes are in the order of the reference's hexadecimal form. The picture must be upright. One that was decoded
    at a reduced scale, 256 pixels a side or more, has the same hash but for a few bits.
    """
    frequencies, quality = _frequencies(image)
    return _bits(frequencies) if frequencies is not None else bytes(HASH_BYTES), quality


def pdq_dihedral(image: Image.Image) -> tuple[dict[Turn, bytes], int]:
    """The hashes that the picture has when it is turned and mirrored, and its quality; one costs as much as all."""
    frequencies, quality = _frequencies(image)
    if frequencies is None:
        return dict.fromkeys(Turn, bytes(HASH_BYTES)), quality
    return {turn: _bits(_turned(frequencies, turn)) for turn in Turn}, quality


def distance(one: bytes, other: bytes) -> int:
    """How many bits differ."""
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def _frequencies(image: Image.Image) -> tuple[Floats | None, int]:
    """The DCT's 16 x 16 values, rows downwards, and the quality."""
    if min(image.size) < _MIN_SIDE:
        return None, 0
    if image.mode != "RGB":
        image = image.convert("RGB")
    factors = (max(1, image.width // _FULL_SIDE), max(1, image.height // _FULL_SIDE))
    if factors != (1, 1):
        image = image.reduce(factors)
    luma = np.asarray(image.convert("F"))  # 0.299 R + 0.587 G + 0.114 B, unrounded
    samples = _sampled(_sampled(luma).T).T
    dct = _dct()
    return (dct @ samples @ dct.T).astype(np.float32, copy=False), _quality(samples)


def _quality(samples: Floats) -> int:
    """How much the samples differ from their neighbours, by the reference's rule of thumb."""
    gradients = (np.diff(samples, axis=axis) * np.float32(100) / np.float32(255) for axis in (0, 1))
    total = sum(int(np.abs(gradient).astype(np.int32).sum()) for gradient in gradients)
    return min(100, total // 90)


def _bits(frequencies: Floats) -> bytes:
    """A bit for each value above the lower median; the first value's is the last bit."""
    values = frequencies.ravel()
    median = np.partition(values, values.size // 2 - 1)[values.size // 2 - 1]
    return np.packbits((values > median)[::-1]).tobytes()


def _sampled(plane: Floats) -> Floats:
    """64 places of the first side, after the filter along it: (side, n) becomes (64, n)."""
    rows, weights = _taps(plane.shape[0])
    # A product for each place: small enough that BLAS starts no threads, which would get in the way of ours.
    return (weights[:, None, :] @ plane[rows])[:, 0]


@lru_cache(maxsize=1024)
def _taps(side: int) -> tuple[NDArray[np.intp], Floats]:
    """Which values of a side each of the 64 places is made of, and with what weights: two of (64, taps).

    They are those of two passes of a box of half the distance between places.
    """
    picked = ((np.arange(_SAMPLES) + 0.5) * side / _SAMPLES).astype(np.intp)[:, None]
    window = -(-side // (2 * _SAMPLES))
    right = (window + 2) // 2 - 1
    left = window - 1 - right
    place = np.arange(side)
    # The box around place k is the mean of low[k] to high[k], cut off at the edges.
    low, high = np.maximum(place - left, 0), np.minimum(place + right, side - 1)
    sums = np.concatenate(([0.0], np.cumsum(1 / (high - low + 1))))
    # A box of boxes: a value counts in the boxes around it, as far as those are in the picked one.
    taps = picked + np.arange(-2 * left, 2 * right + 1)
    first, last = np.maximum(low[picked], taps - right), np.minimum(high[picked], taps + left)
    first, last = np.minimum(first, side), np.maximum(last, -1)
    weights = np.where(first <= last, sums[last + 1] - sums[first], 0) / (high - low + 1)[picked]
    weights[(taps < 0) | (taps >= side)] = 0
    return _shared(taps.clip(0, side - 1)), _shared(weights.astype(np.float32))


@lru_cache(maxsize=1)
def _dct() -> Floats:
    """Rows 1 to 16 of the DCT-II of 64 values, (16, 64)."""
    row, column = np.arange(1, _FREQUENCIES + 1)[:, None], np.arange(_SAMPLES)[None, :]
    matrix = np.sqrt(2 / _SAMPLES) * np.cos(np.pi / 2 / _SAMPLES * row * (2 * column + 1))
    return _shared(matrix.astype(np.float32))


def _shared(array: Array) -> Array:
    """The array, which threads share, so that none can change it."""
    array.setflags(write=False)
    return array


_TURNS = {
    Turn.ORIGINAL: (False, False, False),
    Turn.ROTATED_90: (False, True, True),
    Turn.ROTATED_180: (True, True, False),
    Turn.ROTATED_270: (True, False, True),
    Turn.FLIPPED_TOP_BOTTOM: (True, False, False),
    Turn.FLIPPED_LEFT_RIGHT: (False, True, False),
    Turn.TRANSPOSED: (False, False, True),
    Turn.TRANSVERSED: (True, True, True),
}
"""What is done for each: mirror downwards, mirror across, then transpose."""


def _turned(values: Floats, turn: Turn) -> Floats:
    """The frequencies of the turned picture: mirroring negates the odd ones, transposing transposes."""
    down, across, transpose = _TURNS[turn]
    # Row and column 0 are frequency 1.
    sign = np.where(np.arange(_FREQUENCIES) % 2 == 0, np.float32(-1), np.float32(1))
    if down:
        values = values * sign[:, None]
    if across:
        values = values * sign
    return values.T if transpose else values
