"""Hash lists of a collection: their content in the media store, under its own hash, and in the metadata which it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexer.errors import HashListNotFound
from indexer.items import now
from indexer.media.blobs import open_blobs
from indexer.moderation.hash_lists import MOST_BYTES, HashList, as_csv, read_hash_list

if TYPE_CHECKING:
    from indexer.settings import Settings
    from indexer.store.collection import Collection
    from indexer.store.store import Store

PREFIX = "hashes."
"""Before a list's name, in the metadata."""


@dataclass(frozen=True)
class StoredList:
    """A hash list as a collection knows it."""

    name: str
    sha256: str
    """Of its content."""
    count: int
    at: str
    by: str

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON."""
        return {"name": self.name, "count": self.count, "at": self.at, "by": self.by, "sha256": self.sha256}


def hash_lists(collection: Collection) -> dict[str, StoredList]:
    """The lists of a collection, by name."""
    found = {}
    for key, kept in sorted(collection.metadata.items()):
        if key.startswith(PREFIX) and kept:
            name = key.removeprefix(PREFIX)
            found[name] = StoredList(name, **kept)
    return found


def put_hash_list(
    store: Store, collection: Collection, name: str, hashes: HashList, *, by: str, settings: Settings
) -> StoredList:
    """Keep a list under a name, in place of the one that was there."""
    content = as_csv(hashes).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    open_blobs(settings).write(_key(sha256), content)
    kept = {"sha256": sha256, "count": len(hashes), "at": now().isoformat(), "by": by}
    store.annotate(collection.name, PREFIX + name, kept)
    return StoredList(name, **kept)  # type: ignore[arg-type]


def delete_hash_list(store: Store, collection: Collection, name: str) -> None:
    """Forget a list. A policy that names it can judge nothing by it then, and holds back what it would have found.

    Raises:
        HashListNotFound: there is none of that name.
    """
    _stored(collection, name)
    store.annotate(collection.name, PREFIX + name, None)


def hash_list(collection: Collection, name: str, settings: Settings) -> HashList:
    """The content of a list.

    Raises:
        HashListNotFound: there is none of that name, or its content is gone.
        HashListInvalid: its content was altered.
    """
    kept = _stored(collection, name)
    content = open_blobs(settings).read(_key(kept.sha256), max_bytes=2 * MOST_BYTES)
    if content is None or hashlib.sha256(content).hexdigest() != kept.sha256:
        raise HashListNotFound(f"The content of the hash list {name!r} is gone.", remedy="Import it again.")
    return read_hash_list(content).hashes


def _stored(collection: Collection, name: str) -> StoredList:
    found = hash_lists(collection).get(name)
    if found is None:
        raise HashListNotFound(f"The collection {collection.name!r} has no hash list {name[:64]!r}.")
    return found


def _key(sha256: str) -> str:
    return f"moderation/lists/{sha256}.csv"
