"""Precision and recall over all thresholds of one set of scores, and the threshold that serves a goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.evaluation.estimate import Estimate
from indexer.moderation.learning.estimates import Measured, Ruled, Tally, measure, points, tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.moderation.learning.samples import Floats, Sample

_MOST_THRESHOLDS = 256
_MOST_POINTS = 60
_LEAST_FIRED = 10
"""Reviewed items from a threshold on: fewer say nothing of its precision."""
_DRAWS = 500
"""For each point of a band, which nobody reads to the third digit."""


@dataclass(frozen=True)
class Point:
    """One threshold of a curve."""

    threshold: float
    recall: float
    precision: Estimate


class Curve:
    """Scores of the reviewed items, held out from what made them, and of the collection's.

    Usage:
        curve = Curve(sample, scores, population_scores, digits=6)
        threshold = curve.choose(precision=0.95)
        curve.measure(threshold)
    """

    def __init__(
        self,
        sample: Sample,
        scores: Floats,
        population_scores: NDArray[np.floating],
        *,
        digits: int,
        within: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        """`digits` are those after the point that thresholds are rounded to; they are strictly `within` the two."""
        self.scores = scores
        self._sample, self._population_scores = sample, population_scores
        self._thresholds = _thresholds(scores, digits)
        self._thresholds = self._thresholds[(self._thresholds > within[0]) & (self._thresholds < within[1])]
        self._tally = self._counted(self._thresholds)

    def choose(self, precision: float | None) -> float | None:
        """The threshold of the highest recall at that precision, or of the highest F1 for None; None if there is none.

        It goes by the estimates, not by their intervals: few reviewed items would reach a precision at their lower end.
        """
        precisions, recalls, f1s = points(self._tally)
        worth = f1s if precision is None else np.where(precisions >= precision, recalls, 0.0)
        worth = np.where(self._tally.reviewed[:, :, 1].sum(axis=1) >= _LEAST_FIRED, np.nan_to_num(worth), 0.0)
        best = int(worth.argmax()) if len(worth) else 0
        return float(self._thresholds[best]) if len(worth) and worth[best] > 0 else None

    def measure(self, threshold: float, seed: int = 0) -> Measured:
        """How well a threshold does in the collection."""
        return measure(self._counted(np.array([threshold])), seed)

    def at(self, threshold: float) -> Ruled:
        """The reviewed items at a threshold, to be compared with another's."""
        fired = self.scores >= threshold
        weights = self._counted(np.array([threshold])).weights[0]
        return Ruled(self.scores, fired, weights[self._sample.strata, fired.astype(np.int64)])

    def points(self, seed: int = 0) -> list[Point]:
        """The curve, by falling recall: some 60 thresholds, evenly over it."""
        precisions, recalls, _ = points(self._tally)
        enough = self._tally.reviewed[:, :, 1].sum(axis=1) >= _LEAST_FIRED / 2
        there = np.flatnonzero(enough & (recalls > 0) & ~np.isnan(precisions))
        if not len(there):
            return []
        # Recall falls as thresholds rise: equal steps of it, not of the threshold, which may say little for long.
        wanted = np.linspace(recalls[there[0]], recalls[there[-1]], _MOST_POINTS)
        chosen = np.unique(there[np.minimum(np.searchsorted(-recalls[there], -wanted), len(there) - 1)])
        found = []
        for index in chosen:
            measured = measure(self._tally.at(int(index)), seed, _DRAWS)
            if measured.precision is not None:
                found.append(Point(float(self._thresholds[index]), float(recalls[index]), measured.precision))
        return found

    def _counted(self, thresholds: Floats) -> Tally:
        return tally(self._sample, self.scores, self._population_scores, thresholds)


def _thresholds(scores: Floats, digits: int) -> Floats:
    """Rising thresholds between the scores that occur, closest together where the scores are highest."""
    different = np.unique(scores[np.isfinite(scores)])
    between = np.unique(np.round((different[1:] + different[:-1]) / 2, digits))
    if len(between) > _MOST_THRESHOLDS:
        ranks = np.linspace(0, np.sqrt(len(between)), _MOST_THRESHOLDS) ** 2
        between = between[np.unique(len(between) - 1 - np.minimum(ranks.astype(np.int64), len(between) - 1))]
    return np.asarray(between, dtype=np.float64)
