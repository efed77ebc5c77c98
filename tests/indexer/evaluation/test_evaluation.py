"""Evaluation: ranks and their bounds, pairs from a file, and a logistic that gives back what made the data."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.classify.scoring import BASE_RATE
from indexer.errors import InvalidRequest
from indexer.evaluation.fit import LEAST_PAIRS, Scored, fit, log_loss, logistic, reliability, sigmoid, weights_of
from indexer.evaluation.measure import metrics_of
from indexer.evaluation.pairs import ImageQuery, read_pairs
from indexer.models.manifest import Calibration


def test_figures_of_ranks() -> None:
    found = metrics_of([1, 2, 6, None])
    assert found["recall@1"].value == 0.25
    assert found["recall@5"].value == 0.5
    assert found["recall@10"].value == 0.75
    assert found["mrr"].value == pytest.approx((1 + 1 / 2 + 1 / 6) / 4)


@given(st.lists(st.none() | st.integers(1, 100), min_size=1, max_size=50))
def test_bounds_hold_the_value_and_are_the_same_each_time(ranks: list[int | None]) -> None:
    found = metrics_of(ranks)
    assert found == metrics_of(ranks)
    for each in found.values():
        assert 0 <= each.low <= each.value <= each.high <= 1


def test_bounds_are_those_of_a_share() -> None:
    share = metrics_of([1] * 300 + [50] * 100)["recall@1"]
    deviation = (0.75 * 0.25 / 400) ** 0.5  # of a binomial's mean
    assert share.low == pytest.approx(0.75 - 1.96 * deviation, abs=0.01)
    assert share.high == pytest.approx(0.75 + 1.96 * deviation, abs=0.01)


def test_pairs_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "relevant": ["x"]}\n\n{"query": {"image": "q.png"}, "relevant": ["y", "z"]}\n')
    pairs = read_pairs(path)
    assert [pair.modality for pair in pairs] == ["text", "image"]
    assert pairs[1].query == ImageQuery(image="q.png")


@pytest.mark.parametrize(
    "line",
    [
        '{"query": "a"}',
        '{"query": "", "relevant": ["x"]}',
        '{"query": "a", "relevant": []}',
        "[1]",
        "no json",
        "\ufffe",
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "relevant": ["x"]}\n' + line + "\n")
    with pytest.raises(InvalidRequest, match=r"pairs\.jsonl:2"):
        read_pairs(path)


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name in ("empty.jsonl", "none.jsonl"):
        with pytest.raises(InvalidRequest):
            read_pairs(tmp_path / name)


def drawn(scale: float, bias: float, count: int = 40_000, queries: int = 400) -> Scored:
    """Cosines whose matches follow a logistic."""
    random = np.random.default_rng(1)
    cosines = random.uniform(-0.2, 0.8, count)
    matches = random.random(count) < sigmoid(scale * cosines + bias)
    return Scored(cosines, matches, np.arange(count) % queries)


def test_the_logistic_that_made_the_data_comes_back() -> None:
    scored = drawn(15, -7)
    scale, bias = logistic(scored.cosines, scored.matches, np.ones(len(scored.cosines)))
    assert scale == pytest.approx(15, rel=0.05)
    assert bias == pytest.approx(-7, rel=0.05)


def test_it_is_fitted_for_one_match_in_a_hundred_and_held_out_predictions_are_reliable() -> None:
    scored = drawn(15, -7)
    fitted = fit(scored, "text_to_image", Calibration(scale=1, bias=0, fitted_on="nothing"))
    share = scored.matches.mean()
    moved = np.log(BASE_RATE / (1 - BASE_RATE)) - np.log(share / (1 - share))
    assert fitted.scale == pytest.approx(15, rel=0.05)
    assert fitted.bias == pytest.approx(-7 + moved, rel=0.05)
    weights = weights_of(scored.matches)
    assert (weights * scored.matches).sum() / weights.sum() == pytest.approx(BASE_RATE)
    assert weights.mean() == pytest.approx(1)
    assert fitted.log_loss < fitted.log_loss_of_base_rate
    assert fitted.log_loss_before is not None
    assert fitted.log_loss < fitted.log_loss_before
    for each in fitted.reliability:
        assert each.low <= each.predicted <= each.high
        if each.count > 200:
            assert each.observed == pytest.approx(each.predicted, rel=0.25, abs=0.01)
    assert sum(each.count for each in fitted.reliability) == len(scored.cosines)


def test_no_smaller_loss_is_near_by() -> None:
    scored = drawn(8, -3, count=5_000)
    weights = weights_of(scored.matches)
    scale, bias = logistic(scored.cosines, scored.matches, weights)

    def loss(scale: float, bias: float) -> float:
        return log_loss(sigmoid(scale * scored.cosines + bias), scored.matches, weights)

    for scale_by, bias_by in ((0.1, 0), (-0.1, 0), (0, 0.05), (0, -0.05)):
        assert loss(scale, bias) < loss(scale + scale_by, bias + bias_by)


def test_where_a_line_divides_them_it_stays_finite() -> None:
    cosines = np.concatenate([np.full(50, 0.9), np.full(5_000, 0.1)])
    matches = cosines > 0.5
    scale, bias = logistic(cosines, matches, weights_of(matches))
    assert np.isfinite([scale, bias]).all()
    assert sigmoid(np.array([scale * 0.9 + bias]))[0] > 0.99
    assert sigmoid(np.array([scale * 0.1 + bias]))[0] < 0.01


def test_too_little_is_refused() -> None:
    cosines = np.linspace(0, 1, 1_000)

    def scored(positives: int, cosines: np.ndarray = cosines) -> Scored:
        return Scored(cosines, np.arange(len(cosines)) >= len(cosines) - positives, np.arange(len(cosines)))

    with pytest.raises(InvalidRequest, match=f"{LEAST_PAIRS - 1} pairs are too few"):
        fit(scored(LEAST_PAIRS - 1), "text_to_image")
    assert fit(scored(LEAST_PAIRS), "text_to_image").pairs == LEAST_PAIRS
    with pytest.raises(InvalidRequest, match="too few other items"):
        fit(scored(50, np.linspace(0, 1, 200)), "text_to_image")
    with pytest.raises(InvalidRequest, match="no nearer"):
        fit(scored(50, cosines[::-1].copy()), "text_to_image")


def test_empty_ranges_are_left_out() -> None:
    bins = reliability(np.array([0.02, 1.0]), np.array([False, True]), np.ones(2))
    assert [(each.low, each.high, each.count) for each in bins] == [(0.01, 0.05, 1), (0.9, 1.0, 1)]
    assert json.dumps([each.observed for each in bins]) == "[0.0, 1.0]"
