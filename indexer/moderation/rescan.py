"""A rescan at the speed of the judge: of all that is stored, what would change is found in columns, and judged as ever.

Reading and writing records one by one takes two hundred times as long as judging their vectors. So the columns that the
embedded index keeps (`indexer.edge.columns`) are a sieve: an item of which they show the verdict that the judge gives
now is left alone, and every other one goes through `judge_stored`. Where there are no columns, or the policy reads more
than is in them (texts, image classifiers), everything does.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.flow import batched
from indexer.moderation.facts import (
    ACTIONS,
    HAS_PDQ,
    IMAGE,
    PART,
    PERSONS,
    SAID,
    THERE,
    WITHHELD,
    hashed,
    key_of,
    share_of,
)
from indexer.moderation.judging import BATCH, ItemJudge, Judged, judge_stored
from indexer.moderation.subjects import Subjects
from indexer.moderation.visible import SHOWN
from indexer.store.columns import Columns, open_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.media.originals import Originals
    from indexer.moderation.facts import Facts, Keys
    from indexer.moderation.judge import Judgement
    from indexer.moderation.policy import Policy
    from indexer.moderation.subjects import Bools, Floats
    from indexer.moderation.trail import Trail
    from indexer.settings import Settings
    from indexer.store.collection import Collection

    Rows = NDArray[np.intp]

READ = 2**18
"""Rows whose facts are looked at at once: 36 MB, of which hardly all is read."""
_VECTOR_BYTES = 48 * 2**20
"""Of the vectors that are judged at once."""
_SHOWN = [ACTIONS.index(action) for action in SHOWN]


@dataclass(frozen=True)
class Share:
    """Some of the items, by the ids of their files: the parts of one stand together, so they are in the same share."""

    number: int = 0
    of: int = 1

    def among(self, shares: NDArray[np.uint16]) -> Bools:
        """Which rows are in it, by `share`."""
        found: Bools = shares % np.uint16(self.of) == self.number
        return found


WHOLE = Share()


def in_columns(policy: Policy) -> bool:
    """Whether columns hold everything that a policy goes by: vectors and hashes."""
    return not policy.fields and not policy.models


def rescan(
    collection: Collection,
    judge: ItemJudge,
    share: Share = WHOLE,
    *,
    settings: Settings,
    originals: Originals,
    trail: Trail,
) -> Iterator[Judged]:
    """Judge what is stored again and write what changed alone; gives what came of some items whenever they are done.

    It may be ended after any of them, and begun anew: what is done is passed over then. Items that are written
    meanwhile are judged when they are written.
    """

    def judged(ids: list[str]) -> Judged:
        return judge_stored(collection, judge, ids, settings=settings, originals=originals, trail=trail)

    columns = open_columns(collection) if judge.judge is not None and in_columns(judge.stored.policy) else None
    if columns is None:
        yield from map(judged, _ids(collection, share))
        return
    with columns:
        parts = False
        for begin in range(0, columns.rows, READ):
            facts = columns.facts(begin, begin + READ)
            rows = np.flatnonzero((facts["bits"] & THERE != 0) & share.among(facts["share"]))
            parts |= bool((facts["bits"][rows] & PART).any())
            for some in batched_rows(rows, columns):
                judgement = judge_rows(judge, facts[some], columns.vectors(begin + some))
                changed = some[differs(facts[some], judgement)]
                yield Judged(unchanged=len(some) - len(changed))
                yield from map(judged, batched(ids_of(facts[changed]), BATCH))
        if parts:
            judge.settle(collection, _apart(columns, share))


def batched_rows(rows: Rows, columns: Columns) -> Iterator[Rows]:
    """Rows in as many as are judged at once."""
    step = max(BATCH, _VECTOR_BYTES // (columns.size * 4))
    for at in range(0, len(rows), step):
        yield rows[at : at + step]


def judge_rows(judge: ItemJudge, facts: Facts, vectors: Floats) -> Judgement:
    """What the judge finds of items in columns."""
    if judge.judge is None:
        raise ValueError("the policy was not opened")
    return judge.judge.judge(
        Subjects(
            images=facts["bits"] & IMAGE != 0,
            vectors=vectors,
            sha256=facts["sha256"],
            pdq=facts["pdq"],
            has_pdq=facts["bits"] & HAS_PDQ != 0,
        )
    )


def differs(facts: Facts, judgement: Judgement) -> Bools:
    """Of which items a judgement is another than their verdict, as `judging.matters` has it, or may be."""
    bits = facts["bits"]
    persons = bits & PERSONS != 0
    differs: Bools = facts["action"] < 0  # no verdict, or none that could be read
    differs |= ~persons & (facts["action"] != judgement.actions)
    differs |= facts["reason"] != _reasons(judgement)
    differs |= facts["found"] != _found(judgement)
    version = np.uint64(int(judgement.policy.version, 16))
    differs |= (bits & (PERSONS | SAID) != 0) & (facts["version"] != version)
    return differs


def ids_of(facts: Facts) -> list[str]:
    """The ids of rows."""
    return _texts(facts["id"])


def _found(judgement: Judgement) -> Keys:
    keys = np.array([key_of(category.name) for category in judgement.policy.categories], dtype=np.uint64)
    found: Keys = hashed(keys, judgement.probabilities, judgement.fired).sum(axis=1, dtype=np.uint64)
    return found


def _reasons(judgement: Judgement) -> Keys:
    """The hash of each row's reason; there are as many reasons as ways in which something can be missing."""
    reasons = np.zeros(len(judgement), dtype=np.uint64)
    rows = np.flatnonzero(judgement.undecided.any(axis=1))
    ways = np.packbits(np.concatenate([judgement.undecided[rows], judgement.missing[rows]], axis=1), axis=1)
    _, first, way = np.unique(ways, axis=0, return_index=True, return_inverse=True)
    keys = [key_of(judgement.reason(int(row)) or "") for row in rows[first]]
    reasons[rows] = np.array(keys, dtype=np.uint64)[way.ravel()]
    return reasons


def _apart(columns: Columns, share: Share) -> list[str]:
    """The files of which a part is shown while another is not, or that are withheld for no reason any more."""
    homes, hidden, bits = [], [], []
    for begin in range(0, columns.rows, READ):
        facts = columns.facts(begin, begin + READ)
        facts = facts[(facts["bits"] & THERE != 0) & share.among(facts["share"])]
        homes.append(facts["home"])
        hidden.append(~np.isin(facts["action"], _SHOWN))
        bits.append(facts["bits"])
    home, of_file, of_bits = np.concatenate(homes), np.concatenate(hidden), np.concatenate(bits)
    files, file = np.unique(home, return_inverse=True)
    several = np.bincount(file, of_bits & PART != 0, len(files)) > 0
    withheld = np.bincount(file, of_file, len(files)) > 0
    apart = several[file] & (withheld[file] != (of_bits & WITHHELD != 0))
    return _texts(np.unique(home[apart]))


def _texts(ids: NDArray[np.bytes_]) -> list[str]:
    whole = np.ascontiguousarray(ids).tobytes().hex()
    return [
        f"{each[:8]}-{each[8:12]}-{each[12:16]}-{each[16:20]}-{each[20:]}"
        for each in (whole[at : at + 32] for at in range(0, len(whole), 32))
    ]


def _ids(collection: Collection, share: Share) -> Iterator[list[str]]:
    """The ids of a share's items as lists."""
    if share == WHOLE:
        yield from collection.ids(BATCH)
        return
    for items in batched(collection.scan(batch=BATCH), BATCH):
        homes = [uuid.UUID(item.record.parent or item.id).bytes for item in items]
        among = share.among(np.array([share_of(home) for home in homes], dtype=np.uint16))
        yield [item.id for item, is_in in zip(items, among, strict=True) if is_in]
