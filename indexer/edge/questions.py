"""What is asked of a collection: Qdrant's read requests, answered by the engine.

Each function takes a collection and a request's body and gives what Qdrant has under `result`.

Raises:
    Refused: the body is not well formed, asks for too much at a time, or for what the engine does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import qdrant_edge as edge

from indexer.edge.filters import both, filter_of
from indexer.edge.generations import EdgeCollection
from indexer.edge.simplify import NothingPasses, Simplifier
from indexer.edge.wire import (
    PointId,
    Refused,
    flag,
    id_json,
    only,
    point_id,
    point_ids,
    record_json,
    scored_json,
    search_params,
    vectors,
    whole,
    with_payload,
)

_MOST_POINTS = 100_000
"""Of one answer, those that an offset passes over included."""
_MOST_QUERIES = 256
_MOST_EXAMPLES = 1_000
_MOST_FACETS = 10_000
_DIRECTIONS = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc}


def retrieve(collection: EdgeCollection, body: Any) -> Any:
    """Points by their ids."""
    only(body, "ids", "with_payload", "with_vector")
    ids = point_ids(body.get("ids"))
    if len(ids) > _MOST_POINTS:
        raise Refused(f"ids: no more than {_MOST_POINTS} at a time.")
    selected = with_payload(body.get("with_payload"), default=True)
    vector = flag(body, "with_vector")
    return [record_json(record) for record in collection.read(lambda shard: shard.retrieve(ids, selected, vector))]


def bare_vectors(collection: EdgeCollection, body: Any) -> bytes:
    """The vectors of points by their ids, in that order: float32, little-endian; NaN for those that are not there."""
    ids = point_ids(only(body, "ids").get("ids"))
    if len(ids) > _MOST_POINTS:
        raise Refused(f"ids: no more than {_MOST_POINTS} at a time.")
    records = collection.read(lambda shard: shard.retrieve(ids, False, True))
    place = {str(each): row for row, each in enumerate(ids)}
    rows = np.full((len(ids), collection.size), np.nan, dtype="<f4")
    for record in records:
        rows[place[str(record.id)]] = record.vector
    return rows.tobytes()


def columns(collection: EdgeCollection, body: Any) -> Any:
    """Where the copy in columns is and how far, which is begun if there is none; or nothing, once it is removed."""
    if flag(only(body, "drop"), "drop"):
        collection.columns.drop()
        return {}
    return collection.columns.ask()


def scroll(collection: EdgeCollection, body: Any) -> Any:
    """A page of points in the order of their ids, or of a field that has a payload index with an order."""
    only(body, "filter", "limit", "offset", "order_by", "with_payload", "with_vector")
    offset, order = body.get("offset"), _order(body.get("order_by"))
    if order is not None and offset is not None:
        raise Refused("offset cannot be used with order_by; filter by the last value instead.")
    asked = edge.ScrollRequest(
        offset=None if offset is None else point_id(offset),
        limit=whole(body, "limit", default=10, least=1, most=_MOST_POINTS),
        filter=filter_of(body.get("filter")),
        with_payload=with_payload(body.get("with_payload"), default=True),
        with_vector=flag(body, "with_vector"),
        order_by=order,
    )
    records, following = collection.read(lambda shard: shard.scroll(asked))
    return {
        "points": [record_json(record) for record in records],
        "next_page_offset": None if following is None else id_json(following),
    }


def _order(body: Any) -> edge.OrderBy | None:
    if body is None:
        return None
    given = only({"key": body} if isinstance(body, str) else body, "key", "direction", "start_from")
    direction = given.get("direction") or "asc"
    return edge.OrderBy(given["key"], _DIRECTIONS[direction], given.get("start_from"))


def count(collection: EdgeCollection, body: Any) -> Any:
    """How many points pass a filter; exactly, unless an estimate will do."""
    only(body, "filter", "exact")
    exact = body.get("exact") is None or flag(body, "exact")
    asked = edge.CountRequest(exact=exact, filter=filter_of(body.get("filter")))
    return {"count": collection.read(lambda shard: shard.count(asked))}


def facet(collection: EdgeCollection, body: Any) -> Any:
    """The values of an indexed field and how many points have each, most frequent first."""
    only(body, "key", "limit", "filter", "exact")
    limit = whole(body, "limit", default=10, least=1, most=_MOST_FACETS)
    asked = edge.FacetRequest(body["key"], limit, flag(body, "exact"), filter_of(body.get("filter")))
    hits = collection.read(lambda shard: shard.facet(asked))
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in hits]}


def query(collection: EdgeCollection, body: Any) -> Any:
    """The points that answer a query, best first."""
    asked = _request(collection, body)
    return {"points": [scored_json(point) for point in collection.read(lambda shard: shard.query(asked))]}


def query_batch(collection: EdgeCollection, body: Any) -> Any:
    """Several queries, which the engine plans as one."""
    searches = only(body, "searches").get("searches") or []
    if len(searches) > _MOST_QUERIES:
        raise Refused(f"searches: no more than {_MOST_QUERIES} at a time.")
    asked = [_request(collection, each) for each in searches]
    if sum(each.limit + each.offset for each in asked) > _MOST_POINTS:
        raise Refused(f"searches: no more than {_MOST_POINTS} points in all.")
    answers = collection.read(lambda shard: _answers(shard, asked))
    return [{"points": [scored_json(point) for point in points]} for points in answers]


def _answers(shard: edge.EdgeShard, asked: list[edge.QueryRequest]) -> list[list[edge.ScoredPoint]]:
    simplifier = Simplifier(shard)
    searched: list[edge.QueryRequest] = []
    which: list[int] = []
    for number, each in enumerate(asked):
        with suppress(NothingPasses):
            searched.append(_among(each, simplifier.simplified(each.filter)))
            which.append(number)
    answers: list[list[edge.ScoredPoint]] = [[] for _ in asked]
    if searched:
        for number, points in zip(which, shard.query_batch(edge.QueryBatchRequest(searched)), strict=True):
            answers[number] = points
    return answers if simplifier.still() else shard.query_batch(edge.QueryBatchRequest(asked))


def _among(request: edge.QueryRequest, among: edge.Filter | None) -> edge.QueryRequest:
    """The request with another filter."""
    return edge.QueryRequest(
        limit=request.limit,
        offset=request.offset,
        query=request.query,
        filter=among,
        with_payload=request.with_payload,
        with_vector=request.with_vector,
        score_threshold=request.score_threshold,
        params=request.params,
    )


def _request(collection: EdgeCollection, body: Any) -> edge.QueryRequest:
    only(body, *QUESTION, "limit", "offset", "with_payload", "with_vector")
    limit = whole(body, "limit", default=10, least=1, most=_MOST_POINTS)
    return question(collection, body).request(
        limit,
        offset=whole(body, "offset", default=0, most=_MOST_POINTS - limit),
        payload=with_payload(body.get("with_payload"), default=False),
        vector=flag(body, "with_vector"),
    )


QUESTION = ("query", "filter", "score_threshold", "params")
"""The keys of a body that `question` reads."""


@dataclass(frozen=True)
class Question:
    """What a query asks for, apart from how much of it."""

    query: edge.Query | None
    among: edge.Filter | None
    threshold: float | None
    params: edge.SearchParams

    def request(
        self,
        limit: int,
        *,
        offset: int = 0,
        also: edge.Filter | None = None,
        payload: bool | list[str] | edge.PayloadSelector = False,
        vector: bool = False,
    ) -> edge.QueryRequest:
        """The engine's request for so many answers, of those that pass one more filter."""
        return edge.QueryRequest(
            limit=limit,
            offset=offset,
            query=self.query,
            filter=both(self.among, also),
            with_payload=payload,
            with_vector=vector,
            score_threshold=self.threshold,
            params=self.params,
        )


def question(collection: EdgeCollection, body: dict[str, Any]) -> Question:
    """The question of a query's body; points that it names as examples are no answers."""
    wanted, examples = _wanted(collection, body.get("query"))
    others = edge.Filter(must_not=[edge.HasIdCondition(set(examples))]) if examples else None
    among = both(filter_of(body.get("filter")), others)
    return Question(wanted, among, body.get("score_threshold"), search_params(body.get("params")))


def _wanted(collection: EdgeCollection, query: Any) -> tuple[edge.Query | None, list[PointId]]:
    """The engine's query, and the ids of the points that it is made of."""
    if query is None:
        return None, []
    if isinstance(query, dict) and "recommend" in query:
        return _recommend(collection, only(query, "recommend")["recommend"])
    if isinstance(query, dict):
        query = only(query, "nearest").get("nearest")
    found, ids = _vectors(collection, [query])
    return edge.Query.Nearest(found[0]), ids


def _recommend(collection: EdgeCollection, body: Any) -> tuple[edge.Query, list[PointId]]:
    given = only(body, "positive", "negative", "strategy")
    positives, liked = _vectors(collection, given.get("positive") or [])
    negatives, disliked = _vectors(collection, given.get("negative") or [])
    match given.get("strategy") or "average_vector":
        case "average_vector":
            if not positives:
                raise Refused("Bad request: At least one positive vector ID required with this strategy")
            towards = np.mean(positives, axis=0)
            if negatives:
                towards = 2 * towards - np.mean(negatives, axis=0)
            wanted = edge.Query.Nearest(vectors([towards.tolist()], collection.size)[0])
        case "best_score" | "sum_scores" as strategy:
            if not positives and not negatives:
                raise Refused("Bad request: At least one positive or negative vector ID required with this strategy")
            make = edge.Query.RecommendBestScore if strategy == "best_score" else edge.Query.RecommendSumScores
            wanted = make(edge.RecommendQuery(positives, negatives))  # type: ignore[arg-type]
        case other:
            raise Refused(f"{other!r} is no strategy of recommendation.")
    return wanted, liked + disliked


def _vectors(collection: EdgeCollection, examples: Sequence[Any]) -> tuple[list[list[float]], list[PointId]]:
    """The vectors of examples, each a vector or a point's id; and the ids among them."""
    if len(examples) > _MOST_EXAMPLES:
        raise Refused(f"No more than {_MOST_EXAMPLES} examples at a time.")
    ids = [point_id(each) for each in examples if not isinstance(each, list)]
    records = collection.read(lambda shard: shard.retrieve(ids, False, True)) if ids else []
    stored = {id_json(record.id): record.vector for record in records}
    if missing := [each for each in ids if id_json(each) not in stored]:
        raise Refused(f"Not found: No point with id {missing[0]} found", 404)
    found = [each if isinstance(each, list) else stored[id_json(point_id(each))] for each in examples]
    return vectors(found, collection.size), ids
