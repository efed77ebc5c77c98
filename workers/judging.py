"""Jobs that judge what is stored: the source `policy:` means every item of the collection, each by its id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from indexer.errors import PolicyNotFound
from indexer.media.originals import Originals
from indexer.moderation.judging import judge_stored, open_judge
from indexer.moderation.trail import Trail
from indexer.store.collection import Collection
from workers.runtime import Runtime
from workers.shard import Outcome

POLICY = "policy:"
"""A source: everything that is stored."""
JUDGED = "judged"
"""In a shard's item, that its item is to be judged."""
_IDS_AT_ONCE = 1_000


def items_to_judge(runtime: Runtime, collection: str) -> Iterator[dict[str, Any]]:
    """Every item of a collection as a shard holds it, in the order of their ids: so planning that was cut short finds
    where it was.

    Raises:
        CollectionNotFound: there is none of that name.
    """
    there = runtime.store.get(collection)
    return ({"source": item, JUDGED: True} for ids in there.ids(_IDS_AT_ONCE) for item in ids)


def judge_items(runtime: Runtime, collection: Collection, part: list[dict[str, Any]]) -> Outcome:
    """Judge the items of a part of a shard by the policy of this moment; those whose verdict stays are passed over.

    Raises:
        PolicyNotFound: there is none any more.
    """
    judge = open_judge(collection, runtime.encoder_of(collection), runtime.settings)
    if judge is None:
        raise PolicyNotFound(f"The collection {collection.name!r} has no policy.", remedy="Put one in force first.")
    originals = Originals.of(runtime.settings)
    try:
        done = judge_stored(
            collection,
            judge,
            [item["source"] for item in part],
            originals=originals,
            settings=runtime.settings,
            trail=Trail(runtime.settings.data, collection.name),
        )
    finally:
        originals.close()
    return Outcome(done.changed, done.unchanged, 0, [])
