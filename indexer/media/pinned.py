"""Connections that go to given addresses and end at a given time, whatever the name and the server would have."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from indexer.errors import FetchTimeout, UrlRefused

_ADDRESSES = 4
"""Of a host's addresses, how many are tried."""


class Deadline:
    """A moment on the clock, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Seconds until then, or `at_most` if those are fewer; always more than 0.

        Raises:
            FetchTimeout: it has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchTimeout(f"The fetch takes longer than {self._seconds:g} s.")
        return left if at_most is None else min(left, at_most)


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were checked, for one host, and resolves nothing.

    The host's name stays with the request, so that Host, SNI and the certificate's check go by it.
    """

    def __init__(
        self, host: str, addresses: Sequence[str], deadline: Deadline, backend: httpcore.NetworkBackend
    ) -> None:
        self._host = host
        self._addresses = addresses[:_ADDRESSES]
        self._deadline = deadline
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first of the addresses that answers.

        Raises:
            UrlRefused: it is asked for another host than the one that was checked.
            FetchTimeout: the deadline has passed.
            httpcore.ConnectError, httpcore.ConnectTimeout: none answers.
        """
        if host != self._host:
            raise UrlRefused(f"{host} is not the host that was checked.")
        failure: Exception = httpcore.ConnectError("nothing answers")
        for address in self._addresses:
            left = self._deadline.left(timeout)
            try:
                stream = self._backend.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A stream of which no read or write outlasts the deadline: a timeout per read alone lets a slow drip go on."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        except BaseException:
            self.close()  # httpcore has not got hold of it yet
            raise
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
