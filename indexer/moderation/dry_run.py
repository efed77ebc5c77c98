"""What a policy would do to what is stored, found without writing: by the very code that a rescan judges with."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import InvalidRequest
from indexer.flow import batched
from indexer.items import RECORD_KEY, Record
from indexer.moderation.facts import FIELDS, ODD, SAID, THERE, Names, facts_of
from indexer.moderation.judge import Judge
from indexer.moderation.judging import ItemJudge, score_key
from indexer.moderation.rescan import READ, ids_of, in_columns, judge_rows
from indexer.moderation.tally import Block, CategoryRun, DryRun, Near
from indexer.store.columns import Columns, open_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.store.collection import Collection
    from indexer.store.points import Stored

__all__ = ["MOST_ITEMS", "MOST_NEAREST", "CategoryRun", "DryRun", "Near", "dry_run"]

MOST_ITEMS = 200_000
MOST_NEAREST = 50
_BLOCK = 8192
_SCANNED = 512
"""Items at once of those that are read record by record."""
_PATIENCE_SECONDS = 2.0
"""For columns that are just being made: a sample is read without them meanwhile."""


def dry_run(
    collection: Collection, judge: ItemJudge, *, limit: int, nearest: int = 12, seconds: float = math.inf
) -> DryRun:
    """Judge what is stored and write nothing; a block of items is in memory at a time.

    Raises:
        InvalidRequest: a limit out of range, or a policy that was not opened.
    """
    if judge.judge is None or not 1 <= limit <= MOST_ITEMS or not 0 <= nearest <= MOST_NEAREST:
        raise InvalidRequest(f"A dry run has an opened policy, and judges 1 to {MOST_ITEMS:,} items.")
    until = time.monotonic() + seconds
    policy = judge.stored.policy
    run = DryRun({category.name: CategoryRun(category, nearest) for category in policy.categories})
    columns = open_columns(collection, _PATIENCE_SECONDS) if in_columns(policy) else None
    if columns is not None:
        blocks = _read(collection, judge, columns, limit)
    else:
        blocks = _scanned(run, collection, judge, judge.judge, limit)
    with columns or nullcontext():
        for block in blocks:
            run.add(block)
            if time.monotonic() > until:
                break
    run.complete = run.judged + run.unscored >= collection.count()
    for category in run.categories.values():
        category.show(collection)
    return run


def _read(collection: Collection, judge: ItemJudge, columns: Columns, limit: int) -> Iterator[Block]:
    """Blocks of a collection in columns, in the order of their items' ids."""
    places = _first(columns, limit)
    for at in range(0, len(places), _BLOCK):
        order = at + np.argsort(places[at : at + _BLOCK])
        some = places[order]
        facts = columns.facts_at(some)
        to_see = np.flatnonzero(facts["bits"] & (SAID | ODD))
        items = collection.get_many(ids_of(facts[to_see]))
        seen = {int(row): items.get(each) for row, each in zip(to_see, ids_of(facts[to_see]), strict=True)}
        yield Block(
            facts,
            judge_rows(judge, facts, columns.vectors(some)),
            order,
            columns.names,
            {row: item for row, item in seen.items() if item is not None},
        )


def _first(columns: Columns, limit: int) -> NDArray[np.intp]:
    """The places of the first items by their ids."""
    places, halves = np.empty(0, dtype=np.intp), np.empty((0, 2), dtype=np.uint64)
    for begin in range(0, columns.rows, READ):
        facts = columns.facts(begin, begin + READ)
        used = np.flatnonzero(facts["bits"] & THERE)
        places = np.concatenate([places, begin + used])
        further = np.ascontiguousarray(facts["id"][used]).view(">u8").reshape(-1, 2)
        halves = np.concatenate([halves, further.astype(np.uint64)])
        first = np.lexsort((halves[:, 1], halves[:, 0]))[:limit]
        places, halves = places[first], halves[first]
    return places


def _scanned(run: DryRun, collection: Collection, judge: ItemJudge, opened: Judge, limit: int) -> Iterator[Block]:
    """Blocks of a collection that is read record by record."""
    names, order = Names(), 0
    items = collection.scan(batch=min(_BLOCK, _SCANNED), with_vectors=True)
    for block in batched(islice(items, limit), _BLOCK):
        there = [item for item in block if item.vector is not None]
        scored = [item for item in there if not _unscored(judge, item)]
        run.unscored += len(there) - len(scored)
        if scored:
            records, payloads = [item.record for item in scored], [item.payload for item in scored]
            vectors = np.stack([item.vector for item in scored if item.vector is not None])
            facts = facts_of(
                [uuid.UUID(item.id).bytes for item in scored], [_kept(record) for record in records], names
            )
            yield Block(
                facts,
                judge.judgement(opened, records, payloads, vectors),
                np.arange(order, order + len(scored)),
                names,
                {int(row): scored[row] for row in np.flatnonzero(facts["bits"] & (SAID | ODD))},
            )
            order += len(scored)


def _kept(record: Record) -> dict[str, Any]:
    """What is read of a record, as a payload has it."""
    return {RECORD_KEY: {name.split(".")[1]: getattr(record, name.split(".")[1]) for name in FIELDS}}


def _unscored(judge: ItemJudge, item: Stored) -> bool:
    if item.record.kind.modality != "image":
        return False
    return any(score_key(each) not in (item.record.scores or {}) for each in judge.classifiers)
