"""Searches and reads of the embedded index at a third of what they cost the unmodified client.

`QdrantClient` copies every request deeply, looks through it for texts to embed, validates each float of a vector
against all that it can be, and sends it with an HTTP client in pure Python: measured 2.2 ms of processor time a search,
of which the index itself needs 0.7. Searches come hundreds of times a second, items by the million, and both from our
own code alone, so they are sent as they are, over `indexer.edge.direct`. All other calls, and all to a Qdrant server,
are the client's own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from weakref import WeakSet

import httpx
import numpy as np
import pydantic_core
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from indexer.edge.frames import REFUSAL, connect, hang_up


class _Found(NamedTuple):
    """What is read of a `ScoredPoint`."""

    id: str | int
    version: int
    score: float
    payload: dict[str, Any] | None = None
    vector: list[float] | None = None


class _Record(NamedTuple):
    """What is read of a `Record`."""

    id: str | int
    payload: dict[str, Any] | None = None
    vector: list[float] | None = None
    order_value: float | None = None


class _Answer(NamedTuple):
    """What is read of a `QueryResponse`."""

    points: list[_Found]


class LeanClient(QdrantClient):
    """A client of the embedded index process, by its address on loopback and its secret. Thread-safe."""

    def __init__(self, url: str, direct: int, secret: str, *, timeout: int, **options: Any) -> None:
        """`direct` is the port for questions without HTTP."""
        super().__init__(url=url, api_key=secret, timeout=timeout, **options)
        self._direct = _Direct(direct, secret.encode(), timeout)

    def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[models.QueryRequest],
        consistency: Any = None,  # noqa: ARG002  there is one process
        timeout: int | None = None,  # noqa: ARG002  that of the connection
        **_: Any,
    ) -> list[Any]:
        """As `QdrantClient.query_batch_points`, for queries by vector; its answers are bare, not validated."""
        answers = self._ask(collection_name, "query", {"searches": requests})
        return [_Answer([_Found(**point) for point in answer["points"]]) for answer in answers]

    def retrieve(  # type: ignore[override]
        self,
        collection_name: str,
        ids: Sequence[models.ExtendedPointId],
        with_payload: Any = True,
        with_vectors: Any = False,
        **_: Any,
    ) -> list[Any]:
        """As `QdrantClient.retrieve`, not validated."""
        body = {"ids": ids, "with_payload": with_payload, "with_vector": with_vectors}
        return [_Record(**record) for record in self._ask(collection_name, "retrieve", body)]

    def vectors(self, collection_name: str, ids: Sequence[str]) -> NDArray[np.float32]:
        """Vectors by their points' ids, float32 (n, dimension); NaN in the rows of those that are not there."""
        content = self._direct.ask(collection_name, "vectors", {"ids": ids})
        return np.frombuffer(content, dtype="<f4").reshape(len(ids), -1)

    def columns(self, collection_name: str, *, drop: bool = False) -> dict[str, Any]:
        """Where the copy of a collection in columns is, and how far (`indexer.edge.columns`); or remove it."""
        answer: dict[str, Any] = self._ask(collection_name, "columns", {"drop": drop})
        return answer

    def scroll(  # type: ignore[override]
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: Any = None,
        offset: models.ExtendedPointId | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **_: Any,
    ) -> tuple[list[Any], models.ExtendedPointId | None]:
        """As `QdrantClient.scroll`, not validated."""
        body = {
            "filter": scroll_filter,
            "limit": limit,
            "order_by": order_by,
            "offset": offset,
            "with_payload": with_payload,
            "with_vector": with_vectors,
        }
        found = self._ask(collection_name, "scroll", body)
        return [_Record(**record) for record in found["points"]], found["next_page_offset"]

    def _ask(self, collection_name: str, question: str, body: dict[str, Any]) -> Any:
        return pydantic_core.from_json(self._direct.ask(collection_name, question, body))

    def close(self, *args: Any, **kwargs: Any) -> None:
        """As `QdrantClient.close`."""
        self._direct.close()
        super().close(*args, **kwargs)


class _Direct:
    """Questions over a connection for each thread."""

    def __init__(self, port: int, secret: bytes, timeout: int) -> None:
        self._port, self._secret, self._timeout = port, secret, timeout
        self._own = threading.local()
        self._lock = threading.Lock()
        self._open: WeakSet[_Line] = WeakSet()  # a thread's goes with it

    def ask(self, collection: str, question: str, body: dict[str, Any]) -> bytes:
        """The answer, as it came.

        Raises:
            UnexpectedResponse: the index refuses.
            ResponseHandlingException: there is no answer; the connection is given up then.
        """
        asked = {"collection": collection, "question": question, "body": body}
        own = self._own
        try:
            connection = self._connection()
            connection.send_bytes(pydantic_core.to_json(asked, exclude_none=True))
            answer = connection.recv_bytes()
        except (OSError, EOFError, AuthenticationError) as error:
            own.line = None
            raise ResponseHandlingException(error) from error
        if answer[:1] == REFUSAL:
            refusal = pydantic_core.from_json(answer[1:])
            content = pydantic_core.to_json({"status": {"error": refusal["message"]}})
            raise UnexpectedResponse(refusal["code"], "", content, httpx.Headers())
        return answer[1:]

    def close(self) -> None:
        """End the connections of all threads; who waits for an answer is told at once."""
        with self._lock:
            for line in list(self._open):
                hang_up(line.connection)
            self._open.clear()
            self._own = threading.local()

    def _connection(self) -> Connection:
        line: _Line | None = getattr(self._own, "line", None)
        if line is None:
            line = _Line(connect(self._port, self._secret, seconds=self._timeout))
            with self._lock:
                self._own.line = line
                self._open.add(line)
        return line.connection


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Line:
    """A thread's connection, which is closed when nobody has it any more, and by nobody else.

    A `Connection` that is collected closes its descriptor while weak references still lead to it: whoever follows one
    then closes the descriptor once more, which by that time may be another's. They lead here instead.
    """

    connection: Connection
