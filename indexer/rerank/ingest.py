"""Features computed while a collection is filled, where it asks for that; else they are at the first search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from indexer.errors import CrosslensError, ModelError
from indexer.models.preprocess import decode_target
from indexer.models.rerank.reranker import Floats, Reranker, load_reranker
from indexer.rerank.features import FeatureCache, feature_key

if TYPE_CHECKING:
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
    """Looks at pictures that are decoded already. What fails here is logged, and fails no item. Thread-safe."""

    def __init__(self, reranker: Reranker, cache: FeatureCache) -> None:
        self._reranker = reranker
        self._cache = cache

    @property
    def target(self) -> int:
        """The shortest side, in pixels, that a scaled decoder must at least keep."""
        return decode_target(self._reranker.pixels)

    def prepare(self, record: Record, image: Image.Image | Decoded) -> Seen | None:
        """A picture, prepared; None if its features are kept already."""
        key = feature_key(record)
        return None if self._cache.has(key) else Seen(key, self._reranker.prepare(image))

    def keep(self, seen: Sequence[Seen]) -> None:
        """Compute and keep the features of some pictures."""
        size = self._reranker.vision_batch
        for at in range(0, len(seen), size):
            some = seen[at : at + size]
            try:
                computed = self._reranker.features_of([each.pixels for each in some])
            except ModelError as error:  # at the first search it is tried again
                _log.warning("no features at ingest", pictures=len(some), code=error.code, reason=error.message)
                continue
            for each, features in zip(some, computed, strict=True):
                self._cache.put(each.key, features)


def features_at_ingest(settings: Settings) -> FeaturesAtIngest | None:
    """What computes features, kept open for the next who ask; None where no reranker is installed, which is logged."""
    try:
        reranker = load_reranker(settings)
        return _opened(settings, reranker.fingerprint)
    except CrosslensError as error:
        _log.warning("no features at ingest", code=error.code, reason=error.message, remedy=error.remedy)
        return None


@lru_cache(maxsize=1)
def _opened(settings: Settings, _fingerprint: str) -> FeaturesAtIngest:
    """One for as long as neither the settings nor the bundle change: its graph may take seconds to open."""
    reranker = load_reranker(settings)
    return FeaturesAtIngest(reranker, FeatureCache(reranker, settings))
