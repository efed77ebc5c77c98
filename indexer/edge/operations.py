"""Writes: each is one JSON-able dictionary, so that it can be applied now and replayed into the next generation."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge

from indexer.edge.filters import filter_of
from indexer.edge.wire import Refused, only, point_ids, points, schema_of, well_formed

Operation = dict[str, Any]
"""`{"upsert": body}`, `{"delete": body}`, ... as in Qdrant's batch update."""


def engine_operation(operation: Operation, size: int) -> edge.UpdateOperation | None:
    """A write as the engine takes it; None if there is nothing to write.

    Raises:
        Refused: it is not well formed, or not supported.
    """
    if not isinstance(operation, dict) or len(operation) != 1:
        raise Refused("An operation is an object of one key, its kind.")
    kind, body = next(iter(operation.items()))
    make = _MAKERS.get(kind)
    if make is None:
        raise Refused(f"{kind!r} is not supported by the embedded index.")
    with well_formed():
        return make(body, size)


def _upsert(body: Any, size: int) -> edge.UpdateOperation | None:
    given = points(only(body, "points", "batch"), size)
    return edge.UpdateOperation.upsert_points(given) if given else None


def _delete(body: Any, _size: int) -> edge.UpdateOperation:
    if isinstance(body, dict) and body.get("filter") is not None:
        return edge.UpdateOperation.delete_points_by_filter(_filter(only(body, "filter")))
    return edge.UpdateOperation.delete_points(point_ids(only(body, "points").get("points")))


def _set_payload(body: Any, _size: int) -> edge.UpdateOperation:
    given = only(body, "payload", "points", "filter", "key")
    if given.get("filter") is not None:
        return edge.UpdateOperation.set_payload_by_filter(_filter(given), given["payload"], given.get("key"))
    return edge.UpdateOperation.set_payload(point_ids(given.get("points")), given["payload"], given.get("key"))


def _overwrite_payload(body: Any, _size: int) -> edge.UpdateOperation:
    given = only(body, "payload", "points", "filter")
    if given.get("filter") is not None:
        return edge.UpdateOperation.overwrite_payload_by_filter(_filter(given), given["payload"])
    return edge.UpdateOperation.overwrite_payload(point_ids(given.get("points")), given["payload"])


def _delete_payload(body: Any, _size: int) -> edge.UpdateOperation:
    given = only(body, "keys", "points", "filter")
    if given.get("filter") is not None:
        return edge.UpdateOperation.delete_payload_by_filter(_filter(given), given["keys"])
    return edge.UpdateOperation.delete_payload(point_ids(given.get("points")), given["keys"])


def _clear_payload(body: Any, _size: int) -> edge.UpdateOperation:
    given = only(body, "points", "filter")
    if given.get("filter") is not None:
        return edge.UpdateOperation.clear_payload_by_filter(_filter(given))
    return edge.UpdateOperation.clear_payload(point_ids(given.get("points")))


def _create_index(body: Any, _size: int) -> edge.UpdateOperation:
    given = only(body, "field_name", "field_schema")
    return edge.UpdateOperation.create_field_index(given["field_name"], schema_of(given.get("field_schema")))


def _delete_index(body: Any, _size: int) -> edge.UpdateOperation:
    return edge.UpdateOperation.delete_field_index(only(body, "field_name")["field_name"])


def _filter(body: dict[str, Any]) -> edge.Filter:
    return filter_of(body["filter"]) or edge.Filter()


_MAKERS = {
    "upsert": _upsert,
    "delete": _delete,
    "set_payload": _set_payload,
    "overwrite_payload": _overwrite_payload,
    "delete_payload": _delete_payload,
    "clear_payload": _clear_payload,
    "create_index": _create_index,
    "delete_index": _delete_index,
}
