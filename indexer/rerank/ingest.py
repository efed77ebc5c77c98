"""Features computed while a collection is filled, where it asks for that; else they are at the first search."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import structlog

from indexer.errors import CrosslensError, ModelError, NoFeatures
from indexer.models.preprocess import decode_target
from indexer.models.rerank.loading import load_reranker
from indexer.models.rerank.reranker import Floats, Reranker
from indexer.rerank.features import FeatureCache, feature_key

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from indexer.items import Record
    from indexer.media.decode import Decoded
    from indexer.settings import Settings

_log = structlog.get_logger("rerank")


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture that is being indexed, as the reranker's vision graph takes it."""

    key: str
    pixels: Floats


class FeaturesAtIngest:
    """Looks at pictures that are decoded already. What fails here is logged, and fails no item. Thread-safe.

    What it sees is kept on disk alone: a search may never ask for it.
    """

    def __init__(self, reranker: Reranker, cache: FeatureCache) -> None:
        self._reranker = reranker
        self._cache = cache

    @property
    def target(self) -> int:
        """The shortest side, in pixels, that a scaled decoder must at least keep."""
        return decode_target(self._reranker.pixels)

    def prepare(self, record: Record, image: Image.Image | Decoded) -> Seen | None:
        """A picture, prepared; None if its features are kept already, or the disk takes none."""
        key = feature_key(record)
        return None if self._cache.has(key) or not self._cache.takes else Seen(key, self._reranker.prepare(image))

    def keep(self, seen: Sequence[Seen]) -> None:
        """Compute and keep the features of some pictures."""
        size = self._reranker.vision_batch
        for at in range(0, len(seen), size):
            self._keep(seen[at : at + size])

    def _keep(self, some: Sequence[Seen]) -> None:
        if not self._cache.takes:
            return
        try:
            computed = self._reranker.features_of([each.pixels for each in some])
        except ModelError as error:
            if isinstance(error, NoFeatures) and len(some) > 1:  # which costs the others nothing
                for each in some:
                    self._keep([each])
                return
            # At the first search it is tried again.
            _log.warning("no features at ingest", pictures=len(some), code=error.code, reason=error.message)
            return
        for each, features in zip(some, computed, strict=True):
            self._cache.write(each.key, features)


Lender: TypeAlias = Callable[[], FeaturesAtIngest | None]

_lender: ContextVar[Lender | None] = ContextVar("features_at_ingest", default=None)
_opening = threading.Lock()


@contextmanager
def looked_at_by(lender: Lender) -> Iterator[None]:
    """Have what is ingested in this context looked at with a model that is open anyway; None: not at all.

    So a server's uploads open no second one beside that of its searches, and none at all where that is the workers'.
    """
    before = _lender.set(lender)
    try:
        yield
    finally:
        _lender.reset(before)


def features_at_ingest(settings: Settings) -> FeaturesAtIngest | None:
    """What computes features, kept open for the next who ask.

    None where they would not be kept, or no reranker is installed, which is logged.
    """
    if not settings.rerank_cache_bytes:
        return None
    if not _is_writable(settings.rerank_folder):
        _log.warning("no features at ingest", reason=f"{settings.rerank_folder} cannot be written to.")
        return None
    lender = _lender.get()
    try:
        return _own(settings) if lender is None else lender()
    except CrosslensError as error:
        _log.warning("no features at ingest", code=error.code, reason=error.message, remedy=error.remedy)
        return None


def _own(settings: Settings) -> FeaturesAtIngest:
    """One for as long as neither the settings nor the bundle change: its graph may take seconds to open."""
    fingerprint = load_reranker(settings).fingerprint
    with _opening:  # or the first two to ask would open one each
        return _opened(settings, fingerprint)


@lru_cache(maxsize=1)
def _opened(settings: Settings, _fingerprint: str) -> FeaturesAtIngest:
    reranker = load_reranker(settings)
    return FeaturesAtIngest(reranker, FeatureCache(reranker, settings))


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
