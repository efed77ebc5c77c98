"""The index: its collections, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from qdrant_client import models

from indexer.edge.client import Attached, attach
from indexer.errors import CollectionNotFound, InvalidRequest, ModelMismatch
from indexer.items import check_collection_name, now
from indexer.settings import Settings
from indexer.store.collection import SUCCESSOR, Collection
from indexer.store.connection import Connection
from indexer.store.fields import DEFAULTS, OWN, FieldType, schemas
from indexer.store.server import check_version, creation, warn_of_differences

_OWN = {field: models.PayloadSchemaType(kind) for field, kind in OWN.items()}
_CREATE, _REMOVE = models.CreateAliasOperation, models.DeleteAliasOperation
SERVES = "serves"
"""In a collection's metadata: it took the place of another one, by that one's name."""
_MOST_SUCCESSIONS = 8
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
        """Every collection of Crosslens', by name; a server may hold others' too.

        Those that were replaced, and those that are being filled to replace one, are left out.
        """
        every = self.every()
        renamed = {each.name for each in every if each.name != each.physical}
        current = {name: found.physical for name in renamed if (found := self._found(name)) is not None}
        kept = [each for each in every if current.get(each.name, each.physical) == each.physical]
        return sorted(kept, key=lambda each: each.name)

    def _found(self, name: str) -> Collection | None:
        with suppress(CollectionNotFound):
            return self.get(name)
        return None

    def every(self) -> Sequence[Collection]:
        """Every collection of Crosslens' in the index, by its physical name."""
        described = self._connection.call(lambda client: client.get_collections()).collections
        found = []
        for name in sorted(each.name for each in described):
            with suppress(CollectionNotFound):  # another's, or removed since
                found.append(self.physical(name))
        return found

    def get(self, name: str) -> Collection:
        """A collection, by its name or by an alias; the name of what is given back is its own.

        If its model was changed, it is the collection that took its place, by the same name.

        Raises:
            CollectionNotFound: there is none of that name, or it is not Crosslens'.
        """
        try:
            found = self.physical(name)
            for _ in range(_MOST_SUCCESSIONS):
                if not (following := found.metadata.get(SUCCESSOR)):
                    break
                found = self.physical(following)
        except CollectionNotFound:
            # Between the removal of what was replaced and the alias that then has its name.
            if (heir := self._heir(name)) is None:
                raise
            return heir
        return found

    def physical(self, name: str) -> Collection:
        """A collection of the index, by its very name or an alias, whether another one took its place or not.

        Raises:
            CollectionNotFound: there is none of that name, or it is not Crosslens'.
        """
        return self._collection(name, self._info(name))

    def _heir(self, name: str) -> Collection | None:
        return next((each for each in self.every() if each.name == name and each.metadata.get(SERVES)), None)

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
        point comes, beside those of Crosslens' own record and `fields.DEFAULTS`.

        Raises:
            InvalidName: the name cannot name a collection.
            InvalidRequest: the index refuses to make it.
            ModelMismatch: there is one, with another model's vectors.
        """
        check_collection_name(name)
        try:
            found = self.get(name)
        except CollectionNotFound:
            kept = {"created": now().isoformat(), **(metadata or {})}
            self._make(name, dimension, {**kept, "name": name, "model": model, "fingerprint": fingerprint})
            found = self.get(name)
        if found.fingerprint != fingerprint:
            raise ModelMismatch(
                f"The collection {name!r} holds vectors of {found.model!r} ({found.fingerprint}), "
                f"not of {model!r} ({fingerprint})."
            )
        # Also in a collection that was there: whoever made it may have died, or may not have come to these yet, and a
        # server refuses to filter without them.
        wanted = {**schemas(DEFAULTS), **(indexes or {}), **_OWN}
        if wanted.keys() <= found.types.keys():
            return found
        self.index(found, wanted)
        return self.physical(found.physical)  # of a shadow, the name is another collection's

    def declare(self, name: str, fields: Mapping[str, FieldType]) -> Collection:
        """Declare fields of the callers' payload, with or without points in the collection; gives it back with them.

        Declaring a field again as what it is is no error. Where there are points, it costs a pass over all of them.

        Raises:
            CollectionNotFound: there is none of that name.
            InvalidRequest: a type is not known, a field is another type's already or reserved, or there are too many.
        """
        found = self.get(name)
        self.index(found, schemas(fields, found.fields))
        return self.get(found.name)

    def index(self, collection: Collection, wanted: Mapping[str, models.PayloadFieldSchema]) -> None:
        """Make payload indexes. Before the first point that costs nothing, afterwards a pass over all points each."""
        name = collection.physical
        for field, schema in wanted.items():
            if field not in collection.types:
                self._connection.call(
                    lambda client, field=field, schema=schema: client.create_payload_index(  # type: ignore[misc]
                        name, field, field_schema=schema, wait=True
                    )
                )

    def aliases(self) -> dict[str, str]:
        """The further names of collections, and which each stands for."""
        described = self._connection.call(lambda client: client.get_aliases()).aliases
        return {each.alias_name: each.collection_name for each in described}

    def alias(self, name: str, target: str) -> None:
        """Let a further name stand for a collection.

        Raises:
            CollectionNotFound: there is no collection `target`.
            InvalidName: the name cannot name a collection.
            InvalidRequest: the name is taken, by a collection or for another one.
        """
        of = self.aliases().get(name)
        if of is not None and of != self.get(target).physical:
            raise InvalidRequest(
                f"{name!r} stands for the collection {of!r} already.", remedy="Switch it, or choose another name."
            )
        self.switch(name, target)

    def switch(self, name: str, target: str) -> None:
        """Let a further name stand for a collection, whatever it stood for: at no moment for none, or for two.

        Raises:
            CollectionNotFound: there is no collection `target`.
            InvalidName: the name cannot name a collection.
            InvalidRequest: the name is a collection's own.
        """
        check_collection_name(name)
        into = models.CreateAlias(collection_name=self.get(target).physical, alias_name=name)
        changes: list[models.AliasOperations] = [
            _REMOVE(delete_alias=models.DeleteAlias(alias_name=name)),
            _CREATE(create_alias=into),
        ]
        self._connection.call(lambda client: client.update_collection_aliases(changes))

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
        if metadata.get("name") != name:  # reached by an alias, or restored or made under another name
            name = self.aliases().get(name, name)
        if self._server is not None and name not in self._compared:
            self._compared.add(name)
            warn_of_differences(name, info.config, self._server)
        return Collection(self._connection, name, vectors.size, metadata, info.payload_schema)

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
        """Remove a collection with its points and aliases; originals stay.

        Raises:
            CollectionNotFound: there is none of that name.
            InvalidRequest: it is an alias.
        """
        found = self.get(name)
        if found.name != name:
            raise InvalidRequest(
                f"{name!r} is an alias of the collection {found.name!r}.",
                remedy="Delete that one, or remove the alias.",
            )
        kin = [each for each in self.every() if each.name == name and each.physical != found.physical]
        for each in [*kin, found]:  # what was replaced goes first: until the end the name leads to what is left
            self.drop(each)

    def drop(self, collection: Collection) -> None:
        """Remove this very collection of the index with its points and aliases."""
        self._connection.call(lambda client: client.delete_collection(collection.physical))

    def annotate(self, name: str, key: str, value: Any) -> None:
        """Keep a JSON value in a collection's metadata, under a key of its own; None takes it out again.

        Other keys stay as they are, also if others write them at the same moment.

        Raises:
            CollectionNotFound: there is none of that name.
            InvalidRequest: the key holds what makes the collection Crosslens'.
        """
        if key in {"name", "model", "fingerprint", "created"}:
            raise InvalidRequest(f"The collection's {key!r} stays as it is.", remedy="Use another key.")
        self.note(self.get(name), key, value)

    def note(self, collection: Collection, key: str, value: Any) -> None:
        """The same in the metadata of this very collection."""
        self._connection.call(lambda client: client.update_collection(collection.physical, metadata={key: value}))


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
