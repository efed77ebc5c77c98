"""The part of Qdrant's HTTP API that Crosslens uses, over the embedded engine.

What it answers is what a Qdrant server answers, so that the unmodified `qdrant-client` speaks to both. What it does
not know it refuses with a sentence, never ignores.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Any

import qdrant_edge as edge
from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from indexer.edge.catalog import Catalog
from indexer.edge.generations import EdgeCollection
from indexer.edge.wire import (
    PointId,
    Refused,
    filter_of,
    only,
    point_id,
    point_ids,
    record_json,
    schema_of,
    scored_json,
    search_params,
    vector_params,
    vectors,
    with_payload,
)

VERSION = "1.16.0"
"""The Qdrant version whose API this is a part of."""

_MAX_BODY = 256 * 2**20
_MAX_LIMIT = 100_000


def create_app(catalog: Catalog, secret: str) -> Flask:
    """The API over a catalog of collections; every request must carry the secret as its `api-key`."""
    app = Flask("index", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.before_request
    def check_secret() -> Response | None:
        g.started = time.perf_counter()
        given = request.headers.get("api-key", "")
        if not hmac.compare_digest(given.encode(), secret.encode()):
            return _error("Must provide an API key or an Authorization bearer token", 401)
        return None

    app.register_error_handler(Refused, lambda error: _error(error.message, error.status))
    app.register_error_handler(HTTPException, lambda error: _error(error.description or "", error.code or 500))
    app.register_error_handler(OSError, lambda error: _error(f"The index cannot write: {error.strerror}.", 507))
    _add_collection_routes(app, catalog)
    _add_write_routes(app, catalog)
    _add_read_routes(app, catalog)
    return app


def _add_collection_routes(app: Flask, catalog: Catalog) -> None:
    @app.get("/")
    def version() -> Response:
        return jsonify({"title": "qdrant - vector search engine", "version": VERSION, "commit": "embedded"})

    @app.get("/collections")
    def list_collections() -> Response:
        return _result({"collections": [{"name": name} for name in catalog.names()]})

    @app.get("/collections/<name>/exists")
    def exists(name: str) -> Response:
        return _result({"exists": name in catalog.names()})

    @app.put("/collections/<name>")
    def create(name: str) -> Response:
        body = only(_body(), "vectors", "metadata")
        size, distance = vector_params(body.get("vectors"))
        catalog.create(name, size=size, distance=distance, metadata=body.get("metadata") or {})
        return _result(True)

    @app.delete("/collections/<name>")
    def delete(name: str) -> Response:
        return _result(catalog.delete(name))

    @app.get("/collections/<name>")
    def info(name: str) -> Response:
        return _result(_info(catalog.get(name)))

    @app.post("/collections/<name>/optimize")  # ours alone: benchmarks and tests ask for a build and wait for it
    def optimize(name: str) -> Response:
        if (builder := catalog.get(name).build()) is not None:
            builder.join()
        return _result(True)


def _add_write_routes(app: Flask, catalog: Catalog) -> None:
    def write(name: str, *operations: dict[str, Any]) -> Response:
        catalog.get(name).write(list(operations))
        return _result({"operation_id": 0, "status": "completed"})

    def route(rule: str, method: str, kind: str) -> None:
        def view(name: str) -> Response:
            return write(name, {kind: _body()})

        app.add_url_rule(f"/collections/<name>{rule}", f"points {kind}", view, methods=[method])

    route("/points", "PUT", "upsert")
    route("/points/delete", "POST", "delete")
    route("/points/payload", "POST", "set_payload")
    route("/points/payload", "PUT", "overwrite_payload")
    route("/points/payload/delete", "POST", "delete_payload")
    route("/points/payload/clear", "POST", "clear_payload")

    @app.put("/collections/<name>/index")
    def create_index(name: str) -> Response:
        body = _body()
        schema_of(only(body, "field_name", "field_schema").get("field_schema"))
        return write(name, {"create_index": body})

    @app.delete("/collections/<name>/index/<path:field>")
    def delete_index(name: str, field: str) -> Response:
        return write(name, {"delete_index": {"field_name": field}})

    @app.post("/collections/<name>/points/batch")
    def batch(name: str) -> Response:
        operations = only(_body(), "operations").get("operations") or []
        catalog.get(name).write(operations)
        return _result([{"operation_id": 0, "status": "completed"} for _ in operations])


def _add_read_routes(app: Flask, catalog: Catalog) -> None:
    def route(rule: str, answer: Callable[[EdgeCollection, dict[str, Any]], Any]) -> None:
        def view(name: str) -> Response:
            try:
                return _result(answer(catalog.get(name), _body()))
            except (TypeError, ValueError, KeyError, OverflowError) as error:
                raise Refused(f"The request is not well formed: {error}.") from error

        app.add_url_rule(f"/collections/<name>{rule}", answer.__name__, view, methods=["POST"])

    for rule, answer in {
        "/points": _retrieve,
        "/points/scroll": _scroll,
        "/points/count": _count,
        "/points/query": _query,
        "/points/query/batch": _query_batch,
        "/facet": _facet,
    }.items():
        route(rule, answer)


def _info(collection: EdgeCollection) -> dict[str, Any]:
    info = collection.read(lambda shard: shard.info())
    described = collection.description
    return {
        "status": "green",
        "optimizer_status": "ok",
        "points_count": info.points_count,
        "indexed_vectors_count": info.indexed_vectors_count,
        "segments_count": info.segments_count,
        "config": {
            "params": {"vectors": {"size": described["size"], "distance": described["distance"]}},
            "hnsw_config": {"m": 16, "ef_construct": 128, "full_scan_threshold": 1000},
            "optimizer_config": {
                "deleted_threshold": 0.1,
                "vacuum_min_vector_number": 100,
                "default_segment_number": 1,
                "flush_interval_sec": 0,
            },
            "metadata": described["metadata"],
        },
        "payload_schema": {
            field: {"data_type": schema if isinstance(schema, str) else schema["type"], "points": info.points_count}
            for field, schema in described["indexes"].items()
        },
    }


def _retrieve(collection: EdgeCollection, body: dict[str, Any]) -> Any:
    only(body, "ids", "with_payload", "with_vector")
    ids = point_ids(body.get("ids"))
    selected = with_payload(body.get("with_payload"), default=True)
    records = collection.read(lambda shard: shard.retrieve(ids, selected, bool(body.get("with_vector"))))
    return [record_json(record) for record in records]


def _scroll(collection: EdgeCollection, body: dict[str, Any]) -> Any:
    only(body, "filter", "limit", "offset", "with_payload", "with_vector")
    offset = body.get("offset")
    asked = edge.ScrollRequest(
        offset=None if offset is None else point_id(offset),
        limit=_limit(body),
        filter=filter_of(body.get("filter")),
        with_payload=with_payload(body.get("with_payload"), default=True),
        with_vector=bool(body.get("with_vector")),
    )
    records, following = collection.read(lambda shard: shard.scroll(asked))
    following = following if following is None or isinstance(following, int) else str(following)
    return {"points": [record_json(record) for record in records], "next_page_offset": following}


def _count(collection: EdgeCollection, body: dict[str, Any]) -> Any:
    only(body, "filter", "exact")
    asked = edge.CountRequest(exact=body.get("exact") is not False, filter=filter_of(body.get("filter")))
    return {"count": collection.read(lambda shard: shard.count(asked))}


def _query(collection: EdgeCollection, body: dict[str, Any]) -> Any:
    only(body, "query", "filter", "limit", "offset", "with_payload", "with_vector", "score_threshold", "params")
    wanted, example = _nearest(collection, body.get("query"))
    among = filter_of(body.get("filter"))
    if example is not None:  # the example itself is no answer
        others = edge.Filter(must_not=[edge.HasIdCondition({example})])
        among = others if among is None else edge.Filter(must=[among, others])
    asked = edge.QueryRequest(
        limit=_limit(body),
        offset=int(body.get("offset") or 0),
        query=wanted,
        filter=among,
        with_payload=with_payload(body.get("with_payload"), default=False),
        with_vector=bool(body.get("with_vector")),
        score_threshold=body.get("score_threshold"),
        params=search_params(body.get("params")),
    )
    return {"points": [scored_json(point) for point in collection.read(lambda shard: shard.query(asked))]}


def _query_batch(collection: EdgeCollection, body: dict[str, Any]) -> Any:
    return [_query(collection, each) for each in only(body, "searches").get("searches") or []]


def _nearest(collection: EdgeCollection, query: Any) -> tuple[edge.Query | None, PointId | None]:
    """The query vector; and, where the query is a stored point, its id."""
    if isinstance(query, dict):
        query = only(query, "nearest").get("nearest")
    if query is None:
        return None, None
    if isinstance(query, list):
        return edge.Query.Nearest(vectors([query], collection.size)[0]), None
    example = point_id(query)
    found = collection.read(lambda shard: shard.retrieve([example], False, True))
    if not found:
        raise Refused(f"Not found: No point with id {example} found", 404)
    return edge.Query.Nearest(found[0].vector), example  # type: ignore[arg-type]


def _facet(collection: EdgeCollection, body: dict[str, Any]) -> Any:
    only(body, "key", "limit", "filter", "exact")
    asked = edge.FacetRequest(body["key"], _limit(body), bool(body.get("exact")), filter_of(body.get("filter")))
    hits = collection.read(lambda shard: shard.facet(asked))
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in hits]}


def _limit(body: dict[str, Any]) -> int:
    limit = body.get("limit")
    if limit is None:
        return 10
    if not isinstance(limit, int) or not 1 <= limit <= _MAX_LIMIT:
        raise Refused(f"limit: a number from 1 to {_MAX_LIMIT} is expected.")
    return limit


def _body() -> Any:
    body = request.get_json(force=True, silent=True)
    if body is None:
        raise Refused("The body is no JSON.")
    return body


def _result(result: Any) -> Response:
    return jsonify({"result": result, "status": "ok", "time": time.perf_counter() - g.started})


def _error(message: str, status: int) -> Response:
    response = jsonify({"status": {"error": message}, "time": 0.0})
    response.status_code = status
    return response
