"""What a policy would do to what is stored, found without writing: by the very code that a rescan judges with."""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import InvalidRequest
from indexer.flow import batched
from indexer.items import Kind
from indexer.moderation.judging import ItemJudge, score_key
from indexer.moderation.policy import Category
from indexer.moderation.review.state import is_persons, policys_own, review_of
from indexer.moderation.visible import SHOWN

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.points import Stored

MOST_ITEMS = 200_000
MOST_NEAREST = 50
NO_VERDICT = "none"
"""Instead of an action: the item has no verdict yet, and is not shown."""
_BLOCK = 512


@dataclass
class Reviewed:
    """How a rule fares on items that people decided on: those that it catches, and those that it should."""

    both: int = 0
    caught: int = 0
    meant: int = 0
    items: int = 0

    def add(self, *, caught: bool, meant: bool) -> None:
        """Count an item."""
        self.items += 1
        self.caught += caught
        self.meant += meant
        self.both += caught and meant

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON; a rate of nothing is null."""
        return {
            "items": self.items,
            "caught": self.caught,
            "meant": self.meant,
            "precision": round(self.both / self.caught, 4) if self.caught else None,
            "recall": round(self.both / self.meant, 4) if self.meant else None,
        }


@dataclass(frozen=True)
class Near:
    """An item near the line."""

    id: str
    kind: Kind
    probability: float
    fired: bool
    before: str
    after: str
    """Actions: of now, and what would be."""


class CategoryRun:
    """What was found for one category."""

    def __init__(self, category: Category, nearest: int) -> None:
        self.category = category
        self.fired = self.joined = self.left = 0
        """Items of it; those that are not of it by their present verdict; those that no longer would be."""
        self.reviewed = Reviewed()
        self._line = math.log(category.threshold / (1 - category.threshold))
        self._nearest = nearest
        self._heap: list[tuple[float, int, Near]] = []
        """The farthest first, by the negative distance in log-odds."""
        self._order = count()

    def add(self, item: Stored, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
        """Count an item by its verdict of now and the one that would be."""
        name = self.category.name
        finding = after["categories"].get(name)
        fired = finding is not None and finding["fired"]
        was = ((before or {}).get("categories") or {}).get(name)
        had = was is not None and was["fired"]
        self.fired += fired
        self.joined += fired and not had
        self.left += had and not fired
        if before is not None and (of := review_of(before).categories) is not None:
            self.reviewed.add(caught=fired, meant=name in of)
        if finding is not None and self._nearest:
            distance = abs(finding["score"] - self._line)
            if len(self._heap) < self._nearest or distance < -self._heap[0][0]:
                near = Near(
                    item.record.name or item.id, item.record.kind, finding["probability"], fired,
                    action_of(before), after["action"],
                )  # fmt: skip
                heapq.heappush(self._heap, (-distance, next(self._order), near))
                if len(self._heap) > self._nearest:
                    heapq.heappop(self._heap)

    @property
    def nearest(self) -> list[Near]:
        """The items nearest to the threshold, the nearest first."""
        return [near for _, _, near in sorted(self._heap, key=lambda each: (-each[0], each[1]))]


@dataclass
class DryRun:
    """What a policy would do."""

    categories: dict[str, CategoryRun]
    judged: int = 0
    changed: int = 0
    """Items whose action would be another."""
    unscored: int = 0
    """Pictures that an image classifier of the policy has not seen: a rescan lets it, and they are not among the
    others here."""
    held_back: int = 0
    """Items that cannot be judged in full."""
    complete: bool = True
    """Whether everything was judged; else the first by their ids, which are as good as drawn by chance."""
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Items by their action of now and the one that they would have."""
    reviewed: Reviewed = field(default_factory=Reviewed)
    """Of withholding: what people withheld, and what the policy by itself would."""


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
    items = collection.scan(batch=_BLOCK, with_vectors=True)
    for block in batched(islice(items, limit), _BLOCK):
        _judge(run, judge, [item for item in block if item.vector is not None])
        if time.monotonic() > until:
            break
    run.complete = next(items, None) is None
    return run


def action_of(verdict: dict[str, Any] | None) -> str:
    """The action of a verdict, or `NO_VERDICT`."""
    return NO_VERDICT if verdict is None else str(verdict["action"])


def _judge(run: DryRun, judge: ItemJudge, block: Sequence[Stored]) -> None:
    scored = [item for item in block if not _unscored(judge, item)]
    run.unscored += len(block) - len(scored)
    if not scored:
        return
    for item, after in zip(scored, _verdicts(judge, scored), strict=True):
        before = item.record.verdict
        run.judged += 1
        run.held_back += after.get("reason") is not None
        run.changed += action_of(before) != after["action"]
        run.actions[action_of(before), after["action"]] += 1
        if before is not None and is_persons(before):
            own = policys_own(after, judge.stored.policy, after["at"])
            run.reviewed.add(caught=own["action"] not in SHOWN, meant=before["action"] not in SHOWN)
        for category in run.categories.values():
            category.add(item, before, after)


def _verdicts(judge: ItemJudge, items: Sequence[Stored]) -> Iterator[dict[str, Any]]:
    vectors = np.stack([item.vector for item in items if item.vector is not None])
    yield from judge.verdicts([item.record for item in items], [item.payload for item in items], vectors)


def _unscored(judge: ItemJudge, item: Stored) -> bool:
    if item.record.kind.modality != "image":
        return False
    return any(score_key(each) not in (item.record.scores or {}) for each in judge.classifiers)
