"""Qdrant's JSON to the engine's objects and back.

Plain dictionaries are read here rather than with qdrant-client's models: importing those costs half a second, and the
index process is started while somebody waits for an answer. What is not known is refused, never passed over.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import qdrant_edge as edge


class Refused(Exception):
    """A request that cannot be done as asked: an HTTP status and a sentence."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@contextmanager
def well_formed(what: str = "The request") -> Iterator[None]:
    """Whatever a body's shape makes fail in here is the request's fault.

    Raises:
        Refused: in place of that failure.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Refused(f"{what} is not well formed: {error}.") from error


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
EF = 384
"""Candidates that a search follows through the graph, unless asked otherwise: `bench/recall.py` says what it finds."""
OVERSAMPLING = 2.0
"""Of the best by int8, how many times those asked for are scored again by their floats."""
_SPARSE = 0.4
_MOST_EF = 10_000
_MOST_OVERSAMPLING = 100

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


def whole(body: dict[str, Any], key: str, *, default: int, least: int = 0, most: int) -> int:
    """A whole number of the body within bounds; `default` where it has none.

    Raises:
        Refused: it is none, or outside.
    """
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(f"{key}: a whole number from {least} to {most} is expected.")
    return value


def flag(body: dict[str, Any], key: str) -> bool:
    """A boolean of the body; false where it has none.

    Raises:
        Refused: it is something else, such as the names of vectors: there is only the one without a name.
    """
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{key}: true or false is expected.")
    return bool(value)


def vector_params(body: Any) -> tuple[int, str]:
    """The one unnamed vector of a collection: its size and distance."""
    params = only(body, "size", "distance", "on_disk")
    size, distance = whole(params, "size", default=0, least=1, most=65536), params.get("distance")
    if size == 0 or distance not in list(_DISTANCES):
        raise Refused("A vector needs a size from 1 to 65536 and a known distance.")
    return size, str(distance)


def distance_of(name: str) -> edge.Distance:
    """The engine's distance of that name."""
    return _DISTANCES[name]


def schema_of(body: Any) -> edge.PayloadSchemaType:
    """The type of a payload index."""
    kind = body.get("type") if isinstance(body, dict) else body
    if kind not in list(_SCHEMAS):
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
    """How to search: unless asked otherwise, by int8 vectors, then the best of those again by the floats.

    Where a filter passes less than `_SPARSE` of the points, yet too many to scan, the graph's neighbours of neighbours
    are followed too (ACORN), or most of it could not be reached.
    """
    asked = only(body or {}, "hnsw_ef", "exact", "quantization", "indexed_only", "acorn")
    acorn = only(asked.get("acorn") or {"enable": True}, "enable", "max_selectivity")
    quantization = only(asked.get("quantization") or {}, "ignore", "rescore", "oversampling")
    oversampling = quantization.get("oversampling") or OVERSAMPLING
    if not 1 <= oversampling <= _MOST_OVERSAMPLING:
        raise Refused(f"oversampling: a number from 1 to {_MOST_OVERSAMPLING} is expected.")
    return edge.SearchParams(
        hnsw_ef=whole(asked, "hnsw_ef", default=EF, most=_MOST_EF) or EF,
        exact=flag(asked, "exact"),
        indexed_only=flag(asked, "indexed_only"),
        quantization=edge.QuantizationSearchParams(
            ignore=flag(quantization, "ignore"),
            rescore=quantization.get("rescore", True) is not False,
            oversampling=float(oversampling),
        ),
        acorn=edge.AcornSearchParams(flag(acorn, "enable"), acorn.get("max_selectivity") or _SPARSE),
    )


def record_json(record: edge.Record) -> dict[str, Any]:
    """A stored point as Qdrant answers it."""
    given = {
        "id": id_json(record.id),
        "payload": record.payload,
        "vector": record.vector,
        "order_value": record.order_value,
    }
    return {key: value for key, value in given.items() if value is not None}


def scored_json(point: edge.ScoredPoint) -> dict[str, Any]:
    """A found point as Qdrant answers it."""
    return {**record_json(point), "version": point.version, "score": point.score}  # type: ignore[arg-type]


def id_json(value: Any) -> int | str:
    """A point's id as Qdrant answers it."""
    return value if isinstance(value, int) else str(value)
