"""Precision and recall in the whole collection, estimated from a reviewed part of it, with intervals.

A cell is a stratum above or below a threshold: how many items of the collection are in it is known, how many of them
are of the category is estimated from those reviewed. The interval joins the cells' Clopper-Pearson bounds by melding
(Fay, Proschan and Brittain 2015, Biometrics 71: 146-156): precision is least with every cell at its lower confidence
distribution Beta(k, n - k + 1) and highest at the upper, Beta(k + 1, n - k); recall takes the opposite one below the
threshold. It errs on the wide side; a cell of which nothing was reviewed may hold anything from none to all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.evaluation.estimate import Estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.moderation.learning.samples import Bools, Floats, Sample

LEVEL = 0.95
_DRAWS = 2000
_RESAMPLES = 400


@dataclass(frozen=True)
class Measured:
    """How well a threshold does in the collection."""

    fired: float
    """The share of the collection that reaches it."""
    precision: Estimate | None
    """None where nothing reaches it."""
    recall: Estimate
    f1: Estimate
    base_rate: Estimate
    """The share of the collection that is of the category."""
    unreviewed: float
    """The share of what reaches it that is in cells of which nothing was reviewed."""

    def as_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "fired": round(self.fired, 6),
            "precision": self.precision.as_dict() if self.precision else None,
            "recall": self.recall.as_dict(),
            "f1": self.f1.as_dict(),
            "unreviewed": round(self.unreviewed, 4),
        }


@dataclass(frozen=True)
class Tally:
    """Counts by cell for T thresholds: (T, strata, 2), the last axis being below and from the threshold on."""

    items: Floats
    """Of the collection."""
    reviewed: Floats
    positive: Floats
    """Of the reviewed."""
    sampled: bool
    """Whether `items` was estimated from a sample."""
    scale: float

    @property
    def weights(self) -> Floats:
        """(T, strata, 2): how many items of the collection a reviewed one of the cell stands for."""
        return np.asarray(self.items / np.maximum(self.reviewed, 1), dtype=np.float64)

    @property
    def positives(self) -> Floats:
        """(T, strata, 2): estimated of the collection. A cell without a reviewed item is taken to be as its stratum,
        and a stratum without one to hold none.
        """
        stratum = self.positive.sum(axis=2, keepdims=True) / np.maximum(self.reviewed.sum(axis=2, keepdims=True), 1)
        rate = np.where(self.reviewed > 0, self.positive / np.maximum(self.reviewed, 1), stratum)
        return np.asarray(rate * self.items, dtype=np.float64)

    def at(self, index: int) -> Tally:
        """Of one threshold alone."""
        one = slice(index, index + 1)
        return Tally(self.items[one], self.reviewed[one], self.positive[one], self.sampled, self.scale)


def tally(sample: Sample, scores: Floats, population_scores: NDArray[np.floating], thresholds: Floats) -> Tally:
    """Count what is below and from each threshold (rising) on.

    Scores are (r,) of the reviewed; of the collection's items (p,), or (p, folds) of which the mean is taken.
    """
    many = population_scores.reshape(len(population_scores), -1)
    items = np.zeros((len(thresholds), sample.count, 2))
    for column in many.T:
        items += _counts(column, sample.population_strata, None, thresholds, sample.count)
    items *= sample.scale / many.shape[1]
    reviewed = _counts(scores, sample.strata, None, thresholds, sample.count)
    positive = _counts(scores, sample.strata, sample.labels, thresholds, sample.count)
    # Items that were reviewed and are no part of the sample are of the collection all the same.
    return Tally(np.maximum(items, reviewed), reviewed, positive, sample.scale > 1, sample.scale)


def _counts(
    scores: NDArray[np.floating], strata: NDArray[np.int64], only: Bools | None, thresholds: Floats, count: int
) -> Floats:
    if only is not None:
        scores, strata = scores[only], strata[only]
    reached = np.searchsorted(thresholds, scores, side="right")
    width = len(thresholds) + 1
    table = np.bincount(strata * width + reached, minlength=count * width).reshape(count, width)
    below = np.cumsum(table, axis=1)[:, :-1]
    return np.stack([below, table.sum(axis=1, keepdims=True) - below], axis=2).swapaxes(0, 1).astype(np.float64)


def points(counted: Tally) -> tuple[Floats, Floats, Floats]:
    """Precision (NaN where nothing fires), recall and F1 of every threshold, (T,) each."""
    positives, fired = counted.positives, counted.items[:, :, 1].sum(axis=1)
    right, every = positives[:, :, 1].sum(axis=1), positives.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return right / fired, np.nan_to_num(right / every), np.nan_to_num(2 * right / (fired + every))


def measure(counted: Tally, seed: int = 0, draws: int = _DRAWS) -> Measured:
    """Estimates with intervals of a tally of one threshold."""
    rng = np.random.default_rng(seed)
    items, reviewed, positive = counted.items[0], counted.reviewed[0], counted.positive[0]
    shape = (draws, *items.shape)
    drawn = np.broadcast_to(items, shape)
    if counted.sampled:  # how many items a cell has is known from the sample's count alone
        drawn = np.maximum(rng.gamma(np.maximum(items / counted.scale, 1e-9), counted.scale, size=shape), reviewed)
    left = np.rint(drawn - reviewed).astype(np.int64)
    ends = []
    for extra in (0, 1):
        rate = rng.beta(np.maximum(positive + extra, 1e-12), np.maximum(reviewed - positive + 1 - extra, 1e-12), shape)
        # What is certain, and what was never looked at: a beta distribution needs both of its sides above zero.
        rate = np.where(positive + extra == 0, 0.0, np.where(reviewed - positive + 1 - extra == 0, 1.0, rate))
        ends.append(positive + rng.binomial(left, rate))
    low, high = ends
    fired = drawn[:, :, 1].sum(axis=1)
    precision, recall, f1 = (float(each[0]) for each in points(counted))
    total = items.sum()
    (right_low, right_high), (missed_low, missed_high) = (
        (low[:, :, side].sum(axis=1), high[:, :, side].sum(axis=1)) for side in (1, 0)
    )

    def interval(value: float, lows: Floats, highs: Floats) -> Estimate:
        least = float(np.quantile(lows, (1 - LEVEL) / 2))
        most = float(np.quantile(highs, (1 + LEVEL) / 2))
        # Shares of a fold are no whole numbers of items, so that one may come out just above 1.
        return Estimate(value, min(least, value), min(max(most, value), 1.0))

    return Measured(
        fired=float(items[:, 1].sum() / total),
        precision=None
        if not items[:, 1].any()
        else interval(precision, right_low / np.maximum(fired, 1e-9), right_high / np.maximum(fired, 1e-9)),
        recall=interval(recall, _share(right_low, missed_high), _share(right_high, missed_low)),
        f1=interval(
            f1,
            2 * right_low / np.maximum(fired + right_low + missed_high, 1e-9),
            2 * right_high / np.maximum(fired + right_high + missed_low, 1e-9),
        ),
        base_rate=interval(
            float(counted.positives.sum() / total),
            (right_low + missed_low) / drawn.sum(axis=(1, 2)),
            (right_high + missed_high) / drawn.sum(axis=(1, 2)),
        ),
        unreviewed=float(items[reviewed[:, 1] == 0, 1].sum() / max(items[:, 1].sum(), 1e-9)),
    )


def _share(right: Floats, missed: Floats) -> Floats:
    return np.asarray(right / np.maximum(right + missed, 1e-9), dtype=np.float64)


def average_precision(scores: Floats, labels: Bools, weights: Floats) -> Floats:
    """The area under the precision-recall curve, for weights (..., r): as scikit-learn's, ties together."""
    order = np.argsort(-scores, kind="stable")
    ordered, right = weights[..., order], labels[order]
    last = np.append(np.flatnonzero(scores[order][1:] != scores[order][:-1]), len(order) - 1)
    hits = np.cumsum(ordered * right, axis=-1)[..., last]
    fired = np.cumsum(ordered, axis=-1)[..., last]
    gained = np.diff(hits, axis=-1, prepend=0)
    return np.asarray((gained * hits / np.maximum(fired, 1e-300)).sum(axis=-1) / hits[..., -1], dtype=np.float64)


def ordering(sample: Sample, scores: Floats, seed: int = 0) -> Estimate:
    """How often an item of the category scores higher than one that is not, of the collection: 0.5 by chance.

    It is the area under the ROC curve, with a Bayesian bootstrap's interval. Average precision would not do for telling
    scores from chance: of scores that say nothing, it comes out above the base rate.
    """
    rng = np.random.default_rng(seed)
    count = len(scores)
    weights = sample.weights * np.vstack([np.ones(count), rng.exponential(size=(_RESAMPLES, count))])
    different, place = np.unique(scores, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(different)))
    right, wrong = (
        np.add.reduceat((weights * some)[:, order], starts, axis=1) for some in (sample.labels, ~sample.labels)
    )
    below = np.cumsum(wrong, axis=1) - wrong / 2
    area = (right * below).sum(axis=1) / (right.sum(axis=1) * wrong.sum(axis=1))
    return Estimate(
        float(area[0]), *(float(each) for each in np.quantile(area[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    )


@dataclass(frozen=True)
class Ruled:
    """Scores with a threshold, and how many items of the collection each reviewed one stands for at it: (r,) each."""

    scores: Floats
    fired: Bools
    weights: Floats


def differences(sample: Sample, before: Ruled, after: Ruled, seed: int = 0) -> dict[str, Estimate]:
    """By how much one does better than another on the same reviewed items.

    A Bayesian bootstrap (Rubin 1981) of the reviewed items, both sides with the same draws: of `average_precision`,
    `precision`, `recall` and `f1`. Cells without a reviewed item do not count.
    """
    rng = np.random.default_rng(seed)
    count = len(sample.labels)
    drawn = np.vstack([np.ones(count), rng.exponential(size=(_RESAMPLES, count))])
    everywhere = sample.weights * drawn
    both = []
    for ruled in (before, after):
        right, fired, every = (
            drawn @ (ruled.weights * some) for some in (ruled.fired & sample.labels, ruled.fired, sample.labels)
        )
        both.append(
            {
                "average_precision": average_precision(ruled.scores, sample.labels, everywhere),
                "precision": right / np.maximum(fired, 1e-300),
                "recall": right / every,
                "f1": 2 * right / (fired + every),
            }
        )
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        name: Estimate(float(gain[0]), *(float(each) for each in np.quantile(gain[1:], ends)))
        for name, gain in ((name, both[1][name] - both[0][name]) for name in both[0])
    }
