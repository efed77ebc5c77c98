"""The search engine: composes a query, ranks what is near it, and turns its pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indexer.errors import BrokerUnavailable, InvalidRequest, ModelMismatch
from indexer.store.points import Place
from search_api.background import Background, background_of
from search_api.clock import Clock
from search_api.composing import Fetch, thawed
from search_api.distinct import Distinct
from search_api.filters import of_kind, once_a_file, parse_filter
from search_api.pages import Pages
from search_api.ranking import Ranker, Ranking
from search_api.request import FILE, MAX_DEPTH, MOST_DEADLINE, SearchRequest
from search_api.results import SearchAnswer, SearchResult, result_of, row_of

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from search_api.encoding import QueryEncoder
    from search_api.reranking import Reranking

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
        self._pages = pages
        self._reranking = reranking
        self.background = background or background_of(encoder, collection)
        self._ranker = Ranker(encoder, collection, max_pixels=max_pixels, fetch=fetch, background=self.background)

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
        clock = Clock()
        embedded = self._ranker.embed(requests)
        clock.lap("encode", tokenize=sum(each.tokenize_seconds for each in embedded) * 1000)
        rankings = [self._ranker.prepare(request, each) for request, each in zip(requests, embedded, strict=True)]
        self._ranker.rank(rankings)
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

    def _first_page(self, ranking: Ranking, clock: Clock) -> SearchAnswer:
        request, ranked = ranking.request, ranking.ranked
        page = ranked[: request.limit]
        members = {
            leader: [result_of(hit, {"score": hit.score}) for hit in hits]
            for leader, hits in ranking.members(page).items()
        }
        cursor, warnings = None, [*ranking.embedded.warnings, *ranking.warnings]
        if self._pages is not None and len(ranked) > request.limit:
            try:
                frozen = {**ranking.frozen(), "rows": [row_of(each) for each in ranked]}
                cursor = self._pages.begin(self._collection.name, frozen, request.limit)
            except BrokerUnavailable:
                warnings.append("Pages cannot be turned now: their store does not answer.")
        results = [result_of(each.hit, row_of(each), members.get(each.hit.id, ())) for each in page]
        clock.lap("rank")
        return self._answer(
            results, clock, warnings=warnings, cursor=cursor, exact=request.exact, origins=ranking.origins(page),
            reranked=ranking.reranked,
        )  # fmt: skip

    def _next_page(self, text: str, limit: int) -> SearchAnswer:
        if self._pages is None:
            raise InvalidRequest("cursor: there are no cursors here.")
        clock = Clock()
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
            found += [result_of(there[row["id"]], row) for row in some if row["id"] in there]
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
        embedded = self._ranker.embed([request])[0]
        embedded.also_exclude = tuple(first["exclude"])
        ranking = self._ranker.prepare(request, embedded, seen=seen, listed=listed)
        self._ranker.rank([ranking])
        return [row_of(each) for each in ranking.ranked[: MAX_DEPTH - len(rows)]]

    def _walk(self, request: SearchRequest, after: Any) -> SearchAnswer:
        """The items that pass the filter, in the order of a field, or of their ids."""
        clock = Clock()
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
        return self._answer([result_of(item, {}) for item in items], clock, cursor=cursor, exact=True)

    def _answer(
        self,
        results: list[SearchResult],
        clock: Clock,
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
