"""A logistic from cosine to the probability of a match, fitted on pairs: `crosslens eval --fit`.

Positives are the pairs; negatives are the collection's other items. They are weighted as if one item in a hundred
matched a query, as the models' own calibrations are (`models.manifest.Calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.classify.scoring import BASE_RATE
from indexer.errors import InvalidRequest

if TYPE_CHECKING:
    from indexer.models.manifest import Calibration

LEAST_PAIRS = 30
LEAST_NEGATIVES = 300
"""Cosines of items that do not match: below that, the pairs decide nothing."""
_FOLDS = 5
_ROUNDS = 100
_RIDGE = 1e-6
"""On the slope, in standard deviations of the cosine: it stays finite where a line divides the classes."""
_EDGES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Cosines of queries with items, and which match."""

    cosines: Floats
    """(n,)"""
    matches: NDArray[np.bool_]
    """(n,)"""
    queries: NDArray[np.int64]
    """(n,): whose cosine it is."""


@dataclass(frozen=True)
class Bin:
    """Those with a predicted probability of a range."""

    low: float
    high: float
    count: int
    predicted: float
    """Their mean predicted probability, weighted."""
    observed: float
    """How many of them match, weighted."""


@dataclass(frozen=True)
class Fitted:
    """A logistic, and how well it predicts queries that it was not fitted on."""

    scale: float
    bias: float
    pairs: int
    log_loss: float
    """Mean, weighted, over held-out queries (five folds)."""
    log_loss_of_base_rate: float
    """The same when every probability is the base rate: what is no better says nothing."""
    log_loss_before: float | None
    """The same with the model's own calibration, if it has one."""
    reliability: list[Bin]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "scale": round(self.scale, 4),
            "bias": round(self.bias, 4),
            "pairs": self.pairs,
            "log_loss": round(self.log_loss, 5),
            "log_loss_of_base_rate": round(self.log_loss_of_base_rate, 5),
            "log_loss_before": None if self.log_loss_before is None else round(self.log_loss_before, 5),
            "reliability": [
                {
                    "from": each.low,
                    "to": each.high,
                    "count": each.count,
                    "predicted": round(each.predicted, 4),
                    "observed": round(each.observed, 4),
                }
                for each in self.reliability
            ],
        }


def fit(scored: Scored, direction: str, before: Calibration | None = None) -> Fitted:
    """Fit a direction's logistic. `before` is the calibration that it would take the place of.

    Raises:
        InvalidRequest: too few pairs or items, or matches are no nearer than others.
    """
    pairs, negatives = len(np.unique(scored.queries[scored.matches])), int((~scored.matches).sum())
    if pairs < LEAST_PAIRS:
        raise InvalidRequest(
            f"{direction}: {pairs} pairs are too few to fit probabilities on; {LEAST_PAIRS} are needed.",
            remedy="Add pairs, or leave out --fit.",
        )
    if negatives < LEAST_NEGATIVES:
        raise InvalidRequest(
            f"{direction}: the collection has too few other items to tell matches from ({negatives} comparisons).",
            remedy="Ingest more, or leave out --fit.",
        )
    weights = weights_of(scored.matches)
    scale, bias = logistic(scored.cosines, scored.matches, weights)
    if scale <= 0:
        raise InvalidRequest(
            f"{direction}: what matches is no nearer to its query than what does not.",
            remedy="Check the pairs: each names what its query should find.",
        )
    held_out = _held_out(scored)
    return Fitted(
        scale=scale,
        bias=bias,
        pairs=pairs,
        log_loss=log_loss(held_out, scored.matches, weights),
        log_loss_of_base_rate=log_loss(np.full(len(weights), BASE_RATE), scored.matches, weights),
        log_loss_before=None
        if before is None
        else log_loss(sigmoid(before.scale * scored.cosines + before.bias), scored.matches, weights),
        reliability=reliability(held_out, scored.matches, weights),
    )


def logistic(cosines: Floats, matches: NDArray[np.bool_], weights: Floats) -> tuple[float, float]:
    """Scale and bias of the weighted logistic regression of matches on cosines, by Newton's method."""
    mean, deviation = float(cosines.mean()), max(float(cosines.std()), 1e-9)
    design = np.stack([(cosines - mean) / deviation, np.ones(len(cosines))], axis=1)
    right = matches.astype(np.float64)
    ridge = np.array([_RIDGE * weights.sum(), 0.0])
    share = float((weights * right).sum() / weights.sum())
    line = np.array([0.0, np.log(share / (1 - share))])
    for _ in range(_ROUNDS):
        before = _loss(line, design, right, weights, ridge)
        probabilities = sigmoid(design @ line)
        gradient = design.T @ (weights * (probabilities - right)) + ridge * line
        curvature = weights * np.maximum(probabilities * (1 - probabilities), 1e-12)
        step = np.linalg.solve(design.T @ (design * curvature[:, None]) + np.diag(ridge + 1e-12), gradient)
        size = 1.0
        while _loss(line - size * step, design, right, weights, ridge) > before and size > 1e-6:
            size /= 2  # a full step may overshoot where the curve is flat
        line = line - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    scale = float(line[0] / deviation)
    return scale, float(line[1] - scale * mean)


def _loss(line: Floats, design: Floats, right: Floats, weights: Floats, ridge: Floats) -> float:
    values = design @ line
    return float((weights * (np.logaddexp(0, values) - right * values)).sum() + 0.5 * (ridge * line**2).sum())


def weights_of(matches: NDArray[np.bool_]) -> Floats:
    """Weights that make one in a hundred a match, 1 on average."""
    share = matches.mean()
    return np.asarray(np.where(matches, BASE_RATE / share, (1 - BASE_RATE) / (1 - share)), dtype=np.float64)


def _held_out(scored: Scored) -> Floats:
    """Every probability, from a logistic that was fitted without its query."""
    predicted = np.empty(len(scored.cosines))
    queries = np.unique(scored.queries)
    folds = np.random.default_rng(0).permutation(len(queries)) % _FOLDS
    fold_of = folds[np.searchsorted(queries, scored.queries)]
    for fold in range(_FOLDS):
        rest, these = fold_of != fold, fold_of == fold
        scale, bias = logistic(scored.cosines[rest], scored.matches[rest], weights_of(scored.matches[rest]))
        predicted[these] = sigmoid(scale * scored.cosines[these] + bias)
    return predicted


def log_loss(predicted: Floats, matches: NDArray[np.bool_], weights: Floats) -> float:
    """The weighted mean of what each prediction costs, in nats."""
    sure = np.clip(predicted, 1e-12, 1 - 1e-12)
    return float((weights * -np.where(matches, np.log(sure), np.log1p(-sure))).sum() / weights.sum())


def reliability(predicted: Floats, matches: NDArray[np.bool_], weights: Floats) -> list[Bin]:
    """Predicted beside observed shares, range by range; empty ranges are left out."""
    bins = []
    for low, high in pairwise(_EDGES):
        inside = (predicted >= low) & ((predicted < high) | (high == 1.0))
        if inside.any():
            some = weights[inside]
            shares = [float((some * values[inside]).sum() / some.sum()) for values in (predicted, matches)]
            bins.append(Bin(low, high, int(inside.sum()), *shares))
    return bins


def scored_of(
    vectors: NDArray[np.float32], positives: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]
) -> Scored:
    """The cosines of queries, float32 (n, D), with what each should find (k, D) and with other items (m, D) of each."""
    cosines, matches, queries = [], [], []
    for number, (vector, right, wrong) in enumerate(zip(vectors, positives, others, strict=True)):
        cosines.append(np.concatenate([right, wrong]) @ vector)
        matches.append(np.arange(len(right) + len(wrong)) < len(right))
        queries.append(np.full(len(right) + len(wrong), number))
    return Scored(np.concatenate(cosines).astype(np.float64), np.concatenate(matches), np.concatenate(queries))


def sigmoid(values: Floats) -> Floats:
    """The logistic function."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))), dtype=np.float64)
