"""The results of one query among the items of one modality, in their order, taken as far as is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.items import Modality
from indexer.store.questions import Query
from search_api.composing import Composed
from search_api.distinct import Distinct, value_of
from search_api.diversity import CANDIDATES, diverse_order
from search_api.relevance import Origin, Relevance
from search_api.request import MAX_DEPTH, SearchRequest

if TYPE_CHECKING:
    from qdrant_client.models import Filter

    from indexer.store.collection import Collection
    from indexer.store.points import Hit

Floats = NDArray[np.float32]

_ROUNDS = 8
"""Searches until what was left out is made up for; each asks for more."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An item in its place."""

    hit: Hit
    relevance: float | None
    explanation: list[dict[str, Any]] | None
    rerank: dict[str, Any] | None = None
    """What reranking made of it, where that is to be explained."""


class Lane:
    """One query toward one modality."""

    def __init__(
        self,
        request: SearchRequest,
        query: Composed,
        *,
        collection: Collection,
        toward: Modality,
        among: Filter | None,
        exclude: Sequence[str],
        relevance: Relevance,
    ) -> None:
        self._request = request
        self.query = query
        self._collection = collection
        self.toward = toward
        self._among = among
        self._exclude = list(exclude)
        self._relevance = relevance
        several = len(query.terms) > 1
        self._with_vectors = several or request.diversity > 0 or request.explain or "alike" in request.collapse

    def first(self, wanted: int, distinct: Distinct) -> Query:
        """The search that `take` begins with, so that those of several lanes can go together."""
        return self._asking(self._wanted(wanted), distinct)

    def take(self, wanted: int, distinct: Distinct, hits: list[Hit]) -> list[Ranked]:
        """The best results that were not taken before, `wanted` of them or all there are; it may be more.

        `hits` is what `first` found. Those that are the same as one that `distinct` knows are left out.
        """
        wanted = self._wanted(wanted)
        taken: list[Ranked] = []
        asked = wanted
        for turn in range(1, _ROUNDS):
            self._exclude += [hit.id for hit in hits]
            taken += self._worthy(hits, distinct)
            if len(taken) >= wanted or len(hits) < asked or self._all_behind_are_worse(hits):
                break
            asked = min((wanted - len(taken)) * 2**turn, MAX_DEPTH)
            hits = self._collection.search_many([self._asking(asked, distinct)])[0]
        return self._diverse(taken)

    def origins(self) -> dict[str, Origin]:
        """What the relevance of its results rests on, by direction, such as `text_to_image`."""
        return {
            f"{term.modality or 'vector'}_to_{self.toward}": self._relevance.origin(term, self.toward)
            for term in self.query.terms
            if term.weight > 0
        }

    def _wanted(self, count: int) -> int:
        return max(count, CANDIDATES) if self._request.diversity > 0 else count

    def _asking(self, count: int, distinct: Distinct) -> Query:
        return Query(
            self.query.vector,
            count,
            self._beside(distinct),
            exclude_ids=list(self._exclude),
            exact=self._request.exact,
            with_vectors=self._with_vectors,
        )

    def _beside(self, distinct: Distinct) -> Filter | None:
        """The filter, without the groups that are taken."""
        if not distinct.groups or self._request.group_by is None:
            return self._among
        from qdrant_client.models import FieldCondition, Filter, MatchAny  # noqa: PLC0415

        taken = FieldCondition(key=self._request.group_by, match=MatchAny(any=list(distinct.groups)))
        return Filter(must=self._among, must_not=[taken])

    def _worthy(self, hits: list[Hit], distinct: Distinct) -> list[Ranked]:
        if not hits:
            return []
        vectors = np.stack([hit.vector for hit in hits if hit.vector is not None]) if self._with_vectors else None
        scores = np.asarray([hit.score for hit in hits], dtype=np.float32)
        probable = self._relevance.of(self.query, vectors, scores, self.toward)
        explained = self._explained(vectors) if self._request.explain and vectors is not None else None
        least = self._request.min_relevance
        return [
            Ranked(
                hit,
                None if probable is None else float(probable[place]),
                None if explained is None else explained[place],
            )
            for place, hit in enumerate(hits)
            if (least is None or (probable is not None and probable[place] >= least)) and distinct.takes(hit)
        ]

    def _all_behind_are_worse(self, hits: list[Hit]) -> bool:
        """Whether what comes behind a single term's last hit is even less relevant than what may be given."""
        least = self._request.min_relevance
        if least is None or not hits or len(self.query.terms) > 1:
            return False
        last = self._relevance.of(self.query, None, np.asarray([hits[-1].score], np.float32), self.toward)
        return last is None or float(last[0]) < least

    def _explained(self, vectors: Floats) -> list[list[dict[str, Any]]]:
        parts = np.stack([term.score(vectors) for term in self.query.terms])
        shares = parts / np.maximum(np.abs(parts).sum(axis=0), 1e-9)
        cosines = np.stack([vectors @ term.raw for term in self.query.terms])
        return [
            [
                {
                    "term": term.label,
                    "cosine": round(float(cosines[number, place]), 4),
                    "share": round(float(shares[number, place]), 4),
                }
                for number, term in enumerate(self.query.terms)
            ]
            for place in range(len(vectors))
        ]

    def _diverse(self, taken: list[Ranked]) -> list[Ranked]:
        if self._request.diversity == 0 or len(taken) < 3:
            return taken
        vectors = np.stack([each.hit.vector for each in taken if each.hit.vector is not None])
        scores = np.asarray([each.hit.score for each in taken], dtype=np.float32)
        return [taken[place] for place in diverse_order(scores, vectors, self._request.diversity)]

    def members(self, leaders: Sequence[Ranked]) -> dict[str, list[Hit]]:
        """The best of each leader's group besides itself, by the leader's id; all groups in one round trip."""
        field, size = self._request.group_by, self._request.group_size
        grouped = [(each, value_of(each.hit, field)) for each in leaders] if field is not None and size > 1 else []
        grouped = [(each, value) for each, value in grouped if value is not None]
        if not grouped:
            return {}
        from qdrant_client.models import FieldCondition, Filter, MatchValue  # noqa: PLC0415

        queries = [
            Query(
                self.query.vector,
                size - 1,
                Filter(must=[FieldCondition(key=str(field), match=MatchValue(value=value)), *_listed(self._among)]),
                exclude_ids=[each.hit.id],
                exact=self._request.exact,
            )
            for each, value in grouped
        ]
        answers = self._collection.search_many(queries)
        return {each.hit.id: hits for (each, _), hits in zip(grouped, answers, strict=True)}


def _listed(among: Filter | None) -> list[Filter]:
    return [among] if among is not None else []
