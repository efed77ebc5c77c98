"""Qdrant's JSON to the engine's objects and back.

Plain dictionaries are read here rather than with qdrant-client's models: importing those costs half a second, and the
index process is started while somebody waits for an answer. What is not known is refused, never passed over.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import qdrant_edge as edge


class Refused(Exception):
    """A request that cannot be done as asked: an HTTP status and a sentence."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


_DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}
_SCHEMAS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "text": edge.PayloadSchemaType.Text,
    "geo": edge.PayloadSchemaType.Geo,
    "uuid": edge.PayloadSchemaType.Uuid,
}
_LEAST_NORM = 1e-12

PointId = int | uuid.UUID | str


def only(body: Any, *known: str) -> dict[str, Any]:
    """The body as a dictionary whose other keys are null.

    Raises:
        Refused: it is none, or says something else.
    """
    if not isinstance(body, dict):
        raise Refused("A JSON object is expected.")
    unknown = [key for key, value in body.items() if key not in known and value is not None]
    if unknown:
        raise Refused(f"{unknown[0]!r} is not supported by the embedded index.")
    return body


def vector_params(body: Any) -> tuple[int, str]:
    """The one unnamed vector of a collection: its size and distance."""
    params = only(body, "size", "distance", "on_disk")
    size, distance = params.get("size"), params.get("distance")
    if not isinstance(size, int) or not 0 < size <= 65536 or distance not in _DISTANCES:
        raise Refused("A vector needs a size from 1 to 65536 and a known distance.")
    return size, distance


def distance_of(name: str) -> edge.Distance:
    """The engine's distance of that name."""
    return _DISTANCES[name]


def schema_of(body: Any) -> edge.PayloadSchemaType:
    """The type of a payload index."""
    kind = body.get("type") if isinstance(body, dict) else body
    if kind not in _SCHEMAS:
        raise Refused(f"There is no payload index of type {kind!r}.")
    return _SCHEMAS[kind]


def point_id(value: Any) -> PointId:
    """An id: a UUID in any spelling, or an unsigned 64-bit integer."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as error:
        raise Refused(f"{value!r} is no point id: neither a UUID nor an unsigned integer.") from error


def point_ids(values: Any) -> list[PointId]:
    """A list of ids."""
    if not isinstance(values, list):
        raise Refused("A list of point ids is expected.")
    return [point_id(value) for value in values]


def vectors(values: list[Any], size: int) -> list[list[float]]:
    """Vectors that may be stored: of the right size, finite, with a length. The engine itself takes NaN silently."""
    for value in values:
        if not isinstance(value, list) or len(value) != size:
            found = len(value) if isinstance(value, list) else type(value).__name__
            raise Refused(f"Wrong input: Vector dimension error: expected dim: {size}, got {found}")
    try:
        array = np.asarray(values, dtype=np.float32).reshape(len(values), size)
    except (ValueError, TypeError) as error:
        raise Refused("A vector is a list of numbers.") from error
    norms = np.linalg.norm(array.astype(np.float64), axis=1)
    if not np.isfinite(norms).all() or (norms < _LEAST_NORM).any():
        raise Refused("A vector has a value that is not finite, or no length.", 422)
    return values


def points(body: dict[str, Any], size: int) -> list[edge.Point]:
    """The points of an upsert, as a list of records or as a batch of columns."""
    if (batch := body.get("batch")) is not None:
        columns = only(batch, "ids", "vectors", "payloads")
        ids = columns["ids"]
        rows = list(zip(ids, columns["vectors"], columns.get("payloads") or [None] * len(ids), strict=True))
    else:
        records = [only(record, "id", "vector", "payload") for record in body.get("points") or []]
        rows = [(record.get("id"), record.get("vector"), record.get("payload")) for record in records]
    checked = vectors([vector for _, vector, _ in rows], size) if rows else []
    return [
        edge.Point(point_id(each), vector, payload or {})
        for (each, _, payload), vector in zip(rows, checked, strict=True)
    ]


def filter_of(body: Any) -> edge.Filter | None:
    """A filter; None where there is none."""
    if body is None:
        return None
    clauses = only(body, "must", "should", "must_not", "min_should")
    least = clauses.get("min_should")
    try:
        return edge.Filter(
            must=_conditions(clauses.get("must")),
            should=_conditions(clauses.get("should")),
            must_not=_conditions(clauses.get("must_not")),
            min_should=least and edge.MinShould(_conditions(least["conditions"]) or [], least["min_count"]),
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise Refused(f"The filter is not well formed: {error}.") from error


def _conditions(body: Any) -> list[Any] | None:
    if body is None:
        return None
    return [_condition(each) for each in (body if isinstance(body, list) else [body])]


def _condition(body: Any) -> Any:
    if not isinstance(body, dict):
        raise Refused("A condition is a JSON object.")
    if "has_id" in body:
        return edge.HasIdCondition(set(point_ids(only(body, "has_id")["has_id"])))
    if "is_empty" in body:
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
    known = ("key", "match", "range", "values_count", "is_empty", "is_null", "geo_radius", "geo_bounding_box")
    only(body, *known)
    given: dict[str, Any] = {}
    if (match := body.get("match")) is not None:
        given["match"] = _match(match)
    if (limits := body.get("range")) is not None:
        limits = {key: value for key, value in only(limits, "gte", "gt", "lte", "lt").items() if value is not None}
        dates = any(isinstance(value, str) for value in limits.values())
        given["range"] = edge.RangeDateTime(**limits) if dates else edge.RangeFloat(**limits)
    if (counts := body.get("values_count")) is not None:
        given["values_count"] = edge.ValuesCount(**counts)
    if (radius := body.get("geo_radius")) is not None:
        given["geo_radius"] = edge.GeoRadius(_geo(radius["center"]), radius["radius"])
    if (box := body.get("geo_bounding_box")) is not None:
        given["geo_bounding_box"] = edge.GeoBoundingBox(_geo(box["top_left"]), _geo(box["bottom_right"]))
    for flag in ("is_empty", "is_null"):
        if body.get(flag) is not None:
            given[flag] = body[flag]
    return edge.FieldCondition(body["key"], **given)


def _geo(body: dict[str, float]) -> edge.GeoPoint:
    return edge.GeoPoint(body["lon"], body["lat"])


_MATCHES: Mapping[str, Callable[[Any], Any]] = {
    "value": edge.MatchValue,
    "any": edge.MatchAny,
    "except": edge.MatchExcept,
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
}


def _match(body: Any) -> Any:
    given = [(key, value) for key, value in only(body, *_MATCHES).items() if value is not None]
    if len(given) != 1:
        raise Refused("A match takes exactly one of value, any, except, text, text_any and phrase.")
    key, value = given[0]
    if isinstance(value, bool):
        # The binding (0.9) turns True into 1, which matches no boolean: an answer would be silently wrong.
        raise Refused("The embedded index cannot match booleans; store a word or a number instead.")
    return _MATCHES[key](value)


def with_payload(body: Any, default: bool) -> bool | list[str] | edge.PayloadSelector:
    """Which payload fields to answer with."""
    if body is None:
        return default
    if isinstance(body, bool | list):
        return body
    selector = only(body, "include", "exclude")
    if selector.get("include") is not None:
        return edge.PayloadSelector.Include(selector["include"])
    return edge.PayloadSelector.Exclude(selector.get("exclude") or [])


def search_params(body: Any) -> edge.SearchParams:
    """How to search: unless asked otherwise, int8 with rescoring, which finds .96 of the true ten in a tenth of it."""
    asked = only(body or {}, "hnsw_ef", "exact", "quantization", "indexed_only")
    quantization = only(asked.get("quantization") or {}, "ignore", "rescore", "oversampling")
    return edge.SearchParams(
        hnsw_ef=asked.get("hnsw_ef") or 128,
        exact=bool(asked.get("exact")),
        indexed_only=bool(asked.get("indexed_only")),
        quantization=edge.QuantizationSearchParams(
            ignore=bool(quantization.get("ignore")),
            rescore=quantization.get("rescore", True) is not False,
            oversampling=quantization.get("oversampling") or 2.0,
        ),
    )


def record_json(record: edge.Record) -> dict[str, Any]:
    """A stored point as Qdrant answers it."""
    given = {"id": _id_json(record.id), "payload": record.payload, "vector": record.vector}
    return {key: value for key, value in given.items() if value is not None}


def scored_json(point: edge.ScoredPoint) -> dict[str, Any]:
    """A found point as Qdrant answers it."""
    return {**record_json(point), "version": point.version, "score": point.score}  # type: ignore[arg-type]


def _id_json(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)
