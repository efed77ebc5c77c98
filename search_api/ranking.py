"""A request's lanes into one ranked list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from search_api.composing import Embedded
from search_api.distinct import Distinct, value_of
from search_api.lane import Lane, Ranked
from search_api.request import SearchRequest

if TYPE_CHECKING:
    from indexer.store.collection import Collection


@dataclass(slots=True)
class Ranking:
    """A request on its way to a ranked list."""

    request: SearchRequest
    embedded: Embedded
    lanes: list[Lane]
    distinct: Distinct
    wanted: int
    ranked: list[Ranked] | Any = ()
    reranked: int | None = None
    """How many of them were compared with the query's texts; None where that was not asked for."""
    warnings: list[str] = field(default_factory=list)
    """What has to be said of that."""

    def frozen(self) -> dict[str, Any]:
        """What was asked, as it can be asked again: images and items by their vectors."""
        dumped = self.request.model_dump(
            mode="json", exclude={"query", "like", "dislike", "cursor"}, exclude_unset=True
        )
        frozen = {"request": {**dumped, "query": self.embedded.frozen()}, "exclude": self.embedded.exclude}
        return frozen if self.reranked is None else {**frozen, "reranked": self.reranked}

    def members(self, page: Sequence[Ranked]) -> dict[str, list[Any]]:
        """The members of the page's groups by their leaders' ids."""
        found: dict[str, list[Any]] = {}
        for lane in self.lanes:
            found |= lane.members([each for each in page if each.hit.record.kind.modality == lane.toward])
        return found


def rank(collection: Collection, rankings: Sequence[Ranking]) -> None:
    """Rank all, each lane's first search in one round trip with the others'."""
    lanes = [(ranking, lane) for ranking in rankings for lane in ranking.lanes]
    firsts = collection.search_many([lane.first(ranking.wanted, ranking.distinct) for ranking, lane in lanes])
    taken: dict[int, list[list[Ranked]]] = {}
    for (ranking, lane), hits in zip(lanes, firsts, strict=True):
        taken.setdefault(id(ranking), []).append(lane.take(ranking.wanted, ranking.distinct, hits))
    for ranking in rankings:
        # The best pictures and the best texts by turns; one kind alone when the other has nothing.
        turns = chain.from_iterable(zip_longest(*taken[id(ranking)]))
        ranking.ranked = [each for each in turns if each is not None]
        if (order := ranking.request.order_by) is not None:
            ranking.ranked = _ordered(ranking.ranked, order)


def _ordered(ranked: list[Ranked], order_by: str) -> list[Ranked]:
    """By a field of the payload; those without a value come last."""
    field = order_by.removeprefix("-")
    values = [(value_of(each.hit, field), each) for each in ranked]
    having = [(value, each) for value, each in values if value is not None]
    having.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=order_by.startswith("-"))
    return [each for _, each in having] + [each for value, each in values if value is None]
