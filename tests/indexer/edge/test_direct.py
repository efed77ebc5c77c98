"""Questions without HTTP: who may ask, what is refused, and that one connection's trouble is no other's."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as within
from hypothesis import strategies as st
from qdrant_client.http.exceptions import ResponseHandlingException

from indexer.edge import direct
from indexer.edge.catalog import Catalog
from indexer.edge.direct import DirectServer
from indexer.edge.frames import ANSWER, REFUSAL, connect
from indexer.store.lean import LeanClient

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
SECRET = b"0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectServer]:
    catalog = Catalog(tmp_path_factory.mktemp("direct"), optimize_after=10**9)
    catalog.create("c", size=2, distance="Cosine", metadata={})
    catalog.get("c").write([{"upsert": {"points": [{"id": 1, "vector": [0.0, 1.0]}, {"id": 2, "vector": [1.0, 0.0]}]}}])
    made = DirectServer(catalog, SECRET.decode())
    made.start()
    yield made
    made.close()
    catalog.close()


@pytest.fixture
def connection(server: DirectServer) -> Iterator[Connection]:
    with connect(server.port, SECRET, seconds=10) as made:
        yield made


def ask(connection: Connection, content: bytes) -> tuple[bytes, bytes]:
    connection.send_bytes(content)
    answer = connection.recv_bytes()
    return answer[:1], answer[1:]


def question(kind: str, body: Any, collection: str = "c") -> bytes:
    return json.dumps({"collection": collection, "question": kind, "body": body}).encode()


def test_what_is_asked_is_answered(connection: Connection) -> None:
    kind, content = ask(connection, question("query", {"searches": [{"query": [0.1, 0.9], "limit": 1}]}))
    assert kind == ANSWER
    assert [point["id"] for point in json.loads(content)[0]["points"]] == [1]
    kind, content = ask(connection, question("vectors", {"ids": [2, 7, 1]}))
    rows = np.frombuffer(content, "<f4").reshape(3, 2)
    assert kind == ANSWER
    assert rows[0].tolist() == [1, 0]
    assert np.isnan(rows[1]).all()
    assert rows[2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (question("retrieve", {"ids": [1]}, "none"), 404),
        (question("drop", {}), 400),
        (question("query", {"searches": [{"query": [1.0]}]}), 400),
        (question("retrieve", {"ids": "x"}), 400),
        (b"[" * 100_000, 400),
        (b'{"collection": NaN}', 400),
        (b"\xff", 400),
    ],
)
def test_what_is_wrong_is_refused_and_the_connection_goes_on(connection: Connection, content: bytes, code: int) -> None:
    kind, refusal = ask(connection, content)
    assert (kind, json.loads(refusal)["code"]) == (REFUSAL, code)
    assert ask(connection, question("retrieve", {"ids": [1]}))[0] == ANSWER


@given(st.binary(max_size=200))
@within(max_examples=200, deadline=None)
def test_no_bytes_are_a_defect(server: DirectServer, content: bytes) -> None:
    with connect(server.port, SECRET, seconds=10) as made:
        kind, refusal = ask(made, content)
        assert (kind, json.loads(refusal)["code"]) == (REFUSAL, 400)


def test_who_does_not_know_the_secret_gets_nothing(server: DirectServer) -> None:
    with pytest.raises(AuthenticationError):
        connect(server.port, b"another", seconds=5)
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 1000)
        plain.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):
            while some := plain.recv(1000):
                received += some
    assert b"vector" not in received
    with connect(server.port, SECRET, seconds=10) as made:
        assert ask(made, question("retrieve", {"ids": [1]}))[0] == ANSWER


def test_connections_end_with_their_threads_and_are_closed_once(server: DirectServer) -> None:
    """Threads end while their client is closed: nobody closes a descriptor that is another's by then."""
    for _ in range(20):
        client = LeanClient("http://127.0.0.1:1", server.port, SECRET.decode(), timeout=10, check_compatibility=False)
        asked = threading.Barrier(9)

        def ask_once(client: LeanClient = client, asked: threading.Barrier = asked) -> None:
            assert client.retrieve("c", [1])
            asked.wait()

        threads = [threading.Thread(target=ask_once) for _ in range(8)]
        for thread in threads:
            thread.start()
        asked.wait()
        client.close()
        others = [socket.socket() for _ in range(20)]  # they get the numbers that have become free
        for thread in threads:
            thread.join()
        for other in others:
            other.close()


def test_who_waits_is_told_when_the_client_is_closed(server: DirectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, go_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> list[Any]:
        asking.set()
        go_on.wait(30)
        return []

    monkeypatch.setitem(direct._QUESTIONS, "retrieve", slow)
    client = LeanClient("http://127.0.0.1:1", server.port, SECRET.decode(), timeout=60, check_compatibility=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.retrieve, "c", [1])
        assert asking.wait(10)
        client.close()
        assert isinstance(waiting.exception(10), ResponseHandlingException)
    go_on.set()
