"""Linear heads: logistic regression with L2 over vectors, its strength and its worth found by cross-validation.

Newton's method with the gradient in float64 and the Hessian in float32, which only steers the steps: 20,000 vectors of
768 values take a second or so a fit, and the optimum is met to 1e-8 (tests: scikit-learn's, and its gradient).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.evaluation.fit import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.moderation.learning.samples import Bools, Floats, Ints

FOLDS = 5
STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Of the penalty, beside the mean loss of an item; for n items it is scikit-learn's 1 / (n C)."""
_ROUNDS = 100
_FLAT = 1e-8
"""The gradient at which it is as good as zero."""
_BLOCK = 16_384


@dataclass(frozen=True)
class Head:
    """A head fitted on everything reviewed, and those fitted without each fold, by which alone it is judged."""

    weights: Floats
    """(d,)"""
    bias: float
    strength: float
    """Of the penalty; the one of `STRENGTHS` with the least loss on the items held out."""
    held_out: Floats
    """(n,): log-odds of every item, by the head that was fitted without it; classes are balanced."""
    fold_weights: Floats
    """(folds, d)"""
    fold_biases: Floats
    """(folds,)"""

    def logits(self, vectors: NDArray[np.float32], rows: Ints) -> NDArray[np.float32]:
        """Log-odds of some of the vectors by each fold's head, float32 (rows, folds)."""
        weights = self.fold_weights.T.astype(np.float32)
        found = np.empty((len(rows), len(self.fold_biases)), dtype=np.float32)
        for begin in range(0, len(rows), _BLOCK):
            some = rows[begin : begin + _BLOCK]
            found[begin : begin + _BLOCK] = vectors[some] @ weights + self.fold_biases.astype(np.float32)
        return found


def cross_validated(vectors: Floats, labels: Bools, groups: Ints | None = None, seed: int = 0) -> Head:
    """The head that tells vectors (n, d) with a label from the others, classes balanced; both have to be there.

    Folds are stratified, and keep groups whole; the same seed gives the same head.
    """
    targets = labels.astype(np.float64)
    folds = _folds(labels, groups, seed)
    numbers = np.unique(folds)
    fits: list[list[tuple[Floats, float]]] = [[] for _ in STRENGTHS]
    for fold in numbers:
        rest = folds != fold
        start = None
        for index, strength in enumerate(STRENGTHS):
            start = logistic(vectors[rest], targets[rest], balanced(labels[rest]), strength, start)
            fits[index].append(start)
    held_out = np.empty((len(STRENGTHS), len(labels)))
    for index, heads in enumerate(fits):
        for fold, (weights, bias) in zip(numbers, heads, strict=True):
            these = folds == fold
            held_out[index, these] = vectors[these] @ weights + bias
    losses = (balanced(labels) * (np.logaddexp(0, held_out) - targets * held_out)).sum(axis=1)
    best = int(losses.argmin())
    start = None
    for strength in STRENGTHS[: best + 1]:
        start = logistic(vectors, targets, balanced(labels), strength, start)
    assert start is not None  # noqa: S101 - there is at least one strength
    return Head(
        weights=start[0],
        bias=start[1],
        strength=STRENGTHS[best],
        held_out=held_out[best],
        fold_weights=np.stack([weights for weights, _ in fits[best]]),
        fold_biases=np.array([bias for _, bias in fits[best]]),
    )


def balanced(labels: Bools) -> Floats:
    """Weights that give both classes the same say, 1 on average."""
    share = min(max(float(labels.mean()), 1e-12), 1 - 1e-12)
    return np.where(labels, 0.5 / share, 0.5 / (1 - share))


def logistic(
    design: Floats, targets: Floats, weights: Floats, strength: float, start: tuple[Floats, float] | None = None
) -> tuple[Floats, float]:
    """Weights (d,) and bias that make least the weighted mean log loss plus strength / 2 * |weights|^2.

    Targets are probabilities (n,); the bias bears no penalty. `start` is where the search sets out from.
    """
    share = weights / weights.sum()
    mean = share @ design
    # Centred, so that the bias and the weights hardly pull at each other.
    centred = np.column_stack([design - mean, np.ones(len(design))])
    single = centred.astype(np.float32)
    penalty = np.append(np.full(design.shape[1], strength), 0.0)
    line = np.zeros(len(penalty)) if start is None else np.append(start[0], start[1] + mean @ start[0])

    def loss(at: Floats) -> float:
        values = centred @ at
        return float(share @ (np.logaddexp(0, values) - targets * values) + 0.5 * penalty @ at**2)

    for _ in range(_ROUNDS):
        probabilities = sigmoid(centred @ line)
        gradient = centred.T @ (share * (probabilities - targets)) + penalty * line
        if np.abs(gradient).max() < _FLAT:
            break
        curvature = share * np.maximum(probabilities * (1 - probabilities), 1e-10)
        rooted = single * np.sqrt(curvature)[:, None].astype(np.float32)
        hessian = (rooted.T @ rooted).astype(np.float64) + np.diag(penalty + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        size, before, slope = 1.0, loss(line), float(gradient @ step)
        while loss(line - size * step) > before - 1e-4 * size * slope and size > 1e-6:
            size /= 2  # a full step may overshoot where the curve is flat
        line = line - size * step
        if size <= 1e-6:
            break  # no step betters it any more: that is as exact as numbers get
    return line[:-1], float(line[-1] - mean @ line[:-1])


def calibration(logits: Floats, labels: Bools, weights: Floats) -> tuple[float, float]:
    """Scale and bias that make held-out log-odds those at the collection's base rate (Platt 1999).

    His softened targets keep the scale finite where a line divides the classes.
    """
    positive, negative = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    deviation = max(float(logits.std()), 1e-9)
    (slope,), bias = logistic((logits / deviation)[:, None], targets, weights, 1e-6)
    return float(slope / deviation), bias


def _folds(labels: Bools, groups: Ints | None, seed: int) -> Ints:
    """The fold of every item: groups with a positive item are dealt out first, then the others, in random order."""
    _, group = np.unique(np.arange(len(labels)) if groups is None else groups, return_inverse=True)
    positive = np.zeros(group.max() + 1, dtype=bool)
    positive[group[labels]] = True
    order = np.random.default_rng(seed).permutation(len(positive))
    order = order[np.argsort(~positive[order], kind="stable")]
    fold = np.empty(len(positive), dtype=np.int64)
    fold[order] = np.arange(len(positive)) % FOLDS
    return np.asarray(fold[group], dtype=np.int64)
