"""One connection to the index, embedded or a server, that outlives the process behind it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from json import JSONDecodeError
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import httpx
import structlog
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from indexer.edge.client import Attached
from indexer.errors import CollectionNotFound, IndexUnavailable, InvalidRequest, InvalidVector, VectorIndexError
from indexer.settings import Settings
from indexer.store.lean import LeanClient

_PAUSES = (0.1, 0.5, 2.0, 5.0)
"""Seconds before each further try: with ids for points, writing twice is writing once."""
_TRY_AGAIN = (429, 502, 503, 504)
"""HTTP: too many requests, and a server or a proxy before it that is not ready."""
_LONGEST_PAUSE = 30
"""Seconds; a server that limits its clients' rate may ask for this much between two tries."""
_TIMEOUT_SECONDS = 120
_GRPC_OPTIONS = {"grpc.max_reconnect_backoff_ms": 2_000}
"""By default gRPC waits up to two minutes before it looks whether a server is back."""
_FAILURES = (ApiException, ResourceExhaustedResponse, grpc.RpcError, JSONDecodeError)
"""What the client raises where the other side does not do as it was asked."""
_log = structlog.get_logger("store")

Answer = TypeVar("Answer")


class Connection:
    """Runs calls of a `QdrantClient`; finds the embedded index process again should it have died.

    It is to the embedded index, by a lease on it, or to the Qdrant server that settings name.
    """

    def __init__(self, to: Attached | Settings) -> None:
        self._to = to
        self._closed = False
        self._client = self._connect()

    def call(self, work: Callable[[QdrantClient], Answer]) -> Answer:
        """The answer of `work`, tried again while the index does not answer.

        Raises:
            CollectionNotFound, InvalidRequest, InvalidVector: the index refuses it.
            IndexUnavailable: it does not answer, has no capacity, or cannot write; or this is closed, maybe meanwhile.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                return work(self._client)
            except (*_FAILURES, RuntimeError) as error:
                if self._closed:
                    raise _closed() from error
                if not isinstance(error, _FAILURES):
                    raise
                if (refusal := _refusal(error)) is not None:
                    raise refusal from error
                pause = next(pauses, None)
                if pause is None:
                    raise self._unavailable(error) from error
                _log.warning("the index does not answer; trying again", reason=_sentence(error)[:200])
                time.sleep(max(pause, _pause_asked_for(error)))
                self._reconnect()

    def close(self) -> None:
        """Close the connection and give up the lease; calls that go on in other threads fail."""
        self._closed = True
        self._client.close()
        if isinstance(self._to, Attached):
            self._to.close()

    def _unavailable(self, trouble: Exception) -> IndexUnavailable:
        reason = _sentence(trouble).rstrip(".")
        if _is_exhausted(trouble):
            return IndexUnavailable(
                f"The index has no capacity left: {reason}.",
                remedy="Send less at a time, or give the server more memory or higher rate limits.",
            )
        return IndexUnavailable(f"The index does not answer: {reason}.", remedy=self._remedy())

    def _remedy(self) -> str | None:
        if isinstance(self._to, Attached):
            return None
        remedy = f"Check that a Qdrant server runs at CROSSLENS_QDRANT_URL ({self._to.qdrant_url})"
        if self._to.qdrant_prefer_grpc:
            port = self._to.qdrant_grpc_port
            remedy += f" and that its gRPC port {port} can be reached; CROSSLENS_QDRANT_PREFER_GRPC=0 does without it"
        return f"{remedy}."

    def _reconnect(self) -> None:
        if self._closed:
            raise _closed()
        if isinstance(self._to, Attached):  # else the client itself looks whether the server is back
            self._client.close()
            self._client = self._connect()

    def _connect(self) -> QdrantClient:
        options: dict[str, Any] = {
            "check_compatibility": False,  # `check_version` does it, with a sentence in place of a warning
            # The client would open an HTTP connection for each call to this machine.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=16),
        }
        with warnings.catch_warnings():
            # The key of the embedded index goes over loopback alone; a server's user chose the URL.
            warnings.filterwarnings("ignore", message=".*insecure connection.*")
            if isinstance(self._to, Attached):
                self._to.connect()
                return LeanClient(self._to.url, self._to.direct, self._to.secret, timeout=_TIMEOUT_SECONDS, **options)
            return QdrantClient(
                url=self._to.qdrant_url,
                api_key=self._to.qdrant_api_key,
                timeout=self._to.qdrant_timeout,
                prefer_grpc=self._to.qdrant_prefer_grpc,
                grpc_port=self._to.qdrant_grpc_port,
                grpc_options=dict(_GRPC_OPTIONS),  # the client adds to it
                **options,
            )


def _closed() -> IndexUnavailable:
    return IndexUnavailable("The connection to the index was closed.", remedy="Ask again.")


def _refusal(error: Exception) -> VectorIndexError | InvalidRequest | None:
    """What the caller gets for a failed call; None where it should be tried again."""
    match error:
        case UnexpectedResponse() if error.status_code in _TRY_AGAIN:
            return None
        case UnexpectedResponse():
            return _http_refusal(error)
        case JSONDecodeError() | ResponseHandlingException(source=ValidationError()):
            return IndexUnavailable(
                "What answers is not Qdrant, or a version of it that this client cannot read.",
                remedy="Check CROSSLENS_QDRANT_URL: it is the address of a Qdrant server's HTTP API.",
            )
        case grpc.RpcError():
            return _grpc_refusal(error)
        case _:
            return None


def _http_refusal(error: UnexpectedResponse) -> VectorIndexError | InvalidRequest:
    message = _sentence(error)
    match error.status_code:
        case 404:
            return CollectionNotFound(message)
        case 401 | 403:
            return _no_key(message)
        case 422:
            return InvalidVector(message)
        case 507:
            return IndexUnavailable(message, remedy="Make room on the disk of the data folder, then try again.")
        case status if status is not None and 400 <= status < 500:
            return _invalid(message)
        case _:
            return IndexUnavailable(message)


def _grpc_refusal(error: grpc.RpcError) -> VectorIndexError | InvalidRequest | None:
    message, code = _sentence(error), grpc.StatusCode
    match error.code():
        case code.UNAVAILABLE | code.DEADLINE_EXCEEDED | code.RESOURCE_EXHAUSTED:
            return None
        case code.NOT_FOUND:
            return CollectionNotFound(message)
        case code.UNAUTHENTICATED | code.PERMISSION_DENIED:
            return _no_key(message)
        case code.INVALID_ARGUMENT | code.ALREADY_EXISTS | code.FAILED_PRECONDITION | code.OUT_OF_RANGE:
            return _invalid(message)
        case _:
            return IndexUnavailable(message)


def _no_key(message: str) -> IndexUnavailable:
    return IndexUnavailable(message, remedy="Set CROSSLENS_QDRANT_API_KEY to a key that may read and write.")


def _invalid(message: str) -> InvalidRequest:
    if "Index required but not found" in message:  # strict mode: a filter over a field without a payload index
        return InvalidRequest(
            message,
            remedy="Leave the field out of the filter, or index it first, as with PUT /collections/NAME/index "
            '{"field_name": FIELD, "field_schema": "keyword"} on the Qdrant server.',
        )
    return InvalidRequest(message)


def _is_exhausted(error: Exception) -> bool:
    """Whether the server answers, but has no capacity for this client."""
    match error:
        case ResourceExhaustedResponse():
            return True
        case UnexpectedResponse():
            return error.status_code == 429
        case grpc.RpcError():
            return bool(error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
        case _:
            return False


def _sentence(error: Exception) -> str:
    """What the index itself said, where it said something."""
    if isinstance(error, UnexpectedResponse):
        try:
            return str(error.structured()["status"]["error"])
        except (ValueError, KeyError, TypeError):
            return str(error)
    if isinstance(error, grpc.RpcError):
        return str(error.details() or error.code())
    if isinstance(error, ResponseHandlingException):
        return str(error.source) or type(error.source).__name__
    return str(error)


def _pause_asked_for(error: Exception) -> float:
    """Seconds that a server which limits its clients' rate wants to pass before the next try."""
    asked = error.retry_after_s if isinstance(error, ResourceExhaustedResponse) else 0
    return float(min(max(asked, 0), _LONGEST_PAUSE))
