"""What both ends of a direct connection to the index process agree on (`indexer.edge.direct`)."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

ANSWER, REFUSAL = b"a", b"r"
"""What an answer begins with."""
HANDSHAKE_SECONDS = 5


def connect(port: int, secret: bytes, *, seconds: int) -> Connection:
    """A connection to the index process, which proved that it knows the secret; reads and writes wait so long.

    Raises:
        OSError, EOFError: nothing answers there.
        multiprocessing.AuthenticationError: what answers does not know the secret.
    """
    connected = socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_SECONDS)
    connected.settimeout(None)
    connection = _framed(connected, seconds)
    answer_challenge(connection, secret)
    deliver_challenge(connection, secret)
    return connection


def accepted(connected: socket.socket, secret: bytes) -> Connection:
    """The other end of `connect`, which then waits for questions as long as they take to come.

    Raises:
        OSError, EOFError, multiprocessing.AuthenticationError: as `connect`.
    """
    connection = _framed(connected, HANDSHAKE_SECONDS)  # for whoever connects and says nothing
    deliver_challenge(connection, secret)
    answer_challenge(connection, secret)
    with socket.socket(fileno=socket.dup(connection.fileno())) as again:
        _set_patience(again, 0)
    return connection


def hang_up(connection: Connection) -> None:
    """End a connection that another thread may wait at; its descriptor stays for its owner to close."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as again, suppress(OSError):
        again.shutdown(socket.SHUT_RDWR)


def _framed(connected: socket.socket, seconds: int) -> Connection:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _set_patience(connected, seconds)
    return Connection(connected.detach())


def _set_patience(connected: socket.socket, seconds: int) -> None:
    """How long reads and writes wait; 0 means for ever."""
    span = struct.pack("ll", seconds, 0)
    for side in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, side, span)
