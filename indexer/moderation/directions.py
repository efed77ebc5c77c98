"""Cosines of many vectors with the directions of a policy, the same to the last bit whatever else is in the batch.

A product of float matrices adds in an order that depends on its shape, on the place of a row and on the library's
threads, so an item on the line could be judged in two ways. Here both sides are rounded to integers of at most
3,900 times a unit vector: every product and every sum of products is then an integer below 2^24 (Cauchy-Schwarz), which
float32 adds exactly in any order, on any machine. The rounding costs about 0.0001 of a cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import InvalidVector

if TYPE_CHECKING:
    from indexer.moderation.subjects import Bools, Floats

BLOCK = 2048
"""Vectors at once: their integers fit a core's cache."""

_SCALE = 3900
_MOST_OFF = 0.02
"""By which a vector's length may differ from 1; the bound of 2^24 holds up to there for 65,536 dimensions."""
_LANES = 64
"""Columns of what is given are a multiple of it: so every value goes through the same vector instructions, and none
through those for a remainder."""


class Directions:
    """Directions of one vector space, that items' vectors are multiplied with all at once.

    Usage:
        directions = Directions(dimension)
        here = directions.add(vectors)
        cosines, usable = directions.cosines(block)
        cosines[here]
    """

    def __init__(self, dimension: int) -> None:
        self._rows = np.empty((0, dimension), dtype=np.float32)

    def add(self, vectors: Floats) -> slice:
        """Add directions, float32 (k, d), of any length but none; gives the rows that their cosines are in.

        Raises:
            InvalidVector: of another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._rows.shape[1]:
            raise InvalidVector(f"The directions have {vectors.shape[-1]} values, not {self._rows.shape[1]}.")
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        whole = np.rint(vectors * (_SCALE / np.maximum(lengths, 1e-30))).astype(np.float32)
        begin = len(self._rows)
        self._rows = np.concatenate([self._rows, whole])
        return slice(begin, len(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def cosines(self, vectors: Floats) -> tuple[Floats, Bools]:
        """Cosines with all directions, float32 (k, m) with m >= n, and which of the n vectors are any, bool (n,).

        A vector that is not finite, or not of unit length, is none; what stands in its column means nothing.

        Raises:
            InvalidVector: of another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._rows.shape[1]:
            raise InvalidVector(f"The vectors have {vectors.shape[-1]} values, not {self._rows.shape[1]}.")
        count = len(vectors)
        whole = np.zeros((-(-count // _LANES) * _LANES, vectors.shape[1]), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(vectors, np.float32(_SCALE), out=whole[:count])
            np.rint(whole, out=whole)
            lengths = np.sqrt(np.einsum("ij,ij->i", whole, whole)[:count]) / _SCALE
            # NaN compares false.
            usable = np.abs(lengths - 1) <= _MOST_OFF
        if not usable.all():
            whole[:count][~usable] = 0
        cosines = self._rows @ whole.T
        cosines *= np.float32(1 / _SCALE**2)
        return cosines, usable
