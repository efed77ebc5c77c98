"""Searches and reads over a connection for each thread of a client, without HTTP between.

Through an HTTP server each request wakes three threads, of which one works; here it wakes the one that works. That is
half of what a search costs, and hundreds come in a second. Messages are those of `multiprocessing.connection`, whose
two ends prove to each other that they know the secret before anything else is read.

A question is JSON, `{"collection", "question", "body"}`. The answer is `ANSWER` and what was asked for, as JSON or as
it is, or `REFUSAL` and JSON, `{"code", "message"}`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from typing import Any

import pydantic_core
import structlog

from indexer.edge import questions
from indexer.edge.catalog import Catalog
from indexer.edge.frames import ANSWER, REFUSAL, accepted
from indexer.edge.generations import EdgeCollection
from indexer.edge.wire import Refused, well_formed

_MOST_CONNECTIONS = 512
_MOST_BYTES = 64 * 2**20
"""Of a question."""

_QUESTIONS: dict[str, Callable[[EdgeCollection, Any], Any]] = {
    "columns": questions.columns,
    "query": questions.query_batch,
    "retrieve": questions.retrieve,
    "scroll": questions.scroll,
    "vectors": questions.bare_vectors,
}
_log = structlog.get_logger("index")


class DirectServer:
    """Answers on loopback, each connection in a thread of its own."""

    def __init__(self, catalog: Catalog, secret: str) -> None:
        self._catalog = catalog
        self._secret = secret.encode()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._accept, name="direct", daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end with the process."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return  # closed
            if not self._room.acquire(blocking=False):
                connected.close()
                continue
            threading.Thread(target=self._serve, args=(connected,), name="direct", daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        try:
            with accepted(connected, self._secret) as connection:
                while True:
                    connection.send_bytes(self._answer(connection.recv_bytes(_MOST_BYTES)))
        except (OSError, EOFError, AuthenticationError):
            return  # it went away, or is none of ours
        finally:
            self._room.release()

    def _answer(self, asked: bytes) -> bytes:
        try:
            with well_formed():
                question = pydantic_core.from_json(asked, allow_inf_nan=False)
                collection = self._catalog.get(question["collection"])
                answer = _QUESTIONS[question["question"]](collection, question["body"])
        except Refused as error:
            return REFUSAL + pydantic_core.to_json({"code": error.status, "message": error.message})
        except Exception:  # noqa: BLE001  a defect: it is logged, the caller told, and the connection goes on
            _log.exception("question failed")
            return REFUSAL + pydantic_core.to_json({"code": 500, "message": "The index failed on this question."})
        return ANSWER + (answer if isinstance(answer, bytes) else pydantic_core.to_json(answer))
