"""Ranks of what should be found, and what they come to: recall, reciprocal ranks, and how sure of them one can be.

Measured as searches are served, through the index, to a depth of 100: what is not among them counts as not found.
"Right" is what the pairs name alone; another item that fits as well counts as a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.evaluation.estimate import Estimate
from indexer.evaluation.pairs import Pair, Target
from indexer.items import Modality
from indexer.models.recall import KS
from indexer.store.questions import Query

if TYPE_CHECKING:
    from indexer.store import Filter
    from indexer.store.collection import Collection, Hit

DEPTH = 100
"""Results that are looked at."""
_SAMPLES = 2_000
"""Of the bootstrap."""
_AT_ONCE = 50
_INSTEAD = 3
_SLACK = 20
"""Results more that are asked for, since frames of one video and pages of one document count once."""

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Reorder = Callable[[Pair, Modality, "list[Hit]"], "Sequence[Hit]"]
"""What a pair's query found among items of a modality, one a file, in another order."""


@dataclass(frozen=True)
class Ranked:
    """What became of one query in one direction."""

    pair: int
    """The pair's number, from 0."""
    rank: int | None
    """Of the best right answer, from 1; None: not among the first `DEPTH`."""
    instead: list[Hit]
    """The best answers that were not right."""


@dataclass(frozen=True)
class Measured:
    """How well one direction was answered."""

    direction: str
    """`text_to_image`, ..."""
    queries: list[Ranked]
    metrics: dict[str, Estimate] = field(default_factory=dict)
    """`recall@1`, `recall@5`, `recall@10`, `mrr`."""

    def worst(self, count: int) -> list[Ranked]:
        """The queries whose right answer came last, the worst first."""
        return sorted(self.queries, key=lambda each: -(each.rank or DEPTH + 1))[:count]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, without the queries."""
        return {
            "pairs": len(self.queries),
            "not_found": sum(each.rank is None for each in self.queries),
            **{name: each.as_dict() for name, each in self.metrics.items()},
        }


def measure(
    pairs: Sequence[Pair],
    vectors: Vectors,
    targets: Sequence[Sequence[Target]],
    collection: Collection,
    *,
    among: Mapping[Modality, Filter],
    own: Sequence[str | None],
    reorder: Reorder | None = None,
) -> list[Measured]:
    """Every direction's figures, from the queries' vectors, float32 (n, D).

    `among` are the filters that let pictures through, and texts. `own` is each query picture's SHA-256: the picture
    itself is no answer, unless it is named as one. `reorder` puts what a query found in another order first.
    """
    directions: dict[tuple[Modality, Modality], list[int]] = {}
    for number, (pair, wanted) in enumerate(zip(pairs, targets, strict=True)):
        for toward in sorted({target.modality for target in wanted}):
            directions.setdefault((pair.modality, toward), []).append(number)
    measured = []
    for (modality, toward), numbers in sorted(directions.items()):
        ranked: list[Ranked] = []
        for at in range(0, len(numbers), _AT_ONCE):
            some = numbers[at : at + _AT_ONCE]
            queries = [Query(vectors[number], DEPTH + _SLACK, among[toward]) for number in some]
            for number, hits in zip(some, collection.search_many(queries), strict=True):
                answers = reorder(pairs[number], toward, one_a_file(hits)) if reorder is not None else hits
                wanted = [target for target in targets[number] if target.modality == toward]
                ranked.append(_ranked(number, answers, wanted, own[number]))
        measured.append(Measured(f"{modality}_to_{toward}", ranked, metrics_of([each.rank for each in ranked])))
    return measured


def _ranked(number: int, hits: Sequence[Hit], wanted: Sequence[Target], own: str | None) -> Ranked:
    files = {target.file for target in wanted}
    instead: list[Hit] = []
    others = [hit for hit in hits if file_of(hit) in files or own is None or hit.record.sha256 != own]
    for rank, hit in enumerate(one_a_file(others)[:DEPTH], start=1):
        if file_of(hit) in files:
            return Ranked(number, rank, instead)
        if len(instead) < _INSTEAD:
            instead.append(hit)
    return Ranked(number, None, instead)


def file_of(hit: Hit) -> str:
    """What stands for an item's file: of frames and pages the first one's id, else its own."""
    return hit.record.parent or hit.id


def one_a_file(hits: Sequence[Hit]) -> list[Hit]:
    """The best of each file, in their order."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(file_of(hit), hit)
    return list(best.values())


def metrics_of(ranks: Sequence[int | None], seed: int = 0) -> dict[str, Estimate]:
    """Recall and mean reciprocal rank with their bounds; a rank of None counts as never found.

    Percentile bootstrap over queries (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979).
    """
    return _estimates(_columns(ranks), seed)


def gain_of(before: Sequence[int | None], after: Sequence[int | None], seed: int = 0) -> dict[str, Estimate]:
    """By how much the same figures rise from one list of ranks to another of the same queries, with their bounds.

    The bootstrap is paired: each sample takes a query's ranks of both lists or of none.
    """
    old, new = _columns(before), _columns(after)
    return _estimates({name: new[name] - old[name] for name in old}, seed)


def _columns(ranks: Sequence[int | None]) -> dict[str, Floats]:
    """What each query adds to each figure."""
    values = np.array([np.inf if rank is None else rank for rank in ranks], dtype=np.float64)
    return {**{f"recall@{k}": (values <= k).astype(np.float64) for k in KS}, "mrr": 1 / values}


def _estimates(columns: Mapping[str, Floats], seed: int) -> dict[str, Estimate]:
    table = np.stack(list(columns.values()), axis=1)
    random = np.random.default_rng(seed)
    means = np.empty((_SAMPLES, table.shape[1]))
    for sample in range(_SAMPLES):  # one at a time: all at once would be as many rows as queries, 2,000 times
        means[sample] = table[random.integers(0, len(table), len(table))].mean(axis=0)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    whole = table.mean(axis=0)
    return {name: Estimate(float(whole[i]), float(low[i]), float(high[i])) for i, name in enumerate(columns)}
