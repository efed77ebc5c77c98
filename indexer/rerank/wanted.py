"""Whether a collection has its pictures' features computed while it is filled: a flag in its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.store import Store

RERANK_FEATURES = "rerank_features"
"""The flag's key; what carries a collection's metadata over (a change of model, a backup) carries it, too."""


def wants_features(collection: Collection) -> bool:
    """Whether it does."""
    return collection.metadata.get(RERANK_FEATURES) is True


def want_features(store: Store, name: str, wanted: bool) -> None:
    """Set it, for what is ingested from now on.

    Raises:
        CollectionNotFound: there is no collection of that name.
    """
    store.annotate(name, RERANK_FEATURES, True if wanted else None)
