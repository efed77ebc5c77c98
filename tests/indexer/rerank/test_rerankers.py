"""The rerankers of a process: opened once, and exchanged for what is installed meanwhile."""

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from indexer.errors import InvalidBundle, ModelError, NoReranker
from indexer.media.originals import Originals
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.reranker import Reranker
from indexer.rerank.candidates import Candidates
from indexer.rerank.features import FeatureCache
from indexer.rerank.rerankers import AGAIN_SECONDS, LOOK_SECONDS, Rerankers
from indexer.settings import Settings
from tests.rerankers import make_reranker, make_text_reranker
from tests.waiting import until


class Clock:
    """A time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rerankers(settings: Settings, clock: Clock) -> Iterator[Rerankers]:
    settings.models_folder.mkdir(parents=True, exist_ok=True)
    each = Rerankers(settings, lambda: Originals.of(settings), clock=clock)
    yield each
    each.close()


def replace(settings: Settings, weight: float) -> str:
    """Install another bundle in the place of the one that is there; gives its fingerprint."""
    shutil.rmtree(settings.models_folder / "blip2-itm", ignore_errors=True)
    return load_rerank_bundle(make_reranker(settings.models_folder, weight=weight)).manifest.fingerprint


def fingerprint(rerankers: Rerankers) -> str:
    return rerankers.of("image").model.fingerprint


@pytest.mark.parametrize("modality", ["image", "text"])
def test_what_did_not_open_is_used_once_it_is_installed_again(
    rerankers: Rerankers, settings: Settings, modality: Any
) -> None:
    make = make_reranker if modality == "image" else make_text_reranker
    home = make(settings.models_folder)
    (home / "match.onnx").write_bytes(b"damaged")
    with pytest.raises(InvalidBundle, match="not the file that was published"):
        rerankers.is_open(modality, 60)
    shutil.rmtree(home)
    make(settings.models_folder, context=20)  # by another manifest than the one that was read
    assert rerankers.is_open(modality, 60)


def test_an_error_of_any_kind_is_one_of_the_model_and_passes(
    rerankers: Rerankers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_reranker(settings.models_folder)
    with monkeypatch.context() as patched:
        patched.setattr(Reranker, "warm_up", lambda _: 1 / 0)
        with pytest.raises(ModelError, match="does not open: ZeroDivisionError") as caught:
            rerankers.is_open("image", 60)
        assert caught.value.remedy == "Run `crosslens models verify blip2-itm`."
    assert rerankers.is_open("image", 60)


def test_one_that_is_replaced_goes_on_until_the_other_is_open(
    rerankers: Rerankers, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(settings, 1.0)
    assert rerankers.is_open("image", 60)
    new = replace(settings, 0.5)
    may_open = threading.Event()
    real = Reranker.warm_up
    monkeypatch.setattr(Reranker, "warm_up", lambda self: may_open.wait(60) and real(self))
    assert fingerprint(rerankers) == old
    for _ in range(3):
        clock.now += LOOK_SECONDS
        assert fingerprint(rerankers) == old
        assert rerankers.is_open("image", 0)  # no search waits for it
    may_open.set()

    def moved() -> str:
        clock.now += LOOK_SECONDS
        return fingerprint(rerankers)

    until(lambda: moved() == new)
    assert rerankers.is_open("image", 0)
    assert rerankers.names()["image"] == "blip2-itm"


@pytest.mark.parametrize("broken", ["gone", "damaged", "no manifest"])
def test_one_that_is_replaced_by_none_that_opens_goes_on(
    rerankers: Rerankers, settings: Settings, clock: Clock, broken: str
) -> None:
    home = settings.models_folder / "blip2-itm"
    old = replace(settings, 1.0)
    assert rerankers.is_open("image", 60)
    replace(settings, 0.5)
    match broken:
        case "gone":
            shutil.rmtree(home)
        case "damaged":
            (home / "vision.onnx").write_bytes(b"damaged")
        case "no manifest":
            (home / "manifest.json").write_text('{"task": "rerank"}')

    def tried() -> bool:
        clock.now += LOOK_SECONDS
        assert fingerprint(rerankers) == old
        assert rerankers.is_open("image", 0)
        return rerankers._held["image"].look_at == clock.now + AGAIN_SECONDS

    until(tried)
    new = replace(settings, 0.25)
    assert fingerprint(rerankers) == old

    def again() -> str:
        clock.now += AGAIN_SECONDS
        return fingerprint(rerankers)

    until(lambda: again() == new)


def test_one_that_was_replaced_is_closed_when_nobody_uses_it_any_more(
    rerankers: Rerankers, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Candidates] = []
    real = Candidates.close
    monkeypatch.setattr(Candidates, "close", lambda self: (closed.append(self), real(self)))
    old = replace(settings, 1.0)
    used = rerankers.of("image")  # by a search that goes on
    model = weakref.ref(used.model)
    assert rerankers.is_open("image", 60)
    replace(settings, 0.5)

    def moved() -> bool:
        clock.now += LOOK_SECONDS
        return fingerprint(rerankers) != old

    until(moved)
    assert closed == []
    del used
    gc.collect()
    assert len(closed) == 1
    closed.clear()
    gc.collect()
    assert model() is None  # nor does it stay in memory
    rerankers.close()
    assert len(closed) == 1


def test_without_any_the_error_says_so(rerankers: Rerankers) -> None:
    with pytest.raises(NoReranker):
        rerankers.is_open("image", 60)
    with pytest.raises(NoReranker):
        rerankers.at_ingest()


def test_ingest_has_the_model_and_the_folder_of_the_searches(rerankers: Rerankers, settings: Settings) -> None:
    make_reranker(settings.models_folder)
    at_ingest = rerankers.at_ingest()
    assert at_ingest is not None
    assert at_ingest._reranker is rerankers.of("image").model
    assert rerankers.at_ingest() is at_ingest


def test_what_is_beyond_the_cap_goes_when_a_model_opens(rerankers: Rerankers, settings: Settings, clock: Clock) -> None:
    model = Reranker(load_rerank_bundle(make_reranker(settings.models_folder)))
    cache = FeatureCache(model, settings)
    (features,) = model.features([Image.new("RGB", (16, 16), "white")])
    for number in range(20):
        cache.put(f"{number:064x}", features)

    def kept() -> int:
        return sum(path.stat().st_size for path in settings.rerank_folder.rglob("*") if path.is_file())

    everything = kept()
    for cap in (everything // 2, 0):
        other = settings.model_copy(update={"rerank_cache_bytes": cap})
        each = Rerankers(other, lambda: Originals.of(settings), clock=clock)
        assert each.is_open("image", 60)
        assert kept() <= cap
        each.close()
