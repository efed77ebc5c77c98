"""A Qdrant server as far as its protocols go: HTTP and gRPC in front, the embedded index behind.

Requests are recorded. Those that were scripted get their answer; the rest goes to the embedded index, without what
only a server takes, which is checked against qdrant-client's own models and remembered. gRPC is turned into HTTP by
qdrant-client's own conversions, so both protocols are recorded and scripted alike.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http.exceptions import UnexpectedResponse

from indexer.edge.client import Attached, attach
from indexer.settings import Settings

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""As Qdrant has them (src/tonic/mod.rs and its HTTP errors)."""


@dataclass
class Request:
    """What came."""

    method: str
    path: str
    body: Any


@dataclass
class Answer:
    """What a scripted request gets: `status`, and Qdrant's error of that text or another body."""

    method: str
    path: str
    status: int
    error: str = "scripted"
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


class FakeQdrant:
    """The server; `url` and `grpc_port` once it runs."""

    def __init__(self, attached: Attached) -> None:
        self._behind = httpx.Client(base_url=attached.url, headers={"api-key": attached.secret}, timeout=60)
        self.url = ""
        self.grpc_port = 0
        self.version = ""
        self.requests: list[Request] = []
        self.script: list[Answer] = []
        self.made: dict[str, dict[str, Any]] = {}
        """Bodies that collections were created with."""
        self.reset()

    def reset(self) -> None:
        """Forget what was; remove all collections."""
        for each in self._forward("GET", "/collections", None)[1]["result"]["collections"]:
            self._forward("DELETE", f"/collections/{each['name']}", None)
        self.version = "1.16.3"
        for each in (self.requests, self.script, self.made):
            each.clear()

    def sent(self, method: str, ending: str) -> list[Any]:
        """The bodies of the requests of a method to paths that end so."""
        return [each.body for each in self.requests if each.method == method and each.path.endswith(ending)]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers for a request."""
        self.requests.append(Request(method, path, body))
        for scripted in self.script:
            if scripted.times and (scripted.method, scripted.path) == (method, path):
                scripted.times -= 1
                error = {"status": {"error": scripted.error}, "time": 0.0}
                return scripted.status, error if scripted.body is None else scripted.body, scripted.headers
        if path == "/":
            return 200, {"title": "qdrant - vector search engine", "version": self.version}, {}
        name = path.split("/")[2] if path.startswith("/collections/") else ""
        if method == "PUT" and path == f"/collections/{name}":
            models.CreateCollection.model_validate(body)
            status, answer = self._forward(method, path, _taken_by_the_embedded_index(body))
            if status == 200:
                self.made[name] = body
            return status, answer, {}
        if refusal := self._strict(name, body):
            return 400, {"status": {"error": refusal}, "time": 0.0}, {}
        status, answer = self._forward(method, path, body)
        if method == "GET" and path == f"/collections/{name}" and status == 200:
            self._add_what_was_asked_for(answer["result"]["config"], self.made.get(name, {}))
        return status, answer, {}

    def _forward(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        answer = self._behind.request(method, path, json=body)
        return answer.status_code, answer.json()

    def _add_what_was_asked_for(self, config: dict[str, Any], made: dict[str, Any]) -> None:
        for key in ("shard_number", "replication_factor", "write_consistency_factor"):
            config["params"][key] = made.get(key) or 1
        config["wal_config"] = {"wal_capacity_mb": 32, "wal_segments_ahead": 0}
        config["quantization_config"] = made.get("quantization_config")
        config["strict_mode_config"] = made.get("strict_mode_config")

    def _strict(self, name: str, body: Any) -> str | None:
        strict = self.made.get(name, {}).get("strict_mode_config") or {}
        asked = body.get("searches", [body]) if isinstance(body, dict) else []
        filters = [each["filter"] for each in asked if each.get("filter")]
        if not filters or strict.get("unindexed_filtering_retrieve") is not False:
            return None
        schema = self._forward("GET", f"/collections/{name}", None)[1]["result"]["payload_schema"]
        for key in _keys(filters):
            if key not in schema:
                return (
                    f'Bad request: Index required but not found for "{key}" of one of the following types: [keyword]. '
                    "Help: Create an index for this key or use a different filter."
                )
        return None


def _taken_by_the_embedded_index(body: dict[str, Any]) -> dict[str, Any]:
    vectors = {key: body["vectors"][key] for key in ("size", "distance")}
    return {"vectors": vectors, "metadata": body.get("metadata")}


def _keys(condition: Any) -> Iterator[str]:
    if isinstance(condition, dict):
        if "key" in condition:
            yield condition["key"]
        for value in condition.values():
            yield from _keys(value)
    elif isinstance(condition, list):
        for each in condition:
            yield from _keys(each)


def _handler(fake: FakeQdrant) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.split("?")[0]
            status, body, headers = fake.answer(self.command, path, json.loads(content) if content else None)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _answer

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


def _rpc(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """A gRPC method that does something with the HTTP client, with its failures as Qdrant's codes."""

    def method(self: Any, request: Any, context: Any) -> Any:
        try:
            return work(self.http, request)
        except UnexpectedResponse as error:
            code = CODES.get(error.status_code or 500, grpc.StatusCode.INTERNAL)
            context.abort(code, str(error.structured()["status"]["error"]))
        except ResourceExhaustedResponse as error:
            context.set_trailing_metadata([("retry-after", str(error.retry_after_s))])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    return method


def _create(http: QdrantClient, request: Any) -> Any:
    optional = {
        key: getattr(request, key)
        for key in ("shard_number", "replication_factor", "write_consistency_factor", "quantization_config")
        if request.HasField(key)
    }
    http.create_collection(
        request.collection_name,
        vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
        strict_mode_config=GrpcToRest.convert_strict_mode_config(request.strict_mode_config),
        metadata=GrpcToRest.convert_payload(request.metadata),
        **optional,
    )
    return messages.CollectionOperationResponse(result=True)


def _list(http: QdrantClient, _request: Any) -> Any:
    names = [each.name for each in http.get_collections().collections]
    return messages.ListCollectionsResponse(collections=[messages.CollectionDescription(name=name) for name in names])


def _written(work: Callable[[QdrantClient, Any], Any]) -> Callable[[QdrantClient, Any], Any]:
    def write(http: QdrantClient, request: Any) -> Any:
        work(http, request)
        return messages.PointsOperationResponse(result=messages.UpdateResult(status=messages.UpdateStatus.Completed))

    return write


def _scroll(http: QdrantClient, request: Any) -> Any:
    records, offset = http.scroll(
        request.collection_name,
        scroll_filter=request.filter if request.HasField("filter") else None,
        limit=request.limit,
        offset=request.offset if request.HasField("offset") else None,
        with_payload=request.with_payload,
        with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
    )
    following = None if offset is None else RestToGrpc.convert_extended_point_id(offset)
    return messages.ScrollResponse(result=map(_record, records), next_page_offset=following)


def _record(record: models.Record) -> Any:
    return RestToGrpc.convert_record(record.model_copy(update={"payload": record.payload or {}}))


class _Root(messages.QdrantServicer):
    HealthCheck = _rpc(lambda http, _: messages.HealthCheckReply(title="qdrant", version=http.info().version))


class _Collections(messages.CollectionsServicer):
    Create = _rpc(_create)
    List = _rpc(_list)
    Get = _rpc(
        lambda http, request: messages.GetCollectionInfoResponse(
            result=RestToGrpc.convert_collection_info(http.get_collection(request.collection_name))
        )
    )
    Delete = _rpc(
        lambda http, request: messages.CollectionOperationResponse(
            result=http.delete_collection(request.collection_name)
        )
    )


class _Points(messages.PointsServicer):
    CreateFieldIndex = _rpc(
        _written(
            lambda http, request: http.create_payload_index(
                request.collection_name,
                request.field_name,
                field_schema=models.PayloadSchemaType(messages.FieldType.Name(request.field_type)[9:].lower()),
            )
        )
    )
    Upsert = _rpc(
        _written(
            lambda http, request: http.upsert(
                request.collection_name, [GrpcToRest.convert_point_struct(each) for each in request.points]
            )
        )
    )
    Delete = _rpc(_written(lambda http, request: http.delete(request.collection_name, request.points)))
    OverwritePayload = _rpc(
        _written(
            lambda http, request: http.overwrite_payload(
                request.collection_name, GrpcToRest.convert_payload(request.payload), request.points_selector
            )
        )
    )
    SetPayload = _rpc(
        _written(
            lambda http, request: http.set_payload(
                request.collection_name, GrpcToRest.convert_payload(request.payload), request.points_selector
            )
        )
    )
    DeletePayload = _rpc(
        _written(
            lambda http, request: http.delete_payload(
                request.collection_name, list(request.keys), request.points_selector
            )
        )
    )
    Count = _rpc(
        lambda http, request: messages.CountResponse(
            result=messages.CountResult(count=http.count(request.collection_name, exact=request.exact).count)
        )
    )
    Get = _rpc(
        lambda http, request: messages.GetResponse(
            result=map(
                _record,
                http.retrieve(
                    request.collection_name,
                    list(request.ids),
                    with_payload=request.with_payload,
                    with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
                ),
            )
        )
    )
    Scroll = _rpc(_scroll)
    QueryBatch = _rpc(
        lambda http, request: messages.QueryBatchResponse(
            result=[
                messages.BatchResult(result=map(RestToGrpc.convert_scored_point, answer.points))
                for answer in http.query_batch_points(
                    request.collection_name, [GrpcToRest.convert_query_points(each) for each in request.query_points]
                )
            ]
        )
    )


@contextmanager
def fake_qdrant(settings: Settings) -> Iterator[FakeQdrant]:
    """A running fake over the settings' data folder."""
    attached = attach(settings)
    attached.connect()
    fake = FakeQdrant(attached)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    http = QdrantClient(url=fake.url, check_compatibility=False)
    rpc = grpc.server(futures.ThreadPoolExecutor(4))
    for servicer, add in (
        (_Root(), messages.add_QdrantServicer_to_server),
        (_Collections(), messages.add_CollectionsServicer_to_server),
        (_Points(), messages.add_PointsServicer_to_server),
    ):
        servicer.http = http  # type: ignore[attr-defined]
        add(servicer, rpc)
    fake.grpc_port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    try:
        yield fake
    finally:
        rpc.stop(None).wait()
        http.close()
        server.shutdown()
        server.server_close()
        attached.close()
