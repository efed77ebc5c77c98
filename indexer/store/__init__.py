"""The index as the rest of Crosslens sees it, through qdrant-client alone."""

from qdrant_client.models import Filter

from indexer.store.collection import Collection
from indexer.store.points import Hit, Place, Point, Stored
from indexer.store.questions import Query
from indexer.store.store import Store, open_store

__all__ = ["Collection", "Filter", "Hit", "Place", "Point", "Query", "Store", "Stored", "open_store"]
