"""Results that differ from each other: maximal marginal relevance.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CANDIDATES = 200
"""Results among which a diverse list is chosen, at least."""


def diverse_order(scores: Floats, vectors: Floats, diversity: float) -> list[int]:
    """The places of candidates in the order of marginal relevance.

    `scores` is float32 (n,), `vectors` float32 (n, dimension) and L2-normalised. `diversity` 0 gives the order of the
    scores; 1 looks for nothing but difference once the best is chosen. Scores and likenesses are each brought to
    0..1 over the candidates first: a text's cosines with photos are small beside those of photos with one another.
    """
    count = len(scores)
    if not count:
        return []
    relevance = _to_unit(scores)
    alike = _to_unit(vectors @ vectors.T)
    chosen = [int(np.argmax(relevance))]
    left = np.ones(count, dtype=bool)
    left[chosen[0]] = False
    nearest = alike[chosen[0]].copy()
    while len(chosen) < count:
        worth = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(worth))
        chosen.append(best)
        left[best] = False
        np.maximum(nearest, alike[best], out=nearest)
    return chosen


def _to_unit(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    return np.zeros_like(values) if high - low < 1e-9 else (values - low) / (high - low)
