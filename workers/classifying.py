"""Jobs that label what is stored: the source `labels:SET` means every item of the collection, each by its id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from indexer.classify.classifier import Classifier
from indexer.classify.stored import label_set
from indexer.classify.tagging import declare_field, tag_ids
from indexer.store.collection import Collection
from workers.runtime import Runtime
from workers.shard import Outcome

LABELS_OF = "labels:"
"""A source: the name of a label set behind it."""
SET = "labels"
"""In a shard's item, the name of the label set that its item is to be labelled by."""
_IDS_AT_ONCE = 1_000


def items_to_label(runtime: Runtime, collection: str, name: str) -> Iterator[dict[str, Any]]:
    """Every item of a collection as a shard holds it, once the field that is written is declared.

    All of them, in the order of their ids: so planning that was cut short finds where it was. Workers pass over those
    that are labelled already.

    Raises:
        LabelSetNotFound: there is no such set.
        InvalidRequest: its field cannot be declared.
    """
    there = runtime.store.get(collection)
    declare_field(runtime.store, there, label_set(there, name).labels)
    return ({"source": item, SET: name} for ids in there.ids(_IDS_AT_ONCE) for item in ids)


def label_items(runtime: Runtime, collection: Collection, part: list[dict[str, Any]]) -> Outcome:
    """Label the items of a part of a shard, by the set's version of this moment.

    Raises:
        LabelSetNotFound: the set is gone.
    """
    labels = label_set(collection, part[0][SET]).labels
    classifier = Classifier(runtime.encoder_of(collection), labels, cache=runtime.label_vectors)
    done = tag_ids(collection, classifier, [item["source"] for item in part])
    failures = [{**each, "item": {"source": each["id"], SET: labels.name}} for each in done.failures]
    return Outcome(done.written, done.unchanged, 0, failures)
