"""Qdrant's filters to the engine's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import qdrant_edge as edge

from indexer.edge.wire import Refused, only, point_ids, well_formed


def filter_of(body: Any) -> edge.Filter | None:
    """A filter; None where there is none.

    Raises:
        Refused: it is not well formed, or says what the engine does not know.
    """
    if body is None:
        return None
    with well_formed("The filter"):
        clauses = only(body, "must", "should", "must_not", "min_should")
        least = clauses.get("min_should")
        return edge.Filter(
            must=_conditions(clauses.get("must")),
            should=_conditions(clauses.get("should")),
            must_not=_conditions(clauses.get("must_not")),
            min_should=least and edge.MinShould(_conditions(least["conditions"]) or [], least["min_count"]),
        )


def both(first: edge.Filter | None, second: edge.Filter | None) -> edge.Filter | None:
    """What passes two filters, either of which may be absent."""
    if first is None or second is None:
        return first or second
    return edge.Filter(must=[first, second])


def _conditions(body: Any) -> list[Any] | None:
    if body is None:
        return None
    return [_condition(each) for each in (body if isinstance(body, list) else [body])]


def _condition(body: Any) -> Any:
    if not isinstance(body, dict):
        raise Refused("A condition is a JSON object.")
    if "has_id" in body:
        return edge.HasIdCondition(set(point_ids(only(body, "has_id")["has_id"])))
    if "is_empty" in body and "key" not in body:
        return edge.IsEmptyCondition(only(body, "is_empty")["is_empty"]["key"])
    if "is_null" in body and "key" not in body:
        return edge.IsNullCondition(only(body, "is_null")["is_null"]["key"])
    if "nested" in body:
        nested = only(body, "nested")["nested"]
        return edge.NestedCondition(nested["key"], filter_of(nested["filter"]) or edge.Filter())
    if "key" in body:
        return _field_condition(body)
    return filter_of(body)


def _field_condition(body: dict[str, Any]) -> edge.FieldCondition:
    key = body["key"]
    given = {kind: value for kind, value in body.items() if kind != "key" and value is not None}
    if not given:
        raise Refused(f"The condition on {key!r} says nothing.")
    only(given, *_KINDS)
    return edge.FieldCondition(key, **{kind: _KINDS[kind](value) for kind, value in given.items()})


def _range(body: Any) -> edge.RangeDateTime | edge.RangeFloat:
    limits = {key: value for key, value in only(body, "gte", "gt", "lte", "lt").items() if value is not None}
    dates = any(isinstance(value, str) for value in limits.values())
    return edge.RangeDateTime(**limits) if dates else edge.RangeFloat(**limits)


def _geo(body: dict[str, float]) -> edge.GeoPoint:
    return edge.GeoPoint(body["lon"], body["lat"])


def _polygon(body: Any) -> edge.GeoPolygon:
    given = only(body, "exterior", "interiors")
    rings = [[_geo(point) for point in ring["points"]] for ring in (given["exterior"], *(given.get("interiors") or []))]
    return edge.GeoPolygon(rings[0], rings[1:] or None)


def _value(body: Any) -> edge.MatchValue:
    # The binding (0.9) takes Python's True for the number 1, which matches no boolean; NumPy's it takes for what it is.
    return edge.MatchValue(np.bool_(body) if isinstance(body, bool) else body)  # type: ignore[arg-type]


def _words_or_numbers(body: Any) -> Any:
    if not isinstance(body, list) or any(isinstance(each, bool) for each in body):
        raise Refused("any and except take a list of strings or of whole numbers.")
    return body


_MATCHES: Mapping[str, Callable[[Any], Any]] = {
    "value": _value,
    "any": lambda body: edge.MatchAny(_words_or_numbers(body)),
    "except": lambda body: edge.MatchExcept(_words_or_numbers(body)),
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
}


def _match(body: Any) -> Any:
    given = [(kind, value) for kind, value in only(body, *_MATCHES).items() if value is not None]
    if len(given) != 1:
        raise Refused("A match takes exactly one of value, any, except, text, text_any and phrase.")
    kind, value = given[0]
    return _MATCHES[kind](value)


_KINDS: Mapping[str, Callable[[Any], Any]] = {
    "match": _match,
    "range": _range,
    "values_count": lambda body: edge.ValuesCount(**body),
    "geo_radius": lambda body: edge.GeoRadius(_geo(body["center"]), body["radius"]),
    "geo_bounding_box": lambda body: edge.GeoBoundingBox(_geo(body["top_left"]), _geo(body["bottom_right"])),
    "geo_polygon": _polygon,
    "is_empty": lambda body: body,
    "is_null": lambda body: body,
}
