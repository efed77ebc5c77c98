"""Features of stored items: those that are kept, and those that a picture has to be opened and looked at for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import structlog

from indexer.errors import CrosslensError, NoFeatures
from indexer.items import Kind, Record
from indexer.media.originals import Originals
from indexer.media.pictures import stored_picture
from indexer.models.preprocess import decode_target
from indexer.rerank.features import FeatureCache, feature_key
from indexer.rerank.opening import Openings, Wanted

if TYPE_CHECKING:
    from indexer.models.rerank.reranker import Features, Floats, Reranker
    from indexer.settings import Settings

FETCH_SECONDS = 10.0
"""What fetching an original may take: less than for an ingest, as only the next search could wait for it."""

_log = structlog.get_logger("rerank")


class Candidates:
    """What a reranker sees of stored items, by `feature_key`. Thread-safe; close it after use.

    Usage:
        candidates = Candidates(reranker, FeatureCache(reranker, settings), originals, settings)
        key = candidates.key_of(record)
        if (features := candidates.kept(key)) is None:
            with candidates.wanted() as wanted:
                wanted.add(key, record)
                features = candidates.looked_at(wanted.next(1, seconds=0.1)).get(key)
    """

    def __init__(self, reranker: Reranker, cache: FeatureCache, originals: Originals, settings: Settings) -> None:
        self._reranker = reranker
        self._cache = cache
        hasty = {"fetch_deadline": min(FETCH_SECONDS, settings.fetch_deadline)}
        self._originals = Originals(originals.blobs, settings.model_copy(update=hasty))
        self._settings = settings
        self._openings = Openings(self._open)

    def key_of(self, record: Record) -> str | None:
        """Names the picture, frame or page of an item; None of a text, which has none."""
        return None if record.kind is Kind.TEXT else feature_key(record)

    def kept(self, key: str) -> Features | None:
        """Features that are kept already; None if none are."""
        return self._cache.get(key)

    def wanted(self) -> Wanted:
        """What opens originals for one search."""
        return Wanted(self._openings)

    def looked_at(self, opened: Mapping[str, Floats | None]) -> dict[str, Features | None]:
        """Features of pictures that were opened, which runs the vision graph; they are kept.

        None for what could not be opened, and for a picture for which the model gives none; that costs the others
        nothing.

        Raises:
            ModelError: the model does not run.
        """
        found: dict[str, Features | None] = {key: self._cache.get(key) for key in opened}
        # What another search has looked at meanwhile is not looked at again.
        new = {key: pixels for key, pixels in opened.items() if pixels is not None and found[key] is None}
        for key, features in self._computed(new).items():
            self._cache.put(key, features)
            found[key] = features
        for key in opened:
            self._openings.forget(key)
        return found

    def close(self) -> None:
        """Begin nothing more; what is being opened is let go of."""
        self._openings.close()
        self._originals.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, record: Record) -> Floats | None:
        """A picture as the vision graph takes it; None if it cannot be had."""
        target = decode_target(self._reranker.pixels)
        try:
            picture = stored_picture(record, originals=self._originals, settings=self._settings, target=target)
        except CrosslensError as error:
            _log.info("picture not reranked", code=error.code, reason=error.message, sha256=record.sha256)
            return None
        return self._reranker.prepare(picture)

    def _computed(self, pixels: Mapping[str, Floats]) -> dict[str, Features]:
        if not pixels:
            return {}
        try:
            return dict(zip(pixels, self._reranker.features_of(list(pixels.values())), strict=True))
        except NoFeatures as error:
            if len(pixels) == 1:
                _log.warning("picture not reranked", code=error.code, reason=error.message)
                return {}
            return {k: v for key, each in pixels.items() for k, v in self._computed({key: each}).items()}
