"""Stored items' features: from their originals, kept, and only as many as there is time for."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image

from indexer.errors import EncoderFailed, NoFeatures
from indexer.items import Kind, Location, Record, now, sha256_hex
from indexer.media import pictures
from indexer.media.originals import Originals
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.reranker import Features, Reranker
from indexer.rerank import candidates as module
from indexer.rerank.candidates import Candidates
from indexer.rerank.features import FeatureCache, feature_key
from indexer.settings import Settings
from tests.rerankers import halves, make_reranker


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker(tmp_path_factory.mktemp("rerankers"))


@pytest.fixture
def reranker(bundle: Path) -> Reranker:
    return Reranker(load_rerank_bundle(bundle))


@pytest.fixture
def looked(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each run of the vision graph had."""
    counts: list[int] = []
    real = reranker.features_of

    def noted(pixels: Any) -> list[Features]:
        counts.append(len(pixels))
        return real(pixels)

    monkeypatch.setattr(reranker, "features_of", noted)
    return counts


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def candidates(reranker: Reranker, settings: Settings, clock: Clock) -> Iterator[Candidates]:
    cache = FeatureCache(reranker, settings)
    with Candidates(reranker, cache, Originals.of(settings), settings, clock=clock) as each:
        yield each


def stored(folder: Path, content: bytes, name: str, **changes: Any) -> Record:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    given: dict[str, Any] = {
        "kind": Kind.IMAGE,
        "sha256": sha256_hex(content),
        "locations": [Location(source=str(folder / name))],
        "bytes": len(content),
        "media_type": "image/png",
        "added_at": now(),
    }
    return Record(**{**given, **changes})


def some(folder: Path, count: int) -> list[Record]:
    colours = ["red", "green", "blue", "yellow"]
    return [stored(folder, halves(colours[at % 4], colours[(at + 1) % 4], mark=at), f"{at}.png") for at in range(count)]


def test_features_are_those_of_the_picture_and_kept(
    candidates: Candidates, reranker: Reranker, looked: list[int], tmp_path: Path
) -> None:
    records = some(tmp_path / "media", 5)
    found = candidates.features(records)
    assert looked == [1] * 5  # on a CPU one at a time
    for each, record in zip(found, records, strict=True):
        picture = Image.open(record.locations[0].source).convert("RGB")
        (expected,) = reranker.features([picture])
        assert each is not None
        assert np.array_equal(each.features, expected.features)
        assert np.array_equal(each.queries, expected.queries)
    looked.clear()
    (tmp_path / "media" / "0.png").unlink()
    again = candidates.features(records[::-1])
    assert looked == []
    assert all(one is other for one, other in zip(again, found[::-1], strict=True))


def test_what_has_no_picture_costs_the_others_nothing(
    candidates: Candidates, looked: list[int], tmp_path: Path
) -> None:
    good = some(tmp_path / "media", 3)
    gone = stored(tmp_path / "media", halves("red", "red"), "gone.png")
    (tmp_path / "media" / "gone.png").unlink()
    changed = stored(tmp_path / "media", halves("blue", "blue"), "changed.png")
    (tmp_path / "media" / "changed.png").write_bytes(halves("blue", "red"))
    broken = stored(tmp_path / "media", halves("green", "green")[:100], "broken.png")
    text = stored(tmp_path / "media", b"a cat", "cat.txt", kind=Kind.TEXT, text="a cat")
    with structlog.testing.capture_logs() as logs:
        found = candidates.features([gone, good[0], text, changed, good[1], broken, good[2]])
    assert [each is not None for each in found] == [False, True, False, False, True, False, True]
    assert sorted(entry["code"] for entry in logs if entry["event"] == "picture not reranked") == [
        "media_gone",
        "media_gone",
        "truncated",
    ]


def test_frames_and_pages_are_seen_where_they_are(candidates: Candidates, reranker: Reranker, tmp_path: Path) -> None:
    frames = [Image.open(io.BytesIO(halves(*each))) for each in (("red", "blue"), ("blue", "red"))]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=1000)
    sheet = io.BytesIO()
    frames[0].save(sheet, "PDF", save_all=True, append_images=frames[1:])
    animation = {"kind": Kind.VIDEO, "media_type": "image/gif", "parent": "a"}
    document = {"kind": Kind.PAGE, "media_type": "application/pdf", "parent": "b"}
    records = [
        stored(tmp_path / "media", file.getvalue(), "a.gif", **animation, seconds=0.0),
        stored(tmp_path / "media", file.getvalue(), "a.gif", **animation, seconds=1.0),
        stored(tmp_path / "media", sheet.getvalue(), "b.pdf", **document, page=1),
        stored(tmp_path / "media", sheet.getvalue(), "b.pdf", **document, page=2),
    ]
    found = [each for each in candidates.features(records) if each is not None]
    assert len(found) == 4
    matching = reranker.scores("red left", found).matching
    assert (matching > 0).tolist() == [True, False, True, False]


def test_one_picture_twice_is_looked_at_once(candidates: Candidates, looked: list[int], tmp_path: Path) -> None:
    (record,) = some(tmp_path / "media", 1)
    one, other = candidates.features([record, record.model_copy(update={"name": "again"})])
    assert one is other is not None
    assert looked == [1]


def test_on_a_gpu_pictures_go_in_batches(
    candidates: Candidates, reranker: Reranker, looked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(reranker), "vision_batch", 4)
    assert None not in candidates.features(some(tmp_path / "media", 10))
    assert looked == [4, 4, 2]


def test_after_its_time_nothing_more_is_looked_at_and_the_best_come_first(
    candidates: Candidates, reranker: Reranker, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = some(tmp_path / "media", 6)
    real = reranker.features_of

    def slow(pixels: Any) -> list[Features]:
        clock.now += 1.0
        return real(pixels)

    monkeypatch.setattr(reranker, "features_of", slow)
    # All of them are opened before the first is looked at, so that their order is that of the list.
    monkeypatch.setattr(module, "wait", lambda pending, *_: (set(pending), set()))
    assert [each is not None for each in candidates.features(records, seconds=2.5)] == [True] * 3 + [False] * 3
    assert clock.now == 3.0  # late by a part of one picture
    assert [each is not None for each in candidates.features(records, seconds=1.5)] == [True] * 5 + [False]
    assert candidates.features(records, seconds=0)[:5] != [None] * 5  # what is kept costs no time
    assert candidates.features(records, seconds=0)[5] is None


def test_a_slow_original_is_not_waited_for_and_finished_in_the_background(
    candidates: Candidates, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, *quick = some(tmp_path / "media", 4)
    released = threading.Event()
    asked: list[str] = []
    real = pictures.stored_picture

    def opened(record: Record, **rest: Any) -> Any:
        asked.append(record.sha256)
        if record is slow:
            released.wait(60)
        return real(record, **rest)

    monkeypatch.setattr(module, "stored_picture", opened)
    real_wait = module.wait

    def wait(pending: Any, patience: float | None, until: str) -> Any:
        """Waits for the quick ones as long as it takes; then as long as it may."""
        if len(pending) > 1:
            return real_wait(pending, 60, until)
        clock.now += patience or 0
        return set(), pending

    monkeypatch.setattr(module, "wait", wait)
    found = candidates.features([slow, *quick], seconds=2)
    assert [each is not None for each in found] == [False, True, True, True]
    assert clock.now == pytest.approx(1.0)  # half of the time, no more
    assert candidates.features([slow], seconds=2) == [None]
    assert clock.now == pytest.approx(1.0)  # it is on its way: nobody opens it again, nor waits for it
    assert asked.count(slow.sha256) == 1
    released.set()
    finished = threading.Event()
    while candidates._finishing:
        finished.wait(0.001)
    assert candidates.features([slow], seconds=0)[0] is not None


def test_a_picture_that_gives_no_features_costs_the_others_nothing(
    candidates: Candidates, reranker: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = some(tmp_path / "media", 5)
    bad = reranker.prepare(Image.open(records[2].locations[0].source).convert("RGB"))
    real = reranker.features_of

    def features_of(pixels: Any) -> list[Features]:
        if any(np.array_equal(each, bad) for each in pixels):
            raise NoFeatures("not finite")
        return real(pixels)

    monkeypatch.setattr(type(reranker), "vision_batch", 5)
    monkeypatch.setattr(reranker, "features_of", features_of)
    found = candidates.features(records)
    assert [each is not None for each in found] == [True, True, False, True, True]


def test_a_model_that_does_not_run_is_an_error(
    candidates: Candidates, reranker: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: Any) -> list[Features]:
        raise EncoderFailed("the device fell off the bus")

    monkeypatch.setattr(reranker, "features_of", lost)
    with pytest.raises(EncoderFailed):
        candidates.features(some(tmp_path / "media", 5))


def test_another_process_finds_what_was_kept(
    candidates: Candidates, reranker: Reranker, settings: Settings, tmp_path: Path
) -> None:
    (record,) = some(tmp_path / "media", 1)
    candidates.features([record])
    assert FeatureCache(reranker, settings).get(feature_key(record)) is not None
