"""The index as the rest of Crosslens sees it, through qdrant-client alone."""

from indexer.store.collection import Collection, Hit, Point, Stored
from indexer.store.store import Store, open_store

__all__ = ["Collection", "Hit", "Point", "Store", "Stored", "open_store"]
