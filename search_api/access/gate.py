"""What is looked at before a request is read: whose large body it is, and where it ends.

Waitress reads a request in full before the app sees it. A stranger's with more than a megabyte reaches the app at once,
without its body and marked so, and is answered as any other; its connection is closed then.

A request whose end can be understood in two ways is refused (RFC 9112, 6.1 and 6.3): a proxy before us that understands
the other one would take a part of its body for the next caller's request, or the other way around. Such refusals never
reach the app; they are problem documents all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask
from waitress.utilities import BadRequest

from search_api.problems import answer_unread

UNREAD = "HTTP_unread"
"""In the WSGI environment of a request whose body was not read. No caller can send it: headers are in capitals."""

SMALL_BYTES = 2**20
"""Bodies up to this are read from anybody: turning them away would cost a connection."""

LetsIn = Callable[[Mapping[str, str]], bool]


def gated_channel(lets_in: LetsIn) -> type[HTTPChannel]:
    """The class of a server's connections, which asks `lets_in` about the headers of requests with large bodies.

    It is asked in the thread that reads from all connections: the answer must come fast.
    """

    class Parser(HTTPRequestParser):  # type: ignore[misc]  # it has no types
        """A request as it comes in."""

        def received(self, data: bytes) -> int:
            """Take in some bytes; give how many were the request's."""
            try:
                consumed: int = super().received(data)
            except ValueError:  # a length of more digits than Python reads
                self._refuse("The request cannot be read.")
                return len(data)
            if self.headers_finished and self.error is None and self._has_two_ends():
                self._refuse("Both Transfer-Encoding and Content-Length, or either in a way that is not HTTP/1.1.")
                return len(data)
            if self.headers_finished and not self.completed and not getattr(self, "asked", False):
                self.asked = True
                if (self.chunked or self.content_length > SMALL_BYTES) and not lets_in(self.headers):
                    self._turn_away()
                    return len(data)
            return consumed

        def _has_two_ends(self) -> bool:
            # Waitress takes the encoding away where it goes by it: in HTTP/1.1 alone.
            return "TRANSFER_ENCODING" in self.headers or (
                self.chunked and not self.completed and "CONTENT_LENGTH" in self.headers
            )

        def _refuse(self, why: str) -> None:
            self.error = BadRequest(why)
            self.expect_continue = False
            self.completed = True

        def _turn_away(self) -> None:
            self.headers["unread"] = "1"
            self.headers["CONTENT_LENGTH"] = "0"
            self.headers["CONNECTION"] = "close"
            self.expect_continue = False
            self.completed = True

    class Refusal(ErrorTask):  # type: ignore[misc]  # it has no types
        """The answer to what is no request."""

        def execute(self) -> None:
            """Write it, and close the connection: nobody knows where the next request begins."""
            error = self.request.error
            self.status, headers, body = answer_unread(error.code, error.body)
            self.response_headers.extend(headers)
            self.set_close_on_finish()
            self.content_length = len(body)
            self.write(body)

    class Channel(HTTPChannel):  # type: ignore[misc]  # it has no types
        """A connection."""

        parser_class: Any = Parser
        error_task_class: Any = Refusal

    return Channel
