"""Large bodies of strangers are not read: the server looks at the header before it takes more than a megabyte.

Waitress reads a request in full before the app sees it. A request that the gate turns away reaches the app at once,
without its body and marked so, and is answered as any other; its connection is closed then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser

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
            consumed: int = super().received(data)
            if self.headers_finished and not self.completed and not getattr(self, "asked", False):
                self.asked = True
                if (self.chunked or self.content_length > SMALL_BYTES) and not lets_in(self.headers):
                    self._turn_away()
                    return len(data)
            return consumed

        def _turn_away(self) -> None:
            self.headers["unread"] = "1"
            self.headers["CONTENT_LENGTH"] = "0"
            self.headers["CONNECTION"] = "close"
            self.expect_continue = False
            self.completed = True

    class Channel(HTTPChannel):  # type: ignore[misc]  # it has no types
        """A connection."""

        parser_class: Any = Parser

    return Channel
