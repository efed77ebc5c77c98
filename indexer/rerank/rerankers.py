"""The rerankers that this process has: one of pictures, one of texts."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from indexer.errors import ModelError
from indexer.items import Modality
from indexer.rerank.comparing import Comparer, Pictures, Texts
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.media.originals import Originals
    from indexer.rerank.ingest import FeaturesAtIngest

SESSION_THREADS = 1
"""Per run: requests run beside each other, as the encoders' do."""
LOOK_SECONDS = 5.0
"""How long a bundle is believed to be the one that is installed."""
AGAIN_SECONDS = 60.0
"""After which one that was installed meanwhile, and did not open, is tried again."""

_log = structlog.get_logger("rerank")


class Rerankers:
    """Each is found when first asked for, so that one that is installed meanwhile is used.

    One that is replaced meanwhile goes on until the other one is open. `originals` opens what reads pictures; `threads`
    is for each run; `clock` is in seconds. Thread-safe; close it after use.
    """

    def __init__(
        self,
        settings: Settings,
        originals: Callable[[], Originals],
        *,
        threads: int | None = SESSION_THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._originals = originals
        self._threads = threads
        self._clock = clock
        self._lock = threading.RLock()
        self._held: dict[Modality, _Held] = {}

    def of(self, modality: Modality) -> Comparer:
        """What compares items of a modality; its graphs need not be open.

        Raises:
            NoReranker: none of the settings' name is installed.
            InvalidBundle, UnknownRecipe: it is, and is broken, or for a newer version.
        """
        return self._now(modality).comparer

    def at_ingest(self) -> FeaturesAtIngest | None:
        """What looks at pictures as they are ingested, with the model of the searches; raises as `of`."""
        return self._now("image").at_ingest

    def names(self) -> Mapping[str, str | None]:
        """Which models rerank pictures and texts; None where none is installed that could."""
        return {"image": self._name("image"), "text": self._name("text")}

    def is_open(self, modality: Modality, seconds: float | None) -> bool:
        """Whether a reranker can score at once.

        Opening it may take longer than a search has, so it goes on in a thread of its own; it is waited for so many
        seconds at most, and with None for as long as it takes.

        Raises:
            ModelError: it does not open; the next to ask tries again, with what is installed by then.
        """
        held = self._now(modality)
        with self._lock:
            held.begin()
        try:
            return held.wait(seconds)
        except ModelError:
            with self._lock:
                if self._held.get(modality) is held:
                    del self._held[modality]
            raise

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            for held in self._held.values():
                held.close()
            self._held.clear()

    def _now(self, modality: Modality) -> _Held:
        """The one to use now; raises as `of`."""
        with self._lock:
            held = self._held.get(modality)
            if held is None:
                held = self._load(modality)
                held.look_at = self._clock() + LOOK_SECONDS
            elif self._clock() >= held.look_at:
                held = self._look(modality, held)
            self._held[modality] = held
            return held

    def _look(self, modality: Modality, held: _Held) -> _Held:
        """The same, unless another bundle is installed, and open, by now."""
        held.look_at = self._clock() + LOOK_SECONDS
        try:
            if held.successor is None:
                if self._fingerprint(modality) == held.comparer.model.fingerprint:
                    return held
                held.successor = self._load(modality)
                held.successor.begin()
            if not held.successor.wait(0.0):
                return held
        except ModelError as error:  # it may be in the middle of being written, or gone: what is open goes on
            _log.warning("reranker not replaced", modality=modality, code=error.code, reason=error.message)
            held.successor = None
            held.look_at = self._clock() + AGAIN_SECONDS
            return held
        return held.successor

    def _load(self, modality: Modality) -> _Held:
        from indexer.models.rerank.loading import load_reranker, load_text_reranker  # noqa: PLC0415  for who reranks

        if modality == "text":
            return _Held(Texts(load_text_reranker(self._settings, threads=self._threads)))
        from indexer.rerank.candidates import Candidates  # noqa: PLC0415
        from indexer.rerank.features import FeatureCache  # noqa: PLC0415
        from indexer.rerank.ingest import FeaturesAtIngest  # noqa: PLC0415

        model = load_reranker(self._settings, threads=self._threads)
        cache = FeatureCache(model, self._settings)
        candidates = Candidates(model, cache, self._originals(), self._settings)
        held = _Held(Pictures(model, candidates), cache.trim, candidates.close)
        held.at_ingest = FeaturesAtIngest(model, cache)
        return held

    def _fingerprint(self, modality: Modality) -> str:
        from indexer.models.rerank.bundle import find_rerank_bundle  # noqa: PLC0415

        return find_rerank_bundle(self._wanted(modality), self._settings).manifest.fingerprint

    def _name(self, modality: Modality) -> str | None:
        from indexer.models.rerank.bundle import find_rerank_bundle  # noqa: PLC0415

        try:
            manifest = find_rerank_bundle(self._wanted(modality), self._settings).manifest
        except ModelError:
            return None  # a search that asks for it is told what is wrong
        return manifest.name if (manifest.pixels is not None) == (modality == "image") else None

    def _wanted(self, modality: Modality) -> str:
        return self._settings.reranker if modality == "image" else self._settings.text_reranker


class _Held:
    """A comparer, which is opened in a thread of its own, and that which is to take its place.

    `tidy` is done before. `close` is called once nobody uses the comparer any more, which may be a search that goes on
    after another one took its place.
    """

    def __init__(
        self,
        comparer: Comparer,
        tidy: Callable[[], None] = lambda: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.comparer = comparer
        self.at_ingest: FeaturesAtIngest | None = None
        self.successor: _Held | None = None
        self.look_at = 0.0
        """When to see whether another bundle is installed."""
        self._tidy = tidy
        self._unused = weakref.finalize(comparer, close)
        self._unused.atexit = False
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._error: ModelError | None = None

    def begin(self) -> None:
        """Open it, unless that was begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._open, name="open-reranker", daemon=True)
            self._thread.start()

    def wait(self, seconds: float | None) -> bool:
        """Whether it is open, after so many seconds at most; raises what hindered it."""
        over = self._over.wait(seconds)
        if over and self._error is not None:
            raise self._error
        return over

    def close(self) -> None:
        """Let go of it, and of what is to take its place."""
        self._unused()
        if self.successor is not None:
            self.successor.close()

    def _open(self) -> None:
        model = self.comparer.model
        try:
            self._tidy()
            model.warm_up()
        except ModelError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  raised in whoever waits
            _log.exception("reranker not opened", model=model.name)
            remedy = f"Run `crosslens models verify {model.name}`."
            self._error = ModelError(f"{model.name!r} does not open: {error!r:.200}.", remedy=remedy)
        finally:
            self._over.set()
