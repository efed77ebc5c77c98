"""Lists compared with texts: what was looked at before, what has to be opened, and what there is no time for."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait as futures_wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from indexer.items import Record
from indexer.media.originals import Originals
from indexer.media.pictures import stored_picture
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.reranker import PairScores, Reranker, TextReranker
from indexer.rerank import candidates as candidates_module
from indexer.rerank import opening
from indexer.rerank.candidates import Candidates
from indexer.rerank.comparing import Batch, Compared, Match, Pictures, Text, Texts, _mean
from indexer.rerank.features import FeatureCache
from indexer.rerank.walk import Walk
from indexer.settings import Settings
from indexer.store.points import Stored
from tests.rerankers import item, make_reranker, make_text_reranker, twelve_pictures
from tests.waiting import until

TEXTS = [Text("red left", 1.0)]


class Clock:
    """A time that stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Turns:
    """One turn, always free; how often it was had."""

    def __init__(self) -> None:
        self.held = self.taken = 0

    def take(self, seconds: float) -> bool:
        assert not self.held
        self.held = 1
        self.taken += 1
        return True

    def give_back(self) -> None:
        self.held = 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker(tmp_path_factory.mktemp("rerankers"))


@pytest.fixture
def reranker(bundle: Path) -> Reranker:
    return Reranker(load_rerank_bundle(bundle))


@pytest.fixture
def comparer(reranker: Reranker, settings: Settings) -> Iterator[Pictures]:
    cache = FeatureCache(reranker, settings)
    with Candidates(reranker, cache, Originals.of(settings), settings) as candidates:
        yield Pictures(reranker, candidates)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def items(tmp_path: Path) -> list[Stored]:
    """Twelve pictures on disk."""
    return twelve_pictures(tmp_path)


def compared(comparer: Pictures | Texts, items: Sequence[Stored], walk: Walk) -> list[Batch]:
    return list(comparer.compare(TEXTS, items, walk))


def found(batches: Sequence[Batch]) -> dict[int, Match | None]:
    merged: dict[int, Match | None] = {}
    for batch in batches:
        assert not merged.keys() & batch.found.keys()
        merged |= batch.found
    return merged


def slow(model: Any, method: str, clock: Clock, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have a method of a model take its time by the clock; the pictures, or texts, of each of its runs."""
    runs: list[int] = []
    real = getattr(model, method)

    def taking(*given: Any) -> Any:
        runs.append(len(given[-1]))
        clock.now += seconds
        return real(*given)

    monkeypatch.setattr(model, method, taking)
    return runs


def all_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for an original waits for all that are asked for."""
    monkeypatch.setattr(opening, "wait", lambda futures, *_: [future.result(60) for future in futures])


def test_pictures_have_the_scores_of_the_model(comparer: Pictures, reranker: Reranker, items: list[Stored]) -> None:
    features = reranker.features([Image.open(each.record.locations[0].source).convert("RGB") for each in items])
    expected = reranker.scores("red left", features)
    cold = found(compared(comparer, items, Walk(60)))
    for each in (cold, found(compared(comparer, items, Walk(60)))):
        assert sorted(each) == list(range(12))
        assert [match.matching for _, match in sorted(each.items()) if match] == pytest.approx(expected.matching)


def test_what_was_looked_at_before_comes_first_in_whole_batches(
    comparer: Pictures, reranker: Reranker, items: list[Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = items[1:]
    compared(comparer, warm, Walk(60))
    batches = compared(comparer, [*warm[:5], items[0], *warm[5:]], Walk(60))
    assert [list(batch.found) for batch in batches] == [[0, 1, 2, 3, 4, 6, 7, 8], [9, 10, 11], [5]]


def test_what_has_no_picture_and_what_is_gone_is_said_and_costs_the_others_nothing(
    comparer: Pictures, items: list[Stored]
) -> None:
    Path(items[2].record.locations[0].source).unlink()
    matches = found(compared(comparer, [*items[:4], item("0" * 64, text="a cat")], Walk(60)))
    assert {place for place, match in matches.items() if match is None} == {2, 4}
    assert len(matches) == 5


def test_one_picture_at_two_places_is_looked_at_once(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = slow(reranker, "features_of", clock, 0, monkeypatch)
    matches = found(compared(comparer, [items[0], items[1], items[0]], Walk(60)))
    assert runs == [1, 1]
    assert matches[0] == matches[2] != matches[1]


def test_on_a_gpu_pictures_go_in_batches(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(reranker), "vision_batch", 5)
    all_opened(monkeypatch)
    runs = slow(reranker, "features_of", clock, 0, monkeypatch)
    assert len(found(compared(comparer, items, Walk(60)))) == 12
    assert runs == [5, 5, 2]


@pytest.mark.parametrize(("deadline", "pictures"), [(100, 1), (350, 1), (450, 2), (650, 3), (1e6, 12)])
def test_no_picture_is_looked_at_once_the_time_is_up(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch,
    deadline: float, pictures: int,
) -> None:  # fmt: skip
    """However many were opened meanwhile; and each that is looked at is compared."""
    all_opened(monkeypatch)
    vision = slow(reranker, "features_of", clock, 195, monkeypatch)
    slow(reranker, "scores", clock, 5, monkeypatch)
    began = clock.now
    batches = compared(comparer, items, Walk(deadline, None, clock))
    assert vision == [1] * pictures
    assert clock.now - began == 200 * pictures <= deadline + 200
    assert sorted(found(batches)) == list(range(pictures))
    assert [batch.seconds for batch in batches] == [200] * pictures
    until(lambda: not comparer._candidates._openings._under_way)
    assert vision == [1] * pictures  # nothing went on behind


def test_no_more_is_opened_once_the_time_is_up(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "AHEAD", 1)
    asked: list[str] = []
    openings = comparer._candidates._openings
    real = openings.ask

    def ask(key: str, record: Record) -> Any:
        asked.append(key)
        return real(key, record)

    monkeypatch.setattr(openings, "ask", ask)
    all_opened(monkeypatch)
    slow(reranker, "features_of", clock, 200, monkeypatch)
    assert len(found(compared(comparer, items, Walk(350, None, clock)))) == 1
    assert len(asked) == 2


def test_what_was_opened_in_vain_is_not_opened_again(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_opened(monkeypatch)
    vision = slow(reranker, "features_of", clock, 200, monkeypatch)
    compared(comparer, items, Walk(100, None, clock))
    for each in items:
        Path(each.record.locations[0].source).unlink()
    assert sorted(found(compared(comparer, items, Walk(1e6, None, clock)))) == list(range(12))
    assert vision == [1] * 12


def test_a_turn_is_held_while_the_model_runs_and_never_else(
    comparer: Pictures, reranker: Reranker, items: list[Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    held: dict[str, set[int]] = {}

    def noted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def note(*given: Any, **named: Any) -> Any:
            held.setdefault(name, set()).add(turns.held)
            return real(*given, **named)

        monkeypatch.setattr(owner, name, note)

    noted(reranker, "features_of")
    noted(reranker, "scores")
    noted(comparer._candidates, "kept")
    noted(opening, "wait")
    for batch in comparer.compare(TEXTS, items, Walk(60, turns)):
        assert batch.found
        assert not turns.held
    compared(comparer, items, Walk(60, turns))
    assert held == {"features_of": {1}, "scores": {1}, "kept": {0}, "wait": {0}}
    assert turns.taken == 12 + 2


def test_slow_originals_hold_up_neither_what_is_kept_nor_what_comes(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    real = stored_picture

    def opened(record: Record, **rest: Any) -> Any:
        if record is items[0].record:
            assert released.wait(60)
        return real(record, **rest)

    monkeypatch.setattr(candidates_module, "stored_picture", opened)

    def wait(futures: Any, seconds: float, until: str) -> None:
        """For the quick ones as long as it takes; then as long as it may be."""
        if len(futures) > 1:
            futures_wait(futures, 60, until)
        else:
            clock.now += seconds

    monkeypatch.setattr(opening, "wait", wait)
    compared(comparer, items[6:], Walk(60))
    began = clock.now
    slow(reranker, "scores", clock, 0.25, monkeypatch)
    matches = found(compared(comparer, items, Walk(8, None, clock)))
    assert sorted(matches) == list(range(1, 12))
    used = 0.25 * (1 + 5)
    assert clock.now - began == used + (8 - used) / 2  # half of what was left was waited
    released.set()
    until(lambda: not comparer._candidates._openings._under_way)
    assert sorted(found(compared(comparer, items, Walk(8, None, clock)))) == list(range(12))


def test_the_time_that_reading_features_takes_counts(
    comparer: Pictures, reranker: Reranker, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(comparer, items, Walk(60))
    real = comparer._candidates.kept

    def reading(key: str) -> Any:
        clock.now += 1
        return real(key)

    monkeypatch.setattr(comparer._candidates, "kept", reading)
    slow(reranker, "scores", clock, 1, monkeypatch)
    began = clock.now
    matches = found(compared(comparer, items, Walk(3.5, None, clock)))
    assert sorted(matches) == [0, 1], "half of the time is the model's"
    assert clock.now - began == 3


def test_time_that_is_up_is_up_while_features_are_read(
    comparer: Pictures, items: list[Stored], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(_: str) -> Any:
        clock.now += 1

    monkeypatch.setattr(comparer._candidates, "kept", reading)
    assert compared(comparer, items, Walk(3.5, None, clock)) == []
    assert clock.now == 1004


def test_texts_go_down_in_batches(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextReranker(load_rerank_bundle(make_text_reranker(tmp_path)))
    passages = [item(f"{number:064x}", text="red " * (number % 5 + 1)) for number in range(20)]
    runs = slow(model, "scores", clock, 1, monkeypatch)
    assert list(found(compared(Texts(model), passages, Walk(2.5, None, clock)))) == list(range(16))
    assert runs == [8, 8]
    batches = compared(Texts(model), passages, Walk(60))
    expected = model.scores("red left", [each.record.text or "" for each in passages])
    matches = [match for _, match in sorted(found(batches).items())]
    assert [match.score for match in matches if match] == pytest.approx(expected.score)
    assert any(batch.truncated for batch in batches) == expected.truncated


def of(scores: dict[int, float | None], count: int) -> Compared:
    return Compared(count, {at: None if each is None else Match(each, None, each) for at, each in scores.items()})


def test_nothing_rises_only_because_it_was_the_one_that_was_looked_at() -> None:
    assert of({5: -3.0}, 8).order == list(range(8))
    assert of({5: -3.0, 1: -4.0}, 8).order == [0, 5, 2, 3, 4, 1, 6, 7]
    assert of({0: None, 2: 1.0, 3: 2.0}, 5).order == [3, 1, 2, 0, 4]
    assert of({}, 3).order == [0, 1, 2]


@given(st.dictionaries(st.integers(0, 29), st.none() | st.floats(-50, 50)))
def test_those_not_come_to_keep_their_places_and_the_others_share_theirs(scores: dict[int, float | None]) -> None:
    done = of(scores, 30)
    assert sorted(done.order) == list(range(30))
    assert all(done.order[place] == place for place in range(30) if place not in scores)
    chosen = [done.order[place] for place in sorted(scores)]
    there = [place for place in chosen if scores[place] is not None]
    assert chosen[: len(there)] == there
    assert chosen[len(there) :] == sorted(chosen[len(there) :])
    values = [scores[place] for place in there]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert (done.scored, done.gone) == (len(there), len(scores) - len(there))


def test_several_texts_count_by_their_weights() -> None:
    def scores(*values: float) -> PairScores:
        given = np.array(values, np.float32)
        tenth = np.float32(0.1)
        return PairScores(given, given * tenth, given * (1 + tenth), truncated=False)

    texts = [Text("a", 1.0), Text("b", 3.0)]
    matches, truncated = _mean(texts, [scores(1, 2), scores(5, -2)])
    assert [each.matching for each in matches] == pytest.approx([4, -1])
    assert [each.contrastive for each in matches] == pytest.approx([0.4, -0.1])
    assert [each.score for each in matches] == pytest.approx([4.4, -1.1])
    assert not truncated
    huge, _ = _mean([Text("a", 1e308), Text("b", 1e308)], [scores(1), scores(2)])
    assert huge[0].matching == pytest.approx(1.5)
