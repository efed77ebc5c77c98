"""Features computed while a collection is filled, where it asks for that; what fails there fails no item."""

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image

from indexer.errors import EncoderFailed, MediaStoreUnavailable
from indexer.media.blobs import Folder
from indexer.models.encoder import Encoder
from indexer.models.rerank.loading import load_reranker
from indexer.models.rerank.reranker import Reranker
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
    counts = looked(monkeypatch)
    (media / "new.png").write_bytes(halves("white", "white"))
    other = store.create("other", encoder.name, encoder.fingerprint, encoder.dimension)
    want_features(store, "other", True)
    report = ingest([str(media)], collection=store.get(other.name), encoder=encoder, settings=settings)
    assert report.indexed == 5
    assert counts == [1]  # the others' pictures are known from the first collection


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


def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the model looks at from now on, by run."""
    counts: list[int] = []
    real = Reranker.features_of

    def noted(self: Reranker, pixels: Any) -> Any:
        counts.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Reranker, "features_of", noted)
    return counts


def test_a_picture_without_features_costs_the_others_of_its_batch_nothing(
    store: Store, encoder: Encoder, settings: Settings, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    monkeypatch.setattr(Reranker, "vision_batch", 32)  # as on a GPU
    real = Graph.compute

    def compute(graph: Graph, feed: Any) -> Any:
        given = real(graph, feed)
        if graph._replicas[0]._path.name == "vision.onnx":
            green = feed["pixels"][:, 1, 0, 0] > 0.3  # on the left: one of the files, and one of the frames
            given[0][green & (feed["pixels"][:, 0, 0, 0] < 0.3)] = np.nan
        return given

    monkeypatch.setattr(Graph, "compute", compute)
    with structlog.testing.capture_logs() as logs:
        report = run(store, encoder, settings, media)
    assert (report.indexed, report.failed) == (4, 0)
    assert sorted(kept(store, settings)) == [False, False, True, True, True]
    said = [entry for entry in logs if entry["event"] == "no features at ingest"]
    assert [(entry["code"], entry["pictures"]) for entry in said] == [("no_features", 1)] * 2


@pytest.mark.parametrize("why", ["cap", "folder"])
def test_where_nothing_is_kept_nothing_is_looked_at(
    store: Store, encoder: Encoder, settings: Settings, media: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    counts = looked(monkeypatch)
    if why == "cap":
        settings = settings.model_copy(update={"rerank_cache_bytes": 0})
    else:
        settings.rerank_folder.write_bytes(b"a file where the folder should be")
    with structlog.testing.capture_logs() as logs:
        assert run(store, encoder, settings, media).indexed == 4
    assert counts == []
    assert ["cannot be written to" in entry["reason"] for entry in logs] == ([] if why == "cap" else [True])


def test_a_disk_that_becomes_full_ends_the_looking(
    store: Store, encoder: Encoder, settings: Settings, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    counts = looked(monkeypatch)

    def full(*_: object) -> None:
        raise MediaStoreUnavailable("No space left on device.")

    monkeypatch.setattr(Folder, "write", full)
    assert run(store, encoder, settings, media).indexed == 4
    assert counts == [1]


def test_ingest_fills_no_memory(settings: Settings, store: Store, encoder: Encoder, media: Path) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    run(store, encoder, settings, media)
    at_ingest = module.features_at_ingest(settings)
    assert at_ingest is not None
    assert at_ingest._cache.nbytes == 0
    assert all(kept(store, settings))


def test_what_was_seen_goes_with_what_is_replaced(
    store: Store, encoder: Encoder, settings: Settings, media: Path
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    shutil.copy(media / "0.png", media / "copy.png")
    run(store, encoder, settings, media)

    def count() -> int:
        return sum(path.is_file() for path in settings.rerank_folder.rglob("*"))

    assert count() == 5
    (media / "0.png").write_bytes(halves("white", "black"))
    run(store, encoder, settings, media)
    assert count() == 6  # the same is still in the copy
    for name in ("copy.png", "a.gif"):
        (media / name).write_bytes(halves("white", "black", mark=len(name)))
    run(store, encoder, settings, media)
    assert count() == len(store.get("media").scroll(limit=100)[0]) == 5
    assert all(kept(store, settings))


def test_the_first_two_to_ask_open_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    module._opened.cache_clear()
    make_reranker(settings.models_folder)
    found: list[object] = []
    other = threading.Thread(target=lambda: found.append(module.features_at_ingest(settings)))
    real = FeatureCache.__init__

    def opened(self: FeatureCache, *arguments: Any) -> None:
        if not found and not other.ident:
            other.start()
            other.join(0.1)  # it would be over by then
        real(self, *arguments)

    monkeypatch.setattr(FeatureCache, "__init__", opened)
    first = module.features_at_ingest(settings)
    other.join(60)
    assert found == [first]


def test_who_ingests_may_bring_what_looks(
    store: Store, encoder: Encoder, settings: Settings, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reranker(settings.models_folder)
    want_features(store, "media", True)
    reranker = load_reranker(settings)
    own = module.FeaturesAtIngest(reranker, FeatureCache(reranker, settings))
    monkeypatch.setattr(module, "load_reranker", lambda _: pytest.fail("another one was opened"))
    with module.looked_at_by(lambda: None):
        run(store, encoder, settings, media)
    assert not any(kept(store, settings))
    (media / "more.png").write_bytes(halves("black", "white"))
    with module.looked_at_by(lambda: own):
        run(store, encoder, settings, media)
    assert sum(kept(store, settings)) == 1


def test_the_reranker_stays_open_for_the_next_shard(settings: Settings) -> None:
    module._opened.cache_clear()
    make_reranker(settings.models_folder)
    first = module.features_at_ingest(settings)
    assert first is not None
    assert module.features_at_ingest(settings) is first
    assert module.features_at_ingest(Settings()) is first
