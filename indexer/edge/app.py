"""The part of Qdrant's HTTP API that Crosslens uses, over the embedded engine.

What it answers is what a Qdrant server answers, so that the unmodified `qdrant-client` speaks to both. What it does
not know it refuses with a sentence, never ignores.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from indexer.edge import questions
from indexer.edge.build import EF_CONSTRUCT, M, scanned_kb
from indexer.edge.catalog import Catalog
from indexer.edge.generations import EdgeCollection
from indexer.edge.groups import query_groups
from indexer.edge.wire import Refused, only, schema_of, vector_params, well_formed

VERSION = "1.16.0"
"""The Qdrant version whose API this is a part of."""

_MAX_BODY = 256 * 2**20


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
        return _result({"exists": name in catalog})

    @app.put("/collections/<name>")
    def create(name: str) -> Response:
        body = only(_body(), "vectors", "metadata")
        with well_formed():
            size, distance = vector_params(body.get("vectors"))
            metadata = body.get("metadata") or {}
            json.dumps(only(metadata, *metadata), ensure_ascii=False).encode()  # else it could not be kept in a file
        catalog.create(name, size=size, distance=distance, metadata=metadata)
        return _result(True)

    @app.delete("/collections/<name>")
    def delete(name: str) -> Response:
        return _result(catalog.delete(name))

    @app.patch("/collections/<name>")
    def update(name: str) -> Response:
        with well_formed():
            metadata = only(_body(), "metadata")["metadata"]
            json.dumps(only(metadata, *metadata), ensure_ascii=False).encode()
        catalog.get(name).annotate(metadata)
        return _result(True)

    @app.get("/collections/<name>")
    def info(name: str) -> Response:
        return _result(_info(catalog.get(name)))

    @app.post("/collections/aliases")
    def change_aliases() -> Response:
        catalog.change_aliases(only(_body(), "actions").get("actions"))
        return _result(True)

    @app.get("/aliases")
    def list_aliases() -> Response:
        return _result({"aliases": catalog.aliases()})

    @app.get("/collections/<name>/aliases")
    def aliases_of(name: str) -> Response:
        return _result({"aliases": catalog.aliases(name)})

    @app.post("/collections/<name>/optimize")  # ours alone: benchmarks and tests ask for a build and wait for it
    def optimize(name: str) -> Response:
        catalog.get(name).build_all()
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
        with well_formed():
            operations = list(only(_body(), "operations").get("operations") or [])
        catalog.get(name).write(operations)
        return _result([{"operation_id": 0, "status": "completed"} for _ in operations])


def _add_read_routes(app: Flask, catalog: Catalog) -> None:
    def route(rule: str, answer: Callable[[EdgeCollection, dict[str, Any]], Any]) -> None:
        def view(name: str) -> Response:
            collection, body = catalog.get(name), _body()
            with well_formed():
                return _result(answer(collection, body))

        app.add_url_rule(f"/collections/<name>{rule}", rule, view, methods=["POST"])

    route("/points", questions.retrieve)
    route("/points/scroll", questions.scroll)
    route("/points/count", questions.count)
    route("/points/query", questions.query)
    route("/points/query/batch", questions.query_batch)
    route("/points/query/groups", query_groups)
    route("/facet", questions.facet)


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
            "hnsw_config": {
                "m": M,
                "ef_construct": EF_CONSTRUCT,
                "full_scan_threshold": scanned_kb(described["size"]),
                "payload_m": 0,
            },
            "optimizer_config": {
                "deleted_threshold": 0.1,
                "vacuum_min_vector_number": 100,
                "default_segment_number": 1,
                "flush_interval_sec": 5,
            },
            "metadata": described["metadata"],
        },
        "payload_schema": {
            field: {"data_type": schema if isinstance(schema, str) else schema["type"], "points": info.points_count}
            for field, schema in described["indexes"].items()
        },
    }


def _body() -> Any:
    try:
        return json.loads(request.get_data(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The body is no JSON: {error}.") from error


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _result(result: Any) -> Response:
    return jsonify({"result": result, "status": "ok", "time": time.perf_counter() - g.started})


def _error(message: str, status: int) -> Response:
    response = jsonify({"status": {"error": message}, "time": 0.0})
    response.status_code = status
    return response
