"""Estimates: right where the truth is known, whatever was picked for review."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.moderation.learning.curves import Curve
from indexer.moderation.learning.estimates import Tally, average_precision, measure, points, tally
from indexer.moderation.learning.samples import Population, Reviewed, Sample, sample_of
from tests.indexer.moderation.learning.worlds import World, as_reviewers_see, world


def sample(made: World, rows: np.ndarray) -> Sample:
    found = sample_of(0, made.reviewed(rows), made.population)
    assert isinstance(found, Sample)
    return found


def at(made: World, rows: np.ndarray, threshold: float = 0.5, seed: int = 0, draws: int = 500):
    taken = sample(made, rows)
    return measure(tally(taken, taken.present, taken.population_present, np.array([threshold])), seed=seed, draws=draws)


def truth(made: World, threshold: float = 0.5) -> tuple[float, float, float]:
    fired = made.present >= threshold
    return made.truth[fired].mean(), made.truth[fired].sum() / made.truth.sum(), made.truth.mean()


def test_a_biased_review_at_a_base_rate_of_1_percent_is_covered() -> None:
    inside, naive = [], []
    for seed in range(100):
        made = world(seed)
        rows = as_reviewers_see(made, seed, count=1000)
        measured = at(made, rows, seed=seed)
        precision, recall, rate = truth(made)
        inside.append(
            [
                interval.low <= true <= interval.high
                for interval, true in (
                    (measured.precision, precision),
                    (measured.recall, recall),
                    (measured.base_rate, rate),
                )
            ]
        )
        naive.append(made.truth[rows].mean())
    covered = np.mean(inside, axis=0)
    assert (covered >= 0.9).all(), covered
    assert np.mean(naive) > 0.03  # what was reviewed looks three times as bad as the collection


def test_intervals_are_not_idly_wide() -> None:
    made = world(3, base_rate=0.2)
    few, many = (at(made, as_reviewers_see(made, 3, count=count)).precision for count in (500, 8000))
    assert few is not None and many is not None
    assert many.high - many.low < 0.06 < few.high - few.low < 0.3


def test_what_was_reviewed_in_full_is_known() -> None:
    made = world(4, count=3000, base_rate=0.1)
    measured = at(made, np.arange(3000))
    precision, recall, rate = truth(made)
    assert measured.precision is not None
    for interval, true in ((measured.precision, precision), (measured.recall, recall), (measured.base_rate, rate)):
        assert (interval.value, interval.low, interval.high) == pytest.approx((true, true, true))


def test_a_sample_of_the_collection_stands_for_all_of_it() -> None:
    made = world(5, base_rate=0.1)
    rows = as_reviewers_see(made, 5, count=1000)
    some = np.sort(np.random.default_rng(5).choice(20_000, 4000, replace=False))
    part = Population(made.vectors[some], made.present[some, None], made.images[some], size=20_000)
    taken = sample_of(0, made.reviewed(rows, placed=False), part)
    assert isinstance(taken, Sample)
    assert taken.scale == 5
    measured = measure(tally(taken, taken.present, taken.population_present, np.array([0.5])))
    precision, _, rate = truth(made)
    assert measured.precision is not None and measured.precision.low <= precision <= measured.precision.high
    assert measured.base_rate.low <= rate <= measured.base_rate.high
    assert measured.fired == pytest.approx((made.present >= 0.5).mean(), rel=0.2)
    whole = at(made, rows)
    assert whole.precision is not None
    assert measured.recall.high - measured.recall.low > 0.9 * (whole.recall.high - whole.recall.low)


def test_where_nothing_was_reviewed_anything_may_be() -> None:
    made = world(6, base_rate=0.05)
    rows = np.flatnonzero(made.present >= 0.5)[:400]
    taken = sample(made, rows)
    assert taken.unreviewed > 0.9
    measured = at(made, rows)
    assert measured.recall.low < 0.1 and measured.recall.high > 0.9
    assert measured.base_rate.high > 0.9
    assert measured.precision is not None and measured.precision.high - measured.precision.low < 0.2
    assert measured.unreviewed == 0


def test_nothing_fires() -> None:
    made = world(7, base_rate=0.1)
    measured = at(made, as_reviewers_see(made, 7), threshold=1.0)
    assert (measured.precision, measured.fired, measured.recall.value) == (None, 0, 0)
    assert measured.as_dict()["precision"] is None


def test_average_precision_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the export extra")
    rng = np.random.default_rng(0)
    scores, labels, weights = np.round(rng.random(500), 1), rng.random(500) < 0.3, rng.random((3, 500))
    ours = average_precision(scores, labels, weights)
    theirs = [metrics.average_precision_score(labels, scores, sample_weight=each) for each in weights]
    assert ours == pytest.approx(theirs)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 80),
    more=st.integers(0, 300),
    levels=st.integers(1, 50),
    kinds=st.sampled_from(["image", "text", "both"]),
    seed=st.integers(0, 10_000),
    holes=st.sampled_from([0.0, 0.3, 1.0]),
    size=st.sampled_from([1, 7]),
)
def test_any_shape_gives_shares_inside_their_intervals(
    count: int, more: int, levels: int, kinds: str, seed: int, holes: float, size: int
) -> None:
    rng = np.random.default_rng(seed)
    everything = count + more
    likely = (rng.integers(0, levels + 1, (everything, 1)) / levels).astype(np.float32)
    likely[rng.random(everything) < holes] = np.nan
    images = np.full(everything, kinds == "image") if kinds != "both" else rng.random(everything) < 0.5
    vectors = rng.standard_normal((everything, 3)).astype(np.float32)
    vectors[rng.random(everything) < 0.1, 1] = np.inf
    rows = rng.permutation(everything)[:count]
    labels = rng.random((count, 1)) < 0.5
    reviewed = Reviewed(vectors[rows], likely[rows], labels, rng.random((count, 1)) < 0.9, images[rows], rows)
    found = sample_of(0, reviewed, Population(vectors, likely, images, size=size * everything))
    if isinstance(found, str):
        assert "20 reviewed items" in found
        return
    assert (found.present == found.population_present[found.places]).all()
    assert (found.strata == found.population_strata[found.places]).all()
    assert found.labels.sum() >= 20 and (~found.labels).sum() >= 20
    curve = Curve(found, found.present, found.population_present, digits=6, within=(0.0, 1.0))
    for threshold in (0.0, 0.5, curve.choose(None) or 0.1):
        measured = curve.measure(threshold)
        for share in (measured.precision, measured.recall, measured.f1, measured.base_rate):
            assert share is None or 0 <= share.low <= share.value <= share.high <= 1
    counted = tally(found, found.present, found.population_present, np.array([0.2, 0.5]))
    _, recalls, _ = points(counted)
    assert recalls[0] >= recalls[1] - 1e-12
    assert counted.reviewed.sum(axis=(1, 2)).tolist() == [len(found.rows)] * 2


def test_a_small_sample_leaves_open_how_many_items_there_are_of_each_stratum() -> None:
    counts = {
        "items": np.array([[[9e6, 1e6]]]),
        "reviewed": np.array([[[1e5, 1e5]]]),
        "positive": np.array([[[0.0, 1e5]]]),
    }
    known, guessed = (measure(Tally(**counts, sampled=sampled, scale=1e4)).base_rate for sampled in (False, True))
    assert known.high - known.low < 0.0002
    assert 0.03 < guessed.high - guessed.low < 0.05  # a thousand items, a tenth of them above the threshold


def test_pictures_and_texts_do_not_stand_for_each_other() -> None:
    made = world(8, base_rate=0.2)
    made.images[::2] = False
    taken = sample(made, as_reviewers_see(made, 8, count=1500))
    images = made.images[taken.population_rows]
    assert taken.kinds == ("image", "text")
    assert not set(taken.population_strata[images]) & set(taken.population_strata[~images])
    assert set(taken.population_strata) == set(range(taken.count))
    assert taken.weights.sum() == pytest.approx(len(made.images))
