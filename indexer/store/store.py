"""The index: its collections, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from qdrant_client import models

from indexer.edge.client import Attached, attach
from indexer.errors import CollectionNotFound, InvalidRequest, ModelMismatch
from indexer.items import RECORD_KEY, check_collection_name, now
from indexer.settings import Settings
from indexer.store.collection import PARENT_KEY, SOURCE_KEY, Collection
from indexer.store.connection import Connection
from indexer.store.server import check_version, creation, warn_of_differences

_INDEXES: dict[str, models.PayloadFieldSchema] = {
    SOURCE_KEY: models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.kind": models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.sha256": models.PayloadSchemaType.KEYWORD,
    PARENT_KEY: models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.media_type": models.PayloadSchemaType.KEYWORD,
    f"{RECORD_KEY}.width": models.PayloadSchemaType.INTEGER,
    f"{RECORD_KEY}.height": models.PayloadSchemaType.INTEGER,
    f"{RECORD_KEY}.bytes": models.PayloadSchemaType.INTEGER,
    f"{RECORD_KEY}.added_at": models.PayloadSchemaType.DATETIME,
}
"""Made before the first point, which costs nothing; afterwards each would be a pass over all points."""

_RACE_SECONDS = 5
"""For which a collection that another process is just making may stay unlisted."""


class Store:
    """Collections by name. Thread-safe.

    `server` are the settings of the Qdrant server behind the connection; unset, it is the embedded index.
    """

    def __init__(self, connection: Connection, server: Settings | None = None) -> None:
        self._connection = connection
        self._server = server
        self._compared: set[str] = set()
        """Collections whose settings were compared with ours: once is enough."""

    def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            IndexUnavailable: there is none.
        """
        self._connection.call(lambda client: client.get_collections())

    def list(self) -> list[Collection]:
        """Every collection of Crosslens', by name; a server may hold others' too."""
        described = self._connection.call(lambda client: client.get_collections()).collections
        found = []
        for name in sorted(each.name for each in described):
            with suppress(CollectionNotFound):  # another's, or removed since
                found.append(self.get(name))
        return found

    def get(self, name: str) -> Collection:
        """A collection.

        Raises:
            CollectionNotFound: there is none of that name, or it is not Crosslens'.
        """
        return self._collection(name, self._info(name))

    def create(
        self,
        name: str,
        model: str,
        fingerprint: str,
        dimension: int,
        *,
        metadata: dict[str, Any] | None = None,
        indexes: Mapping[str, models.PayloadFieldSchema] | None = None,
    ) -> Collection:
        """A collection for a model's vectors; the one that is there, if it holds the same model's.

        `metadata` is kept beside a new one's model. `indexes` are payload indexes by field, made before the first
        point comes, beside those that Crosslens needs.

        Raises:
            InvalidName: the name cannot name a collection.
            InvalidRequest: the index refuses to make it.
            ModelMismatch: there is one, with another model's vectors.
        """
        check_collection_name(name)
        try:
            info = self._info(name)
        except CollectionNotFound:
            whole = {"created": now().isoformat(), **(metadata or {}), "model": model, "fingerprint": fingerprint}
            self._make(name, dimension, whole)
            info = self._info(name)
        found = self._collection(name, info)
        if found.fingerprint != fingerprint:
            raise ModelMismatch(
                f"The collection {name!r} holds vectors of {found.model!r} ({found.fingerprint}), "
                f"not of {model!r} ({fingerprint})."
            )
        # Also in a collection that was there: whoever made it may have died, or may not have come to these yet, and a
        # server refuses to filter without them.
        for field, schema in {**(indexes or {}), **_INDEXES}.items():
            if field not in info.payload_schema:
                self._connection.call(
                    lambda client, field=field, schema=schema: client.create_payload_index(  # type: ignore[misc]
                        name, field, field_schema=schema, wait=True
                    )
                )
        return found

    def _info(self, name: str) -> models.CollectionInfo:
        try:
            return self._connection.call(lambda client: client.get_collection(name))
        except CollectionNotFound as error:
            raise CollectionNotFound(f"There is no collection {name!r}.") from error

    def _collection(self, name: str, info: models.CollectionInfo) -> Collection:
        metadata = info.config.metadata or {}
        vectors = info.config.params.vectors
        if not {"model", "fingerprint"} <= metadata.keys() or not isinstance(vectors, models.VectorParams):
            raise CollectionNotFound(
                f"The collection {name!r} was not made by Crosslens.", remedy="Choose another name with --collection."
            )
        if self._server is not None and name not in self._compared:
            self._compared.add(name)
            warn_of_differences(name, info.config, self._server)
        return Collection(self._connection, name, vectors.size, metadata)

    def _make(self, name: str, dimension: int, metadata: dict[str, Any]) -> None:
        on_disk = self._server.qdrant_on_disk if self._server else None
        vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE, on_disk=on_disk)
        options = creation(self._server) if self._server else {}
        try:
            self._connection.call(
                lambda client: client.create_collection(name, vectors_config=vectors, metadata=metadata, **options)
            )
        except InvalidRequest as refusal:
            self._await(name, refusal)  # another process made it at the same moment, unless it is another refusal

    def _await(self, name: str, refusal: InvalidRequest) -> None:
        deadline = time.monotonic() + _RACE_SECONDS
        while name not in {each.name for each in self._connection.call(lambda c: c.get_collections()).collections}:
            if time.monotonic() > deadline:
                raise refusal
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
        ServerTooOld: the server is below the oldest version that will do.
        IndexOwned: the data folder belongs to another process.
    """
    if settings.qdrant_url:
        connection = Connection(settings)
    else:
        attached = attached or attach(settings)
        try:
            connection = Connection(attached)
        except BaseException:
            attached.close()
            raise
    try:
        if settings.qdrant_url:
            check_version(connection)
        yield Store(connection, settings if settings.qdrant_url else None)
    finally:
        connection.close()
