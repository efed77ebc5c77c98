"""The rerankers that this process has: one of pictures, one of texts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from indexer.errors import ModelError
from indexer.items import Modality
from indexer.rerank.comparing import Comparer, Pictures, Texts
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.media.originals import Originals

SESSION_THREADS = 1
"""Per run: requests run beside each other, as the encoders' do."""


class Rerankers:
    """Each is found when first asked for, so that one that is installed meanwhile is used.

    `originals` opens what reads pictures; `threads` is for each run. Thread-safe; close it after use.
    """

    def __init__(
        self, settings: Settings, originals: Callable[[], Originals], *, threads: int | None = SESSION_THREADS
    ) -> None:
        self._settings = settings
        self._originals = originals
        self._threads = threads
        self._lock = threading.RLock()
        self._closing = ExitStack()
        self._comparers: dict[Modality, Comparer] = {}
        self._opening: dict[Modality, _Opening] = {}

    def of(self, modality: Modality) -> Comparer:
        """What compares items of a modality; its graphs need not be open.

        Raises:
            NoReranker: none of the settings' name is installed.
            InvalidBundle, UnknownRecipe: it is, and is broken, or for a newer version.
        """
        with self._lock:
            if modality not in self._comparers:
                self._comparers[modality] = self._pictures() if modality == "image" else self._texts()
            return self._comparers[modality]

    def names(self) -> Mapping[str, str | None]:
        """Which models rerank pictures and texts; None where none is installed that could."""
        return {"image": self._name("image"), "text": self._name("text")}

    def is_open(self, modality: Modality, seconds: float | None) -> bool:
        """Whether a reranker can score at once.

        Opening it may take longer than a search has, so it goes on in a thread of its own; it is waited for so many
        seconds at most, and with None for as long as it takes.

        Raises:
            ModelError: it does not open; the next to ask tries again.
        """
        comparer = self.of(modality)
        with self._lock:
            opening = self._opening.get(modality)
            if opening is None or opening.failed:
                opening = self._opening[modality] = _Opening(comparer)
        return opening.wait(seconds)

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            self._closing.close()
            self._comparers.clear()
            self._opening.clear()

    def _pictures(self) -> Pictures:
        from indexer.models.rerank.reranker import load_reranker  # noqa: PLC0415  for who reranks
        from indexer.rerank.candidates import Candidates  # noqa: PLC0415
        from indexer.rerank.features import FeatureCache  # noqa: PLC0415

        model = load_reranker(self._settings, threads=self._threads)
        candidates = Candidates(model, FeatureCache(model, self._settings), self._originals(), self._settings)
        return Pictures(model, self._closing.enter_context(candidates))

    def _texts(self) -> Texts:
        from indexer.models.rerank.reranker import load_text_reranker  # noqa: PLC0415

        return Texts(load_text_reranker(self._settings, threads=self._threads))

    def _name(self, modality: Modality) -> str | None:
        from indexer.models.rerank.bundle import find_rerank_bundle  # noqa: PLC0415

        wanted = self._settings.reranker if modality == "image" else self._settings.text_reranker
        try:
            manifest = find_rerank_bundle(wanted, self._settings).manifest
        except ModelError:
            return None  # a search that asks for it is told what is wrong
        return manifest.name if (manifest.pixels is not None) == (modality == "image") else None


class _Opening:
    """A comparer that is opened in a thread of its own."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer
        self._over = threading.Event()
        self._error: Exception | None = None
        threading.Thread(target=self._open, name="open-reranker", daemon=True).start()

    @property
    def failed(self) -> bool:
        """Whether it did not open."""
        return self._over.is_set() and self._error is not None

    def wait(self, seconds: float | None) -> bool:
        """Whether it is open, after so many seconds at most; raises what hindered it."""
        over = self._over.wait(seconds)
        if over and self._error is not None:
            raise self._error
        return over

    def _open(self) -> None:
        try:
            self._comparer.model.warm_up()
        except Exception as error:  # noqa: BLE001  raised again in whoever waits
            self._error = error
        finally:
            self._over.set()
