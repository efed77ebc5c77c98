"""Label sets kept with a collection, in its metadata: each under a key of its own, so that two writers never meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexer.classify.labels import LabelSet, as_document, parse_label_set
from indexer.errors import InvalidRequest, LabelSetNotFound
from indexer.items import now

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.store import Store

MOST_SETS = 16
"""Of a collection: its metadata comes along whenever it is looked up."""
_PREFIX = "labels."


@dataclass(frozen=True)
class StoredSet:
    """A label set as a collection keeps it."""

    labels: LabelSet
    version: int
    """1 at first, one more at every change."""
    updated_at: str
    """RFC 3339."""

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON, what is by default written out."""
        return {
            **self.labels.model_dump(mode="json"),
            "field": self.labels.target,
            "version": self.version,
            "updated_at": self.updated_at,
        }


def label_sets(collection: Collection) -> dict[str, StoredSet]:
    """The sets of a collection, as they were when it was looked up, by their names."""
    return {kept.labels.name: kept for kept in sorted(_kept(collection), key=lambda kept: kept.labels.name)}


def _kept(collection: Collection) -> Iterator[StoredSet]:
    for key, value in collection.metadata.items():
        if key.startswith(_PREFIX) and value:
            yield StoredSet(parse_label_set(value["definition"]), value["version"], value["updated_at"])


def label_set(collection: Collection, name: str) -> StoredSet:
    """One set of a collection.

    Raises:
        LabelSetNotFound: there is none of that name.
    """
    found = label_sets(collection).get(name)
    if found is None:
        raise LabelSetNotFound(f"The collection {collection.name!r} has no label set {name[:64]!r}.")
    return found


def put_label_set(store: Store, collection: Collection, labels: LabelSet) -> StoredSet:
    """Keep a set with a collection: one that is there already as it is stays, one that changed has a new version.

    Raises:
        InvalidRequest: there are too many, or it would write to another field than its former version or another set.
    """
    there = label_sets(collection)
    before = there.get(labels.name)
    if before is not None and before.labels == labels:
        return before
    if before is None and len(there) >= MOST_SETS:
        raise InvalidRequest(f"A collection can have no more than {MOST_SETS} label sets.", remedy="Delete one first.")
    if before is not None and before.labels.target != labels.target:
        raise InvalidRequest(
            f"field: the labels of {labels.name!r} are written to {before.labels.target!r} already.",
            remedy="Keep the field, or give the set another name.",
            field="field",
        )
    for other in there.values():
        if other.labels.name != labels.name and _overlap(other.labels.target, labels.target):
            raise InvalidRequest(
                f"field: {labels.target!r} is where the labels of {other.labels.name!r} are written to.",
                remedy="Choose another field.",
                field="field",
            )
    kept = StoredSet(labels, before.version + 1 if before else 1, now().isoformat())
    document = {"definition": as_document(labels), "version": kept.version, "updated_at": kept.updated_at}
    store.annotate(collection.name, _PREFIX + labels.name, document)
    return kept


def delete_label_set(store: Store, collection: Collection, name: str) -> None:
    """Forget a set; what it wrote to items stays.

    Raises:
        LabelSetNotFound: there is none of that name.
    """
    label_set(collection, name)
    store.annotate(collection.name, _PREFIX + name, None)


def _overlap(one: str, other: str) -> bool:
    """Whether one field is the other, or inside it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
