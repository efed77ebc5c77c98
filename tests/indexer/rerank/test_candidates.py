"""Stored items' features: from their originals, and kept."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image

from indexer.errors import EncoderFailed, FetchTimeout, NoFeatures
from indexer.items import Kind, Location, Record, now, sha256_hex
from indexer.media.originals import Originals
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.reranker import Features, Reranker
from indexer.rerank.candidates import FETCH_SECONDS, Candidates
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


@pytest.fixture
def candidates(reranker: Reranker, settings: Settings) -> Iterator[Candidates]:
    with Candidates(reranker, FeatureCache(reranker, settings), Originals.of(settings), settings) as each:
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


def seen(candidates: Candidates, records: Sequence[Record], most: int = 1) -> list[Features | None]:
    """Features of records' pictures, as many of them at a time, however long that takes."""
    keys = [feature_key(record) for record in records]
    found = {key: candidates.kept(key) for key in keys}
    with candidates.wanted() as wanted:
        for key, record in zip(keys, records, strict=True):
            if found[key] is None:
                wanted.add(key, record)
        while opened := wanted.next(most, 60):
            found |= candidates.looked_at(opened)
    return [found[key] for key in keys]


def test_features_are_those_of_the_picture_and_kept(
    candidates: Candidates, reranker: Reranker, looked: list[int], tmp_path: Path
) -> None:
    records = some(tmp_path / "media", 5)
    found = seen(candidates, records)
    assert looked == [1] * 5
    for each, record in zip(found, records, strict=True):
        picture = Image.open(record.locations[0].source).convert("RGB")
        (expected,) = reranker.features([picture])
        assert each is not None
        assert np.array_equal(each.features, expected.features)
        assert np.array_equal(each.queries, expected.queries)
    looked.clear()
    (tmp_path / "media" / "0.png").unlink()
    again = seen(candidates, records[::-1])
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
    with structlog.testing.capture_logs() as logs:
        found = seen(candidates, [gone, good[0], changed, good[1], broken, good[2]])
    assert [each is not None for each in found] == [False, True, False, True, False, True]
    assert sorted(entry["code"] for entry in logs if entry["event"] == "picture not reranked") == [
        "media_gone",
        "media_gone",
        "truncated",
    ]
    text = stored(tmp_path / "media", b"a cat", "cat.txt", kind=Kind.TEXT, text="a cat")
    assert candidates.key_of(text) is None
    assert candidates.key_of(good[0]) == feature_key(good[0])


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
    found = [each for each in seen(candidates, records) if each is not None]
    assert len(found) == 4
    matching = reranker.scores("red left", found).matching
    assert (matching > 0).tolist() == [True, False, True, False]


def test_what_was_looked_at_meanwhile_is_not_looked_at_again(
    candidates: Candidates, looked: list[int], tmp_path: Path
) -> None:
    """Two searches for the same thing at the same time."""
    one, other = some(tmp_path / "media", 2)
    key = feature_key(one)
    with candidates.wanted() as wanted, candidates.wanted() as others:
        wanted.add(key, one)
        others.add(key, one)
        others.add(feature_key(other), other)
        first = candidates.looked_at(wanted.next(1, 60))
        opened: dict[str, Any] = {}
        while len(opened) < 2:
            opened |= others.next(2, 60)
    second = candidates.looked_at(opened)
    assert looked == [1, 1]
    assert second[key] is first[key] is not None
    assert second[feature_key(other)] is not None


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

    monkeypatch.setattr(reranker, "features_of", features_of)
    found = seen(candidates, records, most=5)
    assert [each is not None for each in found] == [True, True, False, True, True]


def test_a_model_that_does_not_run_is_an_error(
    candidates: Candidates, reranker: Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: Any) -> list[Features]:
        raise EncoderFailed("the device fell off the bus")

    monkeypatch.setattr(reranker, "features_of", lost)
    with pytest.raises(EncoderFailed):
        seen(candidates, some(tmp_path / "media", 5))


def test_another_process_finds_what_was_kept(
    candidates: Candidates, reranker: Reranker, settings: Settings, tmp_path: Path
) -> None:
    (record,) = some(tmp_path / "media", 1)
    seen(candidates, [record])
    assert FeatureCache(reranker, settings).get(feature_key(record)) is not None


@pytest.mark.parametrize(("configured", "taken"), [(60.0, FETCH_SECONDS), (2.5, 2.5)])
def test_an_original_is_fetched_for_no_longer_than_a_search_might_wait(
    reranker: Reranker, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    configured: float, taken: float,
) -> None:  # fmt: skip
    given: list[float] = []

    def fetch(self: Any, _: str) -> Any:
        given.append(self._seconds)
        raise FetchTimeout("It takes too long.")

    monkeypatch.setattr("indexer.media.fetch.Fetcher.fetch", fetch)
    patient = settings.model_copy(update={"fetch_deadline": configured})
    content = halves("red", "blue")
    record = stored(tmp_path / "media", content, "a.png", locations=[Location(source="https://example.org/a.png")])
    with Candidates(reranker, FeatureCache(reranker, patient), Originals.of(patient), patient) as candidates:
        assert seen(candidates, [record]) == [None]
    assert given == [taken]
