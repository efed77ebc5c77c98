"""Answers grouped by a field: the best groups, and the best points of each.

A point's groups are the strings and whole numbers of its field. Two steps find them:

1. The nearest points are asked for. Their groups, in the order of their best points, are the first groups of the
   answer. While there are too few, the nearest points of other groups are asked for, in growing numbers: a video with
   thousands of frames near the query hides the rest for one request only.
2. A group of which not enough points came along is asked for by name.

So both the groups and their points are as exact as a search is: exactly right with `exact`, within the recall of the
graph without. Only where more than `_ROUNDS` requests would be needed, the last groups are missing.
"""

from __future__ import annotations

import re
from typing import Any

import qdrant_edge as edge

from indexer.edge.generations import EdgeCollection
from indexer.edge.questions import QUESTION, Question, question
from indexer.edge.wire import Refused, flag, id_json, only, record_json, whole, with_payload

_MOST_GROUPS = 1_000
_MOST_OF_A_GROUP = 1_000
_MOST_POINTS = 100_000
"""In all groups together."""
_ROUNDS = 16
_LEAST_ASKED, _MOST_ASKED = 64, 10_000
"""Points of one round."""
_STEP = re.compile(r"([^.\[\]\"]+)((?:\[\d*\])*)")

GroupId = str | int


def query_groups(collection: EdgeCollection, body: Any) -> Any:
    """The best groups for a query, and the best points of each, as Qdrant answers them."""
    only(body, *QUESTION, "group_by", "group_size", "limit", "with_payload", "with_vector")
    path = body["group_by"]
    if not isinstance(path, str) or not all(_STEP.fullmatch(step) for step in path.split(".")):
        raise Refused("group_by: the path of a payload field is expected.")
    limit = whole(body, "limit", default=10, least=1, most=_MOST_GROUPS)
    size = whole(body, "group_size", default=3, least=1, most=_MOST_OF_A_GROUP)
    if limit * size > _MOST_POINTS:
        raise Refused(f"limit x group_size: no more than {_MOST_POINTS} points in all.")
    selected = with_payload(body.get("with_payload"), default=True)
    vector = flag(body, "with_vector")
    asked = question(collection, body)
    groups = _fill(collection, asked, path, size, *_find(collection, asked, path, limit, size))
    ids = {id_json(hit.id): hit.id for hits in groups.values() for hit in hits}
    stored = collection.read(lambda shard: shard.retrieve(list(ids.values()), selected, vector))
    records = {id_json(record.id): record_json(record) for record in stored}
    return {
        "groups": [
            {
                "id": group,
                "hits": [
                    {**records[each], "version": hit.version, "score": hit.score}
                    for hit in hits
                    if (each := id_json(hit.id)) in records  # else it was deleted a moment ago
                ],
            }
            for group, hits in groups.items()
        ]
    }


Groups = dict[GroupId, list[edge.ScoredPoint]]


def _find(
    collection: EdgeCollection, asked: Question, path: str, limit: int, size: int
) -> tuple[Groups, list[GroupId]]:
    """The groups, best first, with the points that came along; and those that may have further points."""
    groups: Groups = {}
    unfilled: list[GroupId] = []
    much = max(_LEAST_ASKED, limit * size)
    for _ in range(_ROUNDS):
        settled = set(groups)
        request = asked.request(min(much, _MOST_ASKED), also=_others(path, groups), payload=[path])
        hits = collection.read(lambda shard, request=request: shard.query(request))  # type: ignore[misc]
        for hit in hits:
            for group in group_ids(hit.payload, path):
                if group in groups or len(groups) < limit:
                    found = groups.setdefault(group, [])
                    if group not in settled and len(found) < size:
                        found.append(hit)
        if len(hits) < request.limit:
            break
        unfilled += [group for group, found in groups.items() if group not in settled and len(found) < size]
        if len(groups) == limit:
            break
        much *= 2
    return groups, unfilled


def _others(path: str, groups: Groups) -> edge.Filter | None:
    """What is in another group: of a point in several, one is enough, which is what `except` means."""
    words = [group for group in groups if isinstance(group, str)]
    numbers = [group for group in groups if isinstance(group, int)]
    known = [edge.MatchExcept(words)] * bool(words) + [edge.MatchExcept(numbers)] * bool(numbers)
    return edge.Filter(must=[edge.FieldCondition(path, match=each) for each in known]) if known else None


def _fill(
    collection: EdgeCollection, asked: Question, path: str, size: int, groups: Groups, unfilled: list[GroupId]
) -> Groups:
    if unfilled:
        conditions = [edge.FieldCondition(path, match=edge.MatchValue(group)) for group in unfilled]
        requests = [asked.request(size, also=edge.Filter(must=[each])) for each in conditions]
        answers = collection.read(lambda shard: shard.query_batch(edge.QueryBatchRequest(requests)))
        # One that the second search passed by, being approximate, stays.
        groups.update({group: max(groups[group], hits, key=len) for group, hits in zip(unfilled, answers, strict=True)})
    return groups


def group_ids(payload: Any, path: str) -> list[GroupId]:
    """The groups of a point: the distinct strings and whole numbers at a path such as `a.b[].c` of its payload.

    None where something else is there too, as in Qdrant.
    """
    values = [payload]
    for name, brackets in _STEP.findall(path):
        values = [value[name] for value in values if isinstance(value, dict) and name in value]
        for place in re.findall(r"\[(\d*)\]", brackets):
            lists = [value for value in values if isinstance(value, list)]
            values = [each for value in lists for each in (value[int(place) : int(place) + 1] if place else value)]
    flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
    if not all(type(value) is str or (type(value) is int and -(2**63) <= value < 2**63) for value in flat):
        return []
    return list(dict.fromkeys(flat))
