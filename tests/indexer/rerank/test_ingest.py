"""Features computed while a collection is filled, where it asks for that; what fails there fails no item."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from PIL import Image

from indexer.errors import EncoderFailed
from indexer.models.encoder import Encoder
from indexer.models.rerank.reranker import Reranker, load_reranker
from indexer.models.sessions import Graph
from indexer.pipeline import ingest
from indexer.report import Report
from indexer.rerank import ingest as module
from indexer.rerank.features import FeatureCache, feature_key
from indexer.rerank.wanted import RERANK_FEATURES, want_features, wants_features
from indexer.settings import Settings
from indexer.store.store import Store, open_store
from tests.rerankers import halves, make_reranker


@pytest.fixture
def store(settings: Settings, encoder: Encoder) -> Iterator[Store]:
    module._opened.cache_clear()
    with open_store(settings) as each:
        each.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        yield each


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    for at, sides in enumerate((("red", "blue"), ("blue", "red"), ("green", "white"))):
        (folder / f"{at}.png").write_bytes(halves(*sides))
    frames = [Image.open(io.BytesIO(halves(*each))) for each in (("red", "green"), ("green", "red"))]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=1000)
    return folder


def run(store: Store, encoder: Encoder, settings: Settings, media: Path) -> Report:
    return ingest([str(media)], collection=store.get("media"), encoder=encoder, settings=settings)


def kept(store: Store, settings: Settings) -> list[bool]:
    cache = FeatureCache(load_reranker(settings), settings)
    records = [stored.record for stored in store.get("media").scroll(limit=100)[0]]
    return [cache.get(feature_key(record)) is not None for record in records]


def test_the_flag_is_the_collections(store: Store) -> None:
    assert not wants_features(store.get("media"))
    want_features(store, "media", True)
    assert wants_features(store.get("media"))
    assert store.get("media").metadata[RERANK_FEATURES] is True
    want_features(store, "media", False)
    assert not wants_features(store.get("media"))


def test_pictures_and_frames_are_looked_at_if_the_collection_asks_for_it(
    store: Store, encoder: Encoder, settings: Settings, media: Path
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    report = run(store, encoder, settings, media)
    assert (report.indexed, report.failed) == (4, 0)
    assert kept(store, settings) == [True] * 5
    assert report.stages.by_name["rerank"].sizes.sum == 5


def test_else_they_are_not(store: Store, encoder: Encoder, settings: Settings, media: Path) -> None:
    make_reranker(settings.models_folder)
    run(store, encoder, settings, media)
    assert not any(kept(store, settings))


def test_what_is_kept_is_not_looked_at_again(
    store: Store, encoder: Encoder, settings: Settings, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    run(store, encoder, settings, media)
    looked: list[int] = []
    real = Reranker.features_of

    def noted(self: Reranker, pixels: Any) -> Any:
        looked.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Reranker, "features_of", noted)
    (media / "new.png").write_bytes(halves("white", "white"))
    other = store.create("other", encoder.name, encoder.fingerprint, encoder.dimension)
    want_features(store, "other", True)
    report = ingest([str(media)], collection=store.get(other.name), encoder=encoder, settings=settings)
    assert report.indexed == 5
    assert looked == [1]  # the others' pictures are known from the first collection


def test_without_a_reranker_everything_is_indexed_and_it_is_said(
    store: Store, encoder: Encoder, settings: Settings, media: Path
) -> None:
    want_features(store, "media", True)
    with structlog.testing.capture_logs() as logs:
        report = run(store, encoder, settings, media)
    assert (report.indexed, report.failed) == (4, 0)
    (entry,) = [each for each in logs if each["event"] == "no features at ingest"]
    assert entry["code"] == "no_reranker"


def test_a_model_that_fails_fails_no_item(
    store: Store, encoder: Encoder, settings: Settings, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    real = Graph.compute

    def compute(graph: Graph, feed: Any) -> Any:
        if "pixels" in feed and len(feed) == 1 and graph._replicas[0]._path.name == "vision.onnx":
            raise EncoderFailed("the device fell off the bus")
        return real(graph, feed)

    monkeypatch.setattr(Graph, "compute", compute)
    with structlog.testing.capture_logs() as logs:
        report = run(store, encoder, settings, media)
    assert (report.indexed, report.failed) == (4, 0)
    assert {entry["code"] for entry in logs if entry["event"] == "no features at ingest"} == {"encoder_failed"}


def test_the_reranker_stays_open_for_the_next_shard(settings: Settings) -> None:
    module._opened.cache_clear()
    make_reranker(settings.models_folder)
    first = module.features_at_ingest(settings)
    assert first is not None
    assert module.features_at_ingest(settings) is first
    assert module.features_at_ingest(Settings()) is first
