"""The index: its collections, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qdrant_client import QdrantClient, models

from indexer.edge.client import Attached, attach
from indexer.errors import CollectionNotFound, InvalidRequest, ModelMismatch
from indexer.items import RECORD_KEY, check_collection_name, now
from indexer.settings import Settings
from indexer.store.collection import SOURCE_KEY, Collection
from indexer.store.connection import Connection

_INDEXES = {
    SOURCE_KEY: models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.kind": models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.sha256": models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.media_type": models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.width": models.PayloadSchemaType.INTEGER,
    f"{RECORD_KEY}.height": models.PayloadSchemaType.INTEGER,
    f"{RECORD_KEY}.bytes": models.PayloadSchemaType.INTEGER,
    f"{RECORD_KEY}.added_at": models.PayloadSchemaType.DATETIME,
}
"""Made before the first point, which costs nothing; afterwards each would be a pass over all points."""


class Store:
    """Collections by name. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            IndexUnavailable: there is none.
        """
        self._connection.call(lambda client: client.get_collections())

    def list(self) -> list[Collection]:
        """Every collection, by name."""
        described = self._connection.call(lambda client: client.get_collections()).collections
        return [self.get(each.name) for each in sorted(described, key=lambda each: each.name)]

    def get(self, name: str) -> Collection:
        """A collection.

        Raises:
            CollectionNotFound: there is none of that name, or it is not Crosslens'.
        """
        try:
            config = self._connection.call(lambda client: client.get_collection(name)).config
        except CollectionNotFound as error:
            raise CollectionNotFound(f"There is no collection {name!r}.") from error
        metadata: dict[str, Any] = config.metadata or {}
        vectors = config.params.vectors
        if "fingerprint" not in metadata or not isinstance(vectors, models.VectorParams):
            raise CollectionNotFound(
                f"The collection {name!r} was not made by Crosslens.", remedy="Choose another name with --collection."
            )
        return Collection(self._connection, name, metadata["model"], metadata["fingerprint"], vectors.size)

    def create(self, name: str, model: str, fingerprint: str, dimension: int) -> Collection:
        """A collection for a model's vectors; the one that is there, if it holds the same model's.

        Raises:
            InvalidName: the name cannot name a collection.
            ModelMismatch: there is one, with another model's vectors.
        """
        check_collection_name(name)
        try:
            found = self.get(name)
        except CollectionNotFound:
            found = self._make(name, model, fingerprint, dimension)
        if found.fingerprint != fingerprint:
            raise ModelMismatch(
                f"The collection {name!r} holds vectors of {found.model!r} ({found.fingerprint}), "
                f"not of {model!r} ({fingerprint})."
            )
        return found

    def _make(self, name: str, model: str, fingerprint: str, dimension: int) -> Collection:
        metadata = {"model": model, "fingerprint": fingerprint, "created": now().isoformat()}

        def make(client: QdrantClient) -> None:
            vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
            client.create_collection(name, vectors_config=vectors, metadata=metadata)

        try:
            self._connection.call(make)
        except InvalidRequest:
            self._await(name)  # another process made it at the same moment, unless it is another refusal
        for field, schema in _INDEXES.items():
            self._connection.call(
                lambda client, field=field, schema=schema: client.create_payload_index(  # type: ignore[misc]
                    name, field, field_schema=schema, wait=True
                )
            )
        return self.get(name)

    def _await(self, name: str) -> None:
        deadline = time.monotonic() + 5
        while name not in {each.name for each in self._connection.call(lambda c: c.get_collections()).collections}:
            if time.monotonic() > deadline:
                raise CollectionNotFound(f"The collection {name!r} could not be made.")
            time.sleep(0.05)

    def delete(self, name: str) -> None:
        """Remove a collection with its points; originals stay.

        Raises:
            CollectionNotFound: there is none of that name.
        """
        self.get(name)
        self._connection.call(lambda client: client.delete_collection(name))


@contextmanager
def open_store(settings: Settings, attached: Attached | None = None) -> Iterator[Store]:
    """The index of the settings: the server at `qdrant_url`, else the data folder's own index process.

    `attached` is a lease taken before, so that the process starts while something else is done.

    Raises:
        IndexUnavailable: it does not answer or does not start.
        IndexOwned: the data folder belongs to another process.
    """
    if settings.qdrant_url:
        connection = Connection(url=settings.qdrant_url, api_key=settings.qdrant_api_key)
    else:
        attached = attached or attach(settings)
        try:
            connection = Connection(attached=attached)
        except BaseException:
            attached.close()
            raise
    try:
        yield Store(connection)
    finally:
        connection.close()
