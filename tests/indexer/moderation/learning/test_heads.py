"""Heads: the optimum is scikit-learn's, separated classes keep it finite, folds are as they should be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.evaluation.fit import sigmoid
from indexer.moderation.learning.heads import FOLDS, _folds, balanced, calibration, cross_validated, logistic


def clusters(seed: int, count: int, dimension: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    vectors = rng.standard_normal((count, dimension))
    vectors[:, 0] += apart * labels
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5])
def test_optimum_is_that_of_scikit_learn(strength: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with the export extra")
    vectors, labels = clusters(0, 300, 48, 1.5)
    weights, bias = logistic(vectors, labels.astype(float), balanced(labels), strength)
    theirs = linear_model.LogisticRegression(
        C=1 / (len(labels) * strength), class_weight="balanced", tol=1e-10, max_iter=10_000
    ).fit(vectors, labels)
    scale = np.abs(theirs.coef_).max()
    assert np.abs(weights - theirs.coef_[0]).max() < 1e-4 * scale
    assert bias == pytest.approx(theirs.intercept_[0], abs=1e-4 * scale)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(2, 60),
    dimension=st.integers(1, 40),
    seed=st.integers(0, 1000),
    strength=st.sampled_from([1e-1, 1e-3, 1e-5]),
    started=st.booleans(),
)
def test_gradient_is_zero_at_the_optimum(count: int, dimension: int, seed: int, strength: float, started: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors, targets, each = rng.standard_normal((count, dimension)), rng.random(count), rng.random(count) + 0.1
    start = (rng.standard_normal(dimension), 1.0) if started else None
    weights, bias = logistic(vectors, targets, each, strength, start)
    wrong = each / each.sum() * (sigmoid(vectors @ weights + bias) - targets)
    assert np.abs(vectors.T @ wrong + strength * weights).max() < 1e-6
    assert abs(wrong.sum()) < 1e-6


def test_separated_classes_keep_weights_finite() -> None:
    vectors, labels = clusters(1, 200, 6, 0.0)
    vectors[:, 0] = np.where(labels, 0.2, -0.2)
    head = cross_validated(vectors, labels)
    assert np.isfinite(head.weights).all() and np.linalg.norm(head.weights) < 1e4
    assert ((head.held_out > 0) == labels).all()
    scale, bias = calibration(head.held_out, labels, np.where(labels, 1.0, 99.0))
    assert 0 < scale < 1e3 and np.isfinite(bias)


def test_vectors_that_are_all_the_same_tell_nothing() -> None:
    labels = np.arange(60) % 2 == 0
    head = cross_validated(np.full((60, 4), 0.5), labels)
    assert np.abs(head.weights).max() < 1e-6
    assert np.abs(head.held_out).max() < 0.2


def test_every_item_is_scored_by_a_head_that_never_saw_it() -> None:
    # Labels are drawn: a head that had seen an item in 200 dimensions would know it.
    rng = np.random.default_rng(2)
    vectors, labels = rng.standard_normal((160, 200)), rng.random(160) < 0.5
    head = cross_validated(vectors, labels)
    assert 0.3 < ((head.held_out > 0) == labels).mean() < 0.7
    assert (((vectors @ head.weights + head.bias) > 0) == labels).mean() > 0.9


def test_fold_heads_score_rows_of_the_collection_as_held_out() -> None:
    vectors, labels = clusters(3, 120, 5, 1.0)
    head = cross_validated(vectors, labels, seed=7)
    logits = head.logits(vectors.astype(np.float32), np.arange(120))
    assert logits.shape == (120, FOLDS)
    nearest = np.abs(logits - head.held_out[:, None]).min(axis=1)
    assert nearest.max() < 1e-3 * np.abs(head.held_out).max()


@settings(deadline=None)
@given(count=st.integers(40, 300), positives=st.integers(20, 39), groups=st.integers(0, 50), seed=st.integers(0, 99))
def test_folds_are_stratified_and_keep_groups_whole(count: int, positives: int, groups: int, seed: int) -> None:
    labels = np.arange(count) < positives
    group = None if not groups else np.random.default_rng(seed).integers(0, groups + 20, count)
    folds = _folds(labels, group, seed)
    assert set(folds) <= set(range(FOLDS))
    if group is None:
        shares = [int(labels[folds == fold].sum()) for fold in range(FOLDS)]
        assert max(shares) - min(shares) <= 1
    else:
        assert all(len(set(folds[group == each])) == 1 for each in np.unique(group))


def test_calibration_gives_the_base_rate() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(4000) % 2 == 0
    logits = rng.standard_normal(4000) + 2.0 * labels
    weights = np.where(labels, 1.0, 99.0)
    scale, bias = calibration(logits, labels, weights)
    likely = sigmoid(scale * logits + bias)
    assert (weights * likely).sum() / weights.sum() == pytest.approx(0.01, rel=0.1)
    assert scale == pytest.approx(2.0, rel=0.15)  # equal Gaussians two apart: log-odds are 2 x and a constant


def test_fold_heads_are_fitted_as_the_head_is() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(2000) % 20 == 0
    vectors = rng.standard_normal((2000, 4)) + labels[:, None]
    head = cross_validated(vectors, labels)
    assert head.fold_biases == pytest.approx(head.bias, abs=0.5)  # classes that are not balanced are at 3 from it
    assert head.fold_weights == pytest.approx(np.tile(head.weights, (FOLDS, 1)), abs=0.5)
