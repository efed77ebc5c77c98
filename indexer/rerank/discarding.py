"""What was seen in pictures goes from the disk with the items that leave a collection by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from indexer.errors import MediaStoreUnavailable

if TYPE_CHECKING:
    from indexer.items import Record
    from indexer.settings import Settings
    from indexer.store.collection import Collection

_log = structlog.get_logger("rerank")


def keeps_features(settings: Settings) -> bool:
    """Whether anything was ever kept in the data folder."""
    return settings.rerank_folder.exists()


def discard_unshown(collection: Collection, removed: Sequence[Record], settings: Settings) -> None:
    """Remove what is kept of items that were removed, unless another one of their collection has the same content.

    An item of another collection is looked at again when it is found next. What cannot be removed is logged, and goes
    once it has been unused for the longest.
    """
    if not removed or not keeps_features(settings):
        return
    from indexer.rerank.features import discard_features  # noqa: PLC0415  for who reranks

    shown = collection.holding(sorted({record.sha256 for record in removed}))
    try:
        discard_features([record for record in removed if record.sha256 not in shown], settings)
    except MediaStoreUnavailable as error:
        _log.warning("features not removed", reason=error.message)
