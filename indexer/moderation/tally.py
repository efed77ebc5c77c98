"""What a dry run counts: by action, by category, on what people decided, and which items are nearest to a line."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from indexer.items import Kind
from indexer.moderation.facts import ACTIONS, PERSONS, Names
from indexer.moderation.policy import Category
from indexer.moderation.rescan import ids_of
from indexer.moderation.review.state import fired, review_of
from indexer.moderation.verdicts import findings
from indexer.moderation.visible import SHOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.moderation.facts import Facts
    from indexer.moderation.judge import Judgement
    from indexer.moderation.subjects import Bools
    from indexer.store.collection import Collection
    from indexer.store.points import Stored

NO_VERDICT = "none"
"""Instead of an action: the item has no verdict yet, and is not shown."""
_ROUNDED = 0.01
"""By less than this, scores differ from the log-odds that they are rounded from."""


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
        self.nearest: list[Near] = []
        """The items nearest to the threshold, the nearest first."""
        self._line = math.log(category.threshold / (1 - category.threshold))
        self._most = nearest
        self._near: list[_Near] = []

    def add(self, block: Block, column: int) -> None:
        """Count items by their verdicts of now and those that would be; theirs of this category are in a column."""
        had, fired = block.had(self.category.name), block.judgement.fired[:, column]
        self.fired += int(fired.sum())
        self.joined += int((fired & ~had).sum())
        self.left += int((had & ~fired).sum())
        for row, of in block.reviewed.items():
            self.reviewed.add(caught=bool(fired[row]), meant=self.category.name in of)
        self._look(block, column)

    def _look(self, block: Block, column: int) -> None:
        likely = block.judgement.probabilities[:, column]
        rows = np.flatnonzero(~np.isnan(likely))
        if not self._most or not len(rows):
            return
        if len(rows) > self._most:  # the scores themselves take long
            bounded = np.clip(likely[rows].astype(np.float64), 1e-7, 1 - 1e-7)
            rough = np.abs(np.log(bounded / (1 - bounded)) - self._line)
            rows = rows[rough <= np.partition(rough, self._most - 1)[self._most - 1] + _ROUNDED]
        distances = np.abs(findings(likely[rows])[0] - self._line)
        order = np.lexsort((block.order[rows], distances))[: self._most]
        for each in order:
            row = rows[each]
            self._near.append(
                _Near(
                    float(distances[each]), int(block.order[row]), ids_of(block.facts[row : row + 1])[0],
                    float(likely[row]), bool(block.judgement.fired[row, column]),
                    _name_of(block.before[row]), _name_of(block.after[row]),
                )
            )  # fmt: skip
        self._near = heapq.nsmallest(self._most, self._near)

    def show(self, collection: Collection) -> None:
        """Look up what the nearest items are called."""
        items = collection.get_many([near.id for near in self._near])
        for near in self._near:
            if (item := items.get(near.id)) is not None:
                probability = float(findings(np.array([near.probability], np.float32))[1][0])
                self.nearest.append(
                    Near(
                        item.record.name or item.id, item.record.kind, probability, near.fired, near.before, near.after
                    )
                )


class _Near(NamedTuple):
    distance: float
    order: int
    id: str
    probability: float
    fired: bool
    before: str
    after: str


@dataclass(frozen=True)
class Block:
    """Some items, by what is stored of them and what was found."""

    facts: Facts
    judgement: Judgement
    order: NDArray[np.intp]
    """Their places in the order in which items are judged."""
    names: Names
    items: Mapping[int, Stored]
    """By row, the items themselves where people said something, or where not all of a verdict is in its row."""

    @property
    def before(self) -> NDArray[np.int8]:
        """Actions of now; -1 where there is none."""
        before: NDArray[np.int8] = self.facts["action"]
        return before

    @cached_property
    def persons(self) -> Bools:
        """What people decided."""
        persons: Bools = self.facts["bits"] & PERSONS != 0
        return persons

    @cached_property
    def after(self) -> NDArray[np.int8]:
        """Actions that would be: what people decided stays."""
        return np.where(self.persons, self.before, self.judgement.actions).astype(np.int8)

    @cached_property
    def reviewed(self) -> dict[int, tuple[str, ...]]:
        """By row, of which categories people said that an item is."""
        said = {row: review_of(item.record.verdict).categories for row, item in self.items.items()}
        return {row: of for row, of in said.items() if of is not None}

    def had(self, name: str) -> Bools:
        """Which are of a category by their present verdict."""
        had = self.names.among(self.facts["fired"], name)
        for row, item in self.items.items():
            had[row] = name in fired(item.record.verdict or {})
        return had


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

    def add(self, block: Block) -> None:
        """Count items."""
        self.judged += len(block.facts)
        self.held_back += int(block.judgement.undecided.any(axis=1).sum())
        self.changed += int((block.before != block.after).sum())
        pairs, counts = np.unique(np.stack([block.before, block.after]), axis=1, return_counts=True)
        for (before, after), count in zip(pairs.T, counts, strict=True):
            self.actions[_name_of(before), _name_of(after)] += int(count)
        for row in np.flatnonzero(block.persons):
            caught, meant = _name_of(block.judgement.actions[row]), _name_of(block.before[row])
            self.reviewed.add(caught=caught not in SHOWN, meant=meant not in SHOWN)
        for column, category in enumerate(self.categories.values()):
            category.add(block, column)


def _name_of(action: Any) -> str:
    return NO_VERDICT if action < 0 else ACTIONS[action]
