"""Labels for items that are stored, from their vectors alone, written into their payload for filters and facets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.classify.classifier import Classifier
from indexer.classify.labels import LabelSet
from indexer.errors import InvalidRequest
from indexer.flow import batched
from indexer.items import Modality

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.points import Stored
    from indexer.store.store import Store

BATCH = 512
"""Items in memory at a time: at 640 dimensions, 1.3 MB of vectors."""


@dataclass
class Tagged:
    """What became of some items."""

    written: int = 0
    unchanged: int = 0
    """Those that had their labels from this very version."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """`{"source", "id", "code", "message", "remedy"}` of those whose payload leaves no room for labels."""

    def add(self, other: Tagged) -> None:
        """Count what became of others, too."""
        self.written += other.written
        self.unchanged += other.unchanged
        self.failures += other.failures

    @property
    def total(self) -> int:
        """Items dealt with."""
        return self.written + self.unchanged + len(self.failures)


def declare_field(store: Store, collection: Collection, labels: LabelSet) -> None:
    """Let filters and facets use what a set writes.

    Raises:
        InvalidRequest: the field is declared as another type, or there are too many.
    """
    if collection.fields.get(labels.target) != "keyword":
        store.declare(collection.name, {labels.target: "keyword"})


def tag_collection(
    store: Store, collection: Collection, classifier: Classifier, *, progress: Callable[[Tagged], None] | None = None
) -> Tagged:
    """Write labels to all items that do not have them from this version; a run that was cut short goes on where it was.

    `progress` is called after each batch.

    Raises:
        InvalidRequest: the field is declared as another type, or there are too many.
        IndexUnavailable: the index does not answer; the same call goes on from there.
    """
    declare_field(store, collection, classifier.labels)
    done = Tagged()
    for items in batched(collection.scan(batch=BATCH), BATCH):
        done.add(_tag(collection, classifier, items))
        if progress is not None:
            progress(done)
    return done


def tag_ids(collection: Collection, classifier: Classifier, ids: Sequence[str]) -> Tagged:
    """Write labels to these items; those that have them from this version, or are not there, count as unchanged."""
    done = Tagged()
    for some in batched(ids, BATCH):
        found = collection.get_many(some)
        done.unchanged += len(some) - len(found)
        done.add(_tag(collection, classifier, list(found.values())))
    return done


def _tag(collection: Collection, classifier: Classifier, items: Sequence[Stored]) -> Tagged:
    version = classifier.labels.version_field
    waiting = [item for item in items if _value(item.payload, version) != classifier.stamp]
    done = Tagged(unchanged=len(items) - len(waiting))
    changed = []
    for item, tags in zip(waiting, _tags(collection, classifier, waiting), strict=True):
        try:
            payload = _with(item.payload, classifier.labels.target, tags)
            changed.append(replace(item, payload=_with(payload, version, classifier.stamp)))
        except InvalidRequest as error:
            done.failures.append({"source": item.record.locations[0].source, "id": item.id, **error.as_dict()})
    collection.overwrite(changed)
    done.written = len(changed)
    return done


def _tags(collection: Collection, classifier: Classifier, items: Sequence[Stored]) -> list[list[str]]:
    """The labels of each item; one product of matrices for the pictures and one for the texts."""
    vectors = collection.vectors([item.id for item in items])
    given: list[list[str]] = [[] for _ in items]
    kinds: tuple[Modality, ...] = ("image", "text")
    for kind in kinds:
        rows = [row for row, item in enumerate(items) if item.record.kind.modality == kind and item.id in vectors]
        if not rows:
            continue
        judged = classifier.judge(np.stack([vectors[items[row].id] for row in rows]), kind)
        labels = classifier.labels
        for row, tags in zip(rows, judged.tags(labels.threshold, multi=labels.multi), strict=True):
            given[row] = tags
    return given


def _value(payload: dict[str, Any], path: str) -> Any:
    value: Any = payload
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _with(payload: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The payload with a value at a path; what is beside it stays.

    Raises:
        InvalidRequest: something else than an object is on the way.
    """
    step, _, rest = path.partition(".")
    if not rest:
        return {**payload, step: value}
    inside = payload.get(step) or {}
    if not isinstance(inside, dict):
        raise InvalidRequest(
            f"The item's own field {step!r} is no object: labels cannot be written into it.",
            remedy="Give the label set another `field`, or rename the item's.",
        )
    return {**payload, step: _with(inside, rest, value)}
