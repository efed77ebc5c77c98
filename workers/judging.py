"""Jobs that judge what is stored: the source `policy:` means every item, in shares or each by its id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from indexer.errors import PolicyNotFound
from indexer.media.originals import Originals
from indexer.moderation.judging import Judged, judge_stored, open_judge
from indexer.moderation.rescan import Share, in_columns, rescan
from indexer.moderation.stored import policy_of
from indexer.moderation.trail import Trail
from indexer.store.collection import Collection
from workers.job import OVER
from workers.runtime import Runtime
from workers.shard import Outcome

POLICY = "policy:"
"""A source: everything that is stored."""
JUDGED = "judged"
"""In a shard's item, that its item is to be judged; or the share that is, as `[number, of]`."""
_IDS_AT_ONCE = 1_000
_FEW = 1_000
"""Items that are judged one by one as soon as their columns were asked for."""
_SHARE = 250_000
"""Items of a share, about: seconds of work, after which it is noted as done."""
_MOST_SHARES = 64
"""Each looks through all ids for its own."""


def items_to_judge(runtime: Runtime, collection: str) -> Iterator[dict[str, Any]]:
    """Every item of a collection as a shard holds it, in an order that planning which was cut short finds again.

    What is judged from columns comes in shares, which say how many items they have; else each comes by its id.

    Raises:
        CollectionNotFound: there is none of that name.
    """
    there = runtime.store.get(collection)
    stored, count = policy_of(there), there.count()
    if count <= _FEW or stored is None or not in_columns(stored.policy) or there.in_columns() is None:
        return ({"source": item, JUDGED: True} for ids in there.ids(_IDS_AT_ONCE) for item in ids)
    of = min(-(-count // _SHARE), _MOST_SHARES)
    return (
        {
            "source": f"{POLICY}{number + 1}/{of}",
            JUDGED: [number, of],
            "items": count * (number + 1) // of - count * number // of,
        }
        for number in range(of)
    )


def judge_items(runtime: Runtime, collection: Collection, part: list[dict[str, Any]], name: str = "") -> Outcome:
    """Judge the items of a part of a shard by the policy of this moment; those whose verdict stays are passed over.

    `name` is the shard's, `<job>/<number>`: should the job be cancelled, it ends.

    Raises:
        PolicyNotFound: there is none any more.
        Interrupted: the worker ends; what was judged stays judged.
    """
    judge = open_judge(collection, runtime.encoder_of(collection), runtime.settings)
    if judge is None:
        raise PolicyNotFound(f"The collection {collection.name!r} has no policy.", remedy="Put one in force first.")
    originals, trail = Originals.of(runtime.settings), Trail(runtime.settings.data, collection.name)
    shares = [Share(*item[JUDGED]) for item in part if isinstance(item.get(JUDGED), list)]
    ids = [item["source"] for item in part if not isinstance(item.get(JUDGED), list)]
    done = Judged()
    try:
        if ids:
            done.add(judge_stored(collection, judge, ids, settings=runtime.settings, originals=originals, trail=trail))
        for share in shares:
            for some in rescan(collection, judge, share, settings=runtime.settings, originals=originals, trail=trail):
                done.add(some)
                if _is_over(runtime, name):
                    return Outcome(done.changed, done.unchanged, 0, [])
    finally:
        originals.close()
    return Outcome(done.changed, done.unchanged, 0, [])


def _is_over(runtime: Runtime, name: str) -> bool:
    """Whether a job was cancelled.

    Raises:
        Interrupted: the worker ends.
    """
    from workers.planning import Interrupted  # noqa: PLC0415  which plans with this module

    if runtime.stopping.is_set():
        raise Interrupted
    return runtime.jobs.get(name.partition("/")[0]).state in OVER
