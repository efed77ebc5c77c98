"""The search engine: composes a query, ranks what is near it, and turns its pages."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import BrokerUnavailable, InvalidRequest, ModelMismatch
from indexer.items import Kind, Modality
from indexer.store.points import Place
from search_api.background import Background
from search_api.composing import Embedded, Fetch, compose, embed, names_of, thawed
from search_api.distinct import Distinct
from search_api.filters import no_texts, of_kind, once_a_file, parse_filter
from search_api.lane import Lane, Ranked
from search_api.pages import Pages
from search_api.ranking import Ranking, rank
from search_api.relevance import Relevance
from search_api.request import FILE, MAX_DEPTH, MOST_DEADLINE, SearchRequest
from search_api.results import SearchAnswer, SearchResult

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qdrant_client.models import Filter

    from indexer.models.manifest import Calibration
    from indexer.store.collection import Collection
    from indexer.store.points import Stored
    from search_api.encoding import QueryEncoder
    from search_api.reranking import Reranking

SHARED = ("tokenize", "encode", "search")
"""Stages that the searches of a batch go through together."""
_CHUNK = 200
"""Results that are ranked at once when a reader turns pages."""
_DEEP = f"Only the first {MAX_DEPTH:,} results can be reached: narrow the search with a filter."


class SearchEngine:
    """Searches one collection with the encoder that filled it.

    `pages` keeps ranked lists for cursors; without it there are none. `fetch` gives the bytes behind images' URLs;
    without it URLs are refused. `reranking` reranks where that is asked for. A `background` is kept by whoever makes
    engines often.

    Usage:
        engine = SearchEngine(encoder, collection, max_pixels=settings.max_pixels)
        answer = engine.search(SearchRequest.parse({"query": [{"text": "a dog on a beach"}]}))

    Raises:
        ModelMismatch: the encoder's vector space is not the collection's.
    """

    def __init__(
        self,
        encoder: QueryEncoder,
        collection: Collection,
        *,
        max_pixels: int,
        pages: Pages | None = None,
        fetch: Fetch | None = None,
        reranking: Reranking | None = None,
        background: Background | None = None,
    ) -> None:
        if encoder.fingerprint != collection.fingerprint:
            raise ModelMismatch(
                f"The collection {collection.name!r} was made with {collection.model!r} "
                f"({collection.fingerprint}); this is {encoder.manifest.name!r} ({encoder.fingerprint})."
            )
        self._encoder = encoder
        self._collection = collection
        self._max_pixels = max_pixels
        self._pages = pages
        self._fetch = fetch
        self._reranking = reranking
        self.background = background or make_background(encoder, collection)
        self._relevance = Relevance(encoder.manifest, _fitted(collection), self.background, collection.count)

    @property
    def collection(self) -> Collection:
        """What it searches, with the metadata that the collection had when it was made."""
        return self._collection

    def is_of(self, collection: Collection) -> bool:
        """Whether it searches this very collection: one of the same name may have taken its place."""
        return self._collection.metadata == collection.metadata and self._collection.name == collection.name

    def search(self, request: SearchRequest) -> SearchAnswer:
        """Answer a request.

        Raises:
            InvalidRequest: the filter is none, or the terms cancel each other out.
            InvalidCursor: it was not given out here, or its life is over.
            InvalidVector: a vector term of another dimension, or without length.
            ItemNotFound: an item term names nothing in the collection.
            MediaError: an image term that cannot be fetched or decoded.
            NoReranker: it is to be reranked, and no model for that is installed.
            IndexUnavailable: the index does not answer.
        """
        if request.cursor is not None:
            return self._next_page(request.cursor, request.limit)
        if not request.terms:
            return self._walk(request, None)
        return self.search_many([request])[0]

    def search_many(self, requests: Sequence[SearchRequest]) -> list[SearchAnswer]:
        """Answer several requests with queries; all texts are embedded in one run, and the index is asked at once.

        Raises:
            InvalidRequest: one has a cursor, or no query; or as `search`.
        """
        if any(request.cursor is not None or not request.terms for request in requests):
            raise InvalidRequest("searches: each needs a query; pages are turned one by one.")
        self._check_reranking(requests)
        clock = _Clock()
        embedded = self._embed(requests)
        clock.lap("encode", tokenize=sum(each.tokenize_seconds for each in embedded) * 1000)
        rankings = [self._ranking(request, each) for request, each in zip(requests, embedded, strict=True)]
        rank(self._collection, rankings)
        clock.lap("search")
        answers = []
        left = float(MOST_DEADLINE)  # for all of them, whatever each may take
        for ranking in rankings:
            own = clock.own()
            if self._reranking is not None and ranking.request.reranking is not None:
                self._reranking.rerank(ranking, ranking.request.reranking, most_ms=left)
                own.lap("rerank")
                left -= own.laps["rerank"]
            answers.append(self._first_page(ranking, own))
        return answers

    def _check_reranking(self, requests: Sequence[SearchRequest]) -> None:
        for request in requests:
            if request.reranking is not None:
                if self._reranking is None:
                    raise InvalidRequest("rerank: nothing is reranked here.", remedy="Leave it out.", field="rerank")
                self._reranking.check(request.kind)

    def _embed(self, requests: Sequence[SearchRequest]) -> list[Embedded]:
        terms = [term for request in requests for term in request.terms]
        whole = embed(
            terms, encoder=self._encoder, collection=self._collection, read_image=self._of_image, fetch=self._fetch,
            names=names_of(requests),
        )  # fmt: skip
        return whole.split([len(request.terms) for request in requests])

    def _of_image(self, image: bytes) -> NDArray[np.float32]:
        from indexer.media.decode import decode  # noqa: PLC0415  a text search never loads an image library
        from indexer.models.preprocess import decode_target  # noqa: PLC0415

        decoded = decode(image, target=decode_target(self._encoder.pixels), max_pixels=self._max_pixels)
        vectors = self._encoder.encode_images([decoded])
        return np.asarray(vectors[0])

    def _ranking(
        self, request: SearchRequest, embedded: Embedded, *, seen: Sequence[Stored] = (), listed: Sequence[str] = ()
    ) -> Ranking:
        """What has to be ranked for a request, behind what is listed already; `seen` is what is left of that."""
        among = parse_filter(request.filter, self._collection.fields)
        kinds: dict[Modality, Filter] = (
            {request.kind.modality: of_kind(request.kind, among)}
            if request.kind is not None
            else {"image": no_texts(among), "text": of_kind(Kind.TEXT, among)}
        )
        lanes = [
            Lane(
                request,
                compose(embedded, toward, self.background),
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

    def _first_page(self, ranking: Ranking, clock: _Clock) -> SearchAnswer:
        request, ranked = ranking.request, ranking.ranked
        page = ranked[: request.limit]
        members = ranking.members(page)
        cursor, warnings = None, [*ranking.embedded.warnings, *ranking.warnings]
        if self._pages is not None and len(ranked) > request.limit:
            try:
                frozen = {**ranking.frozen(), "rows": [_row(each) for each in ranked]}
                cursor = self._pages.begin(self._collection.name, frozen, request.limit)
            except BrokerUnavailable:
                warnings.append("Pages cannot be turned now: their store does not answer.")
        results = [
            _result(each.hit, _row(each), [_result(hit, {"score": hit.score}) for hit in members.get(each.hit.id, [])])
            for each in page
        ]
        clock.lap("rank")
        origins = {
            f"{term.modality or 'vector'}_to_{lane.toward}": self._relevance.origin(term, lane.toward)
            for lane in ranking.lanes
            for term in lane.query.terms
            if term.weight > 0 and any(each.hit.record.kind.modality == lane.toward for each in page)
        }
        return self._answer(
            results, clock, warnings=warnings, cursor=cursor, exact=request.exact, origins=origins,
            reranked=ranking.reranked,
        )  # fmt: skip

    def _next_page(self, text: str, limit: int) -> SearchAnswer:
        if self._pages is None:
            raise InvalidRequest("cursor: there are no cursors here.")
        clock = _Clock()
        cursor = self._pages.read(text)
        parts = self._pages.parts(cursor, self._collection.name)
        asked = parts[0]["request"]
        request = SearchRequest.model_validate({**asked, "query": thawed(asked.get("query", [])), "limit": limit})
        if "after" in parts[0]:
            return self._walk(request, parts[0]["after"])
        rows = [row for part in parts for row in part["rows"]]
        ended = request.order_by is not None or not parts[-1]["rows"]
        found: list[SearchResult] = []
        offset = cursor.offset
        while True:
            some = rows[offset : offset + limit - len(found)]
            there = self._collection.get_many([row["id"] for row in some])
            found += [_result(there[row["id"]], row) for row in some if row["id"] in there]
            offset += len(some)
            if len(found) < limit and offset < len(rows):
                continue  # some were removed meanwhile
            if offset < len(rows) or ended or len(rows) >= MAX_DEPTH:
                break
            part = self._pages.extend(cursor, len(parts), {"rows": self._behind(request, parts[0], rows)})
            parts.append(part)
            rows += part["rows"]
            ended = not part["rows"]
        deeper = offset < len(rows)
        clock.lap("search")
        return self._answer(
            found,
            clock,
            warnings=[_DEEP] if not deeper and not ended else [],
            cursor=self._pages.sign(cursor.at(offset, kept=len(parts) > 1)) if deeper else None,
            exact=request.exact,
            reranked=parts[0].get("reranked"),
        )

    def _behind(
        self, request: SearchRequest, first: dict[str, Any], rows: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """What is to be listed behind these rows."""
        listed = [row["id"] for row in rows]
        distinct = Distinct(request)
        seen = list(self._collection.get_many(listed).values())
        if distinct.needs_vectors:
            vectors = self._collection.vectors(listed)
            seen = [type(item)(item.id, item.record, item.payload, vector=vectors.get(item.id)) for item in seen]
        embedded = self._embed([request])[0]
        embedded.also_exclude = tuple(first["exclude"])
        ranking = self._ranking(request, embedded, seen=seen, listed=listed)
        rank(self._collection, [ranking])
        return [_row(each) for each in ranking.ranked[: MAX_DEPTH - len(rows)]]

    def _walk(self, request: SearchRequest, after: Any) -> SearchAnswer:
        """The items that pass the filter, in the order of a field, or of their ids."""
        clock = _Clock()
        among = parse_filter(request.filter, self._collection.fields)
        if request.kind is not None:
            among = of_kind(request.kind, among)
        if request.group_by == FILE:
            among = once_a_file(among)
        place: Place | str | None
        if request.order_by is None:
            items, place = self._collection.scroll(request.limit, filter=among, after=after)
        else:
            items, place = self._collection.scroll_ordered(
                request.order_by.removeprefix("-"),
                request.limit,
                descending=request.order_by.startswith("-"),
                filter=among,
                after=None if after is None else Place(*after),
            )
        cursor = None
        if place is not None and self._pages is not None:
            dumped = request.model_dump(mode="json", exclude={"cursor"}, exclude_unset=True)
            cursor = self._pages.begin(self._collection.name, {"request": dumped, "after": place}, 0)
        clock.lap("search")
        return self._answer([_result(item, {}) for item in items], clock, cursor=cursor, exact=True)

    def _answer(
        self,
        results: list[SearchResult],
        clock: _Clock,
        *,
        cursor: str | None,
        exact: bool,
        warnings: Sequence[str] = (),
        origins: dict[str, Any] | None = None,
        reranked: int | None = None,
    ) -> SearchAnswer:
        return SearchAnswer(
            results=results,
            took_ms=clock.total,
            model=self._collection.model,
            fingerprint=self._collection.fingerprint,
            exact=exact,
            devices=self._encoder.devices,
            stages=dict(clock.laps),
            relevance_from=origins or {},
            warnings=list(warnings),
            cursor=cursor,
            reranked=reranked,
        )


def make_background(encoder: QueryEncoder, collection: Collection) -> Background:
    """The background of a collection, taken from its own items and its encoder's texts."""

    def sample(modality: Modality, count: int) -> NDArray[np.float32]:
        among = of_kind(Kind.TEXT) if modality == "text" else no_texts()
        items, _ = collection.scroll(count, filter=among, with_vectors=True)
        vectors = [item.vector for item in items if item.vector is not None]
        return np.stack(vectors) if vectors else np.empty((0, collection.dimension), np.float32)

    return Background(sample, lambda texts: encoder.encode_texts(texts).vectors)


class _Clock:
    """Milliseconds of stages."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str, **within: float) -> None:
        """End a stage; `within` are the milliseconds of others that were part of it."""
        now = time.perf_counter()
        self.laps |= within
        self.laps[stage] = max(0.0, (now - self._last) * 1000 - sum(within.values()))
        self._last = now

    def own(self) -> _Clock:
        """One that goes on from here, with stages of its own."""
        other = copy.copy(self)
        other.laps = dict(self.laps)
        other._last = time.perf_counter()
        return other

    @property
    def total(self) -> float:
        """From the beginning to the last stage's end."""
        return (self._last - self._started) * 1000


def _row(ranked: Ranked) -> dict[str, Any]:
    row: dict[str, Any] = {"id": ranked.hit.id, "score": ranked.hit.score, "relevance": ranked.relevance}
    said = {"explain": ranked.explanation, "rerank": ranked.rerank}
    return row | {name: value for name, value in said.items() if value is not None}


def _result(item: Stored, row: dict[str, Any], members: Sequence[SearchResult] = ()) -> SearchResult:
    return SearchResult(
        id=item.record.name or item.id,
        score=row.get("score"),
        relevance=row.get("relevance"),
        record=item.record,
        payload=item.payload,
        explanation=row.get("explain"),
        rerank=row.get("rerank"),
        members=list(members),
    )


def _fitted(collection: Collection) -> dict[str, Calibration]:
    stored = collection.metadata.get("calibration")
    if not stored:
        return {}
    from indexer.models.manifest import Calibration  # noqa: PLC0415

    return {direction: Calibration.model_validate(each) for direction, each in stored.items()}
