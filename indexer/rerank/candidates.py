"""Features of stored items: those that are kept, and of the others, from their originals, as many as time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Self, TypeAlias

import structlog

from indexer.errors import CrosslensError, ModelError, NoFeatures
from indexer.items import Kind, Record
from indexer.media.pictures import stored_picture
from indexer.models.preprocess import decode_target
from indexer.rerank.features import FeatureCache, feature_key

if TYPE_CHECKING:
    from indexer.media.originals import Originals
    from indexer.models.rerank.reranker import Features, Floats, Reranker
    from indexer.settings import Settings

    Opening: TypeAlias = Future[Floats | None]

OPENERS = 8
"""Originals that are opened beside each other; some come over the network."""

_log = structlog.get_logger("rerank")


class Candidates:
    """What a reranker sees of stored items. Thread-safe; close it after use.

    Usage:
        candidates = Candidates(reranker, FeatureCache(reranker, settings), originals, settings)
        features = candidates.features([stored.record], seconds=0.2)    # None where there is nothing to compare
    """

    def __init__(
        self,
        reranker: Reranker,
        cache: FeatureCache,
        originals: Originals,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reranker = reranker
        self._cache = cache
        self._originals = originals
        self._settings = settings
        self._clock = clock
        self._openers = ThreadPoolExecutor(OPENERS, "rerank-open")
        self._finishing: set[str] = set()
        """Keys of what came late and is finished in the background."""

    def features(self, records: Sequence[Record], seconds: float | None = None) -> list[Features | None]:
        """Features of items' pictures, frames and pages; what is computed is kept.

        None for what has no picture, whose original is gone or does not decode, which is logged; and for what there
        was no time for: after `seconds` (None: never) nothing more begins, and no original is waited for after half of
        them. One that comes later, from a slow host, is finished in the background, for the next who asks.

        Raises:
            ModelError: the model does not run.
        """
        keys = [None if record.kind is Kind.TEXT else feature_key(record) for record in records]
        found: dict[str, Features | None] = {key: self._cache.get(key) for key in dict.fromkeys(filter(None, keys))}
        missing = {
            key: record
            for key, record in zip(keys, records, strict=True)
            if key is not None and found[key] is None and key not in self._finishing
        }
        if missing:
            found |= self._computed(missing, seconds)
        return [None if key is None else found[key] for key in keys]

    def close(self) -> None:
        """Begin nothing more; what is being opened comes to its end."""
        self._openers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _computed(self, missing: dict[str, Record], seconds: float | None) -> dict[str, Features]:
        began = self._clock()
        opening = {self._openers.submit(self._open, record): key for key, record in missing.items()}
        pending = set(opening)
        ready: dict[str, Floats] = {}
        found: dict[str, Features] = {}
        try:
            while pending or ready:
                if pending and len(ready) < self._reranker.vision_batch:
                    patience = None if seconds is None else max(0.0, began + seconds / 2 - self._clock())
                    done, pending = wait(pending, patience, FIRST_COMPLETED)
                    if not done:
                        self._leave(pending, opening)
                        pending = set()
                    ready |= {opening[future]: pixels for future in done if (pixels := future.result()) is not None}
                elif seconds is not None and self._clock() >= began + seconds:
                    break
                else:  # the best first
                    some = [key for key in missing if key in ready][: self._reranker.vision_batch]
                    found |= self._looked_at({key: ready.pop(key) for key in some})
        finally:
            self._leave(pending, opening)
        return found

    def _open(self, record: Record) -> Floats | None:
        """A picture as the vision graph takes it; None if it cannot be had."""
        target = decode_target(self._reranker.pixels)
        try:
            picture = stored_picture(record, originals=self._originals, settings=self._settings, target=target)
        except CrosslensError as error:
            _log.info("picture not reranked", code=error.code, reason=error.message, sha256=record.sha256)
            return None
        return self._reranker.prepare(picture)

    def _leave(self, pending: Iterable[Opening], opening: Mapping[Opening, str]) -> None:
        """Wait no longer: what has not begun never will, what has is finished by the thread that began it."""
        for future in pending:
            if not future.cancel():
                self._finishing.add(opening[future])
                future.add_done_callback(lambda future: self._finish(opening[future], future))

    def _finish(self, key: str, future: Opening) -> None:
        try:
            if (pixels := future.result()) is not None:
                self._looked_at({key: pixels})
        except ModelError as error:
            _log.warning("picture not reranked", code=error.code, reason=error.message)
        finally:
            self._finishing.discard(key)

    def _looked_at(self, ready: dict[str, Floats]) -> dict[str, Features]:
        """Features of one batch, kept. A picture for which the model gives none costs the others nothing.

        Raises:
            ModelError: the model does not run.
        """
        try:
            computed = self._reranker.features_of(list(ready.values()))
        except NoFeatures as error:
            if len(ready) == 1:
                _log.warning("picture not reranked", code=error.code, reason=error.message)
                return {}
            return {k: v for key, pixels in ready.items() for k, v in self._looked_at({key: pixels}).items()}
        found = dict(zip(ready, computed, strict=True))
        for key, features in found.items():
            self._cache.put(key, features)
        return found
