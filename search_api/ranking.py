"""What is near requests' queries: the queries are embedded, lanes laid toward what is asked for, and all ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.items import Kind, Modality
from search_api.background import Background
from search_api.composing import Embedded, Fetch, compose, embed, names_of
from search_api.distinct import Distinct, value_of
from search_api.filters import no_texts, of_kind, parse_filter
from search_api.lane import Lane, Ranked
from search_api.relevance import Origin, Relevance, fitted_of
from search_api.request import MAX_DEPTH, SearchRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qdrant_client.models import Filter

    from indexer.store.collection import Collection
    from indexer.store.points import Stored
    from search_api.encoding import QueryEncoder

_CHUNK = 200
"""Results that are ranked at once when a reader turns pages."""


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

    def origins(self, page: Sequence[Ranked]) -> dict[str, Origin]:
        """What the page's relevance rests on, by direction."""
        there = {each.hit.record.kind.modality for each in page}
        return {
            direction: origin
            for lane in self.lanes
            if lane.toward in there
            for direction, origin in lane.origins().items()
        }


class Ranker:
    """Ranks the items of one collection with the encoder that filled it."""

    def __init__(
        self,
        encoder: QueryEncoder,
        collection: Collection,
        *,
        max_pixels: int,
        fetch: Fetch | None,
        background: Background,
    ) -> None:
        """`fetch` gives the bytes behind images' URLs; without it URLs are refused."""
        self._encoder = encoder
        self._collection = collection
        self._max_pixels = max_pixels
        self._fetch = fetch
        self._background = background
        self._relevance = Relevance(encoder.manifest, fitted_of(collection), background, collection.count)

    def embed(self, requests: Sequence[SearchRequest]) -> list[Embedded]:
        """The requests' terms with their vectors; all texts in one run. Raises as `composing.embed`."""
        terms = [term for request in requests for term in request.terms]
        whole = embed(
            terms, encoder=self._encoder, collection=self._collection, read_image=self._of_image, fetch=self._fetch,
            names=names_of(requests),
        )  # fmt: skip
        return whole.split([len(request.terms) for request in requests])

    def prepare(
        self, request: SearchRequest, embedded: Embedded, *, seen: Sequence[Stored] = (), listed: Sequence[str] = ()
    ) -> Ranking:
        """A request with the lanes that rank it, behind what is listed already; `seen` is what is left of that.

        Raises:
            InvalidRequest: the filter is none, or the terms cancel each other out.
        """
        among = parse_filter(request.filter, self._collection.fields)
        kinds: dict[Modality, Filter] = (
            {request.kind.modality: of_kind(request.kind, among)}
            if request.kind is not None
            else {"image": no_texts(among), "text": of_kind(Kind.TEXT, among)}
        )
        lanes = [
            Lane(
                request,
                compose(embedded, toward, self._background),
                collection=self._collection,
                toward=toward,
                among=of_these,
                exclude=[*embedded.exclude, *listed],
                relevance=self._relevance,
            )
            for toward, of_these in kinds.items()
        ]
        distinct = Distinct(request)
        for item in seen:
            distinct.takes(item)
        if request.order_by is not None:
            wanted = MAX_DEPTH
        else:
            wanted = _CHUNK if listed else request.limit + 1  # the one more tells whether there is a next page
            if request.reranking is not None:
                wanted = max(wanted, request.reranking.top)
        return Ranking(request, embedded, lanes, distinct, wanted)

    def rank(self, rankings: Sequence[Ranking]) -> None:
        """Rank all, each lane's first search in one round trip with the others'."""
        lanes = [(ranking, lane) for ranking in rankings for lane in ranking.lanes]
        firsts = self._collection.search_many([lane.first(ranking.wanted, ranking.distinct) for ranking, lane in lanes])
        taken: dict[int, list[list[Ranked]]] = {}
        for (ranking, lane), hits in zip(lanes, firsts, strict=True):
            taken.setdefault(id(ranking), []).append(lane.take(ranking.wanted, ranking.distinct, hits))
        for ranking in rankings:
            # The best pictures and the best texts by turns; one kind alone when the other has nothing.
            turns = chain.from_iterable(zip_longest(*taken[id(ranking)]))
            ranking.ranked = [each for each in turns if each is not None]
            if (order := ranking.request.order_by) is not None:
                ranking.ranked = _ordered(ranking.ranked, order)

    def _of_image(self, image: bytes) -> NDArray[np.float32]:
        from indexer.media.decode import decode  # noqa: PLC0415  a text search never loads an image library
        from indexer.models.preprocess import decode_target  # noqa: PLC0415

        decoded = decode(image, target=decode_target(self._encoder.pixels), max_pixels=self._max_pixels)
        vectors = self._encoder.encode_images([decoded])
        return np.asarray(vectors[0])


def _ordered(ranked: list[Ranked], order_by: str) -> list[Ranked]:
    """By a field of the payload; those without a value come last."""
    field = order_by.removeprefix("-")
    values = [(value_of(each.hit, field), each) for each in ranked]
    having = [(value, each) for value, each in values if value is not None]
    having.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=order_by.startswith("-"))
    return [each for _, each in having] + [each for value, each in values if value is None]
