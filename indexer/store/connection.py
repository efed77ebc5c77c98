"""One connection to the index, embedded or a server, that outlives the process behind it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TypeVar

import httpx
import structlog
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from indexer.edge.client import Attached
from indexer.errors import CollectionNotFound, IndexUnavailable, InvalidRequest, InvalidVector, VectorIndexError

_PAUSES = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Seconds before each further try: with ids for points, writing twice is writing once."""
_TIMEOUT_SECONDS = 120
_log = structlog.get_logger("store")

Answer = TypeVar("Answer")


class Connection:
    """Runs calls of an unmodified `QdrantClient`; finds the embedded index process again should it have died.

    `attached` is a lease on the embedded index; without one, `url` and `api_key` are a Qdrant server's.
    """

    def __init__(self, *, attached: Attached | None = None, url: str | None = None, api_key: str | None = None) -> None:
        self._attached = attached
        self._url = url
        self._api_key = api_key
        self._client = self._connect()

    def call(self, work: Callable[[QdrantClient], Answer]) -> Answer:
        """The answer of `work`, tried again while the index does not answer.

        Raises:
            CollectionNotFound, InvalidRequest, InvalidVector: the index refuses it.
            IndexUnavailable: it does not answer, or cannot write.
        """
        trouble: Exception | None = None
        for pause in _PAUSES:
            if trouble is not None:
                time.sleep(pause)
                _log.warning("the index does not answer; trying again", reason=str(trouble)[:200])
                self._reconnect()
            try:
                return work(self._client)
            except UnexpectedResponse as error:
                raise _refusal(error) from error
            except ResponseHandlingException as error:
                trouble = error
        raise IndexUnavailable(f"The index does not answer: {trouble}.") from trouble

    def close(self) -> None:
        """Close the connection and give up the lease."""
        self._client.close()
        if self._attached is not None:
            self._attached.close()

    def _reconnect(self) -> None:
        if self._attached is not None:
            self._client.close()
            self._client = self._connect()

    def _connect(self) -> QdrantClient:
        if self._attached is not None:
            self._attached.connect()
            self._url, self._api_key = self._attached.url, self._attached.secret
        with warnings.catch_warnings():
            # The key of the embedded index goes over loopback alone; a server's user chose the URL.
            warnings.filterwarnings("ignore", message=".*insecure connection.*")
            return QdrantClient(
                url=self._url,
                api_key=self._api_key,
                timeout=_TIMEOUT_SECONDS,
                check_compatibility=False,
                # The client would open a connection for each call to this machine.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            )


def _refusal(error: UnexpectedResponse) -> VectorIndexError | InvalidRequest:
    try:
        message = str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        message = str(error)
    match error.status_code:
        case 404:
            return CollectionNotFound(message)
        case 422:
            return InvalidVector(message)
        case 507:
            return IndexUnavailable(message, remedy="Make room on the disk of the data folder, then try again.")
        case status if status is not None and 400 <= status < 500:
            return InvalidRequest(message)
        case _:
            return IndexUnavailable(message)
