"""POST requests to addresses that an operator named, as `indexer.media.checked_requests` sends them.

Redirects are not followed, and of the answer nothing but its status and Retry-After is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer.errors import UrlRefused
from indexer.media.addresses import AllowList, Target, resolve
from indexer.media.checked_requests import CheckedRequests, Resolver
from indexer.media.pinned import Deadline

if TYPE_CHECKING:
    import httpcore

_PORTS = (443, 80)


@dataclass(frozen=True)
class Answer:
    """What a server says to a POST."""

    status: int
    retry_after: int | None = None
    """Seconds that it asks to wait."""


class Poster:
    """Posts; threads may share it. Close it after use.

    Args:
        allow: private hosts that are posted to nevertheless, and those that need no https://, see `AllowList`.
        deadline: seconds for one request, from the name to the answer's head.

    Raises:
        UsageError: an entry of `allow` does not parse.
    """

    def __init__(self, *, allow: Sequence[str] = (), deadline: float = 15.0, resolve: Resolver = resolve) -> None:
        self._allow = AllowList(allow)
        self._seconds = deadline
        self._requests = CheckedRequests(self._allow, resolve=resolve)

    def close(self) -> None:
        """End its threads; a lookup under way is not waited for."""
        self._requests.close()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What the server answers, whatever that is.

        Raises:
            UrlRefused: the URL must not be asked, or is of http:// and not allowed; nothing was sent.
            FetchFailed, FetchTimeout: the host cannot be reached, does not answer in HTTP, or not in time.
        """
        target, deadline = Target.parse(url), Deadline(self._seconds)
        addresses = self._requests.addresses(target, deadline)
        usual = (None, target.port) if target.port not in _PORTS else (None, *_PORTS)
        if target.scheme == "http" and not all(self._allow.admits(target.host, each, usual) for each in addresses):
            raise UrlRefused("Webhooks go to https:// alone.", remedy="Use https://, or allow the host.")
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        with self._requests.send("POST", target, addresses, deadline, sent, body) as response:
            return Answer(response.status, _retry_after(response))


def _retry_after(response: httpcore.Response) -> int | None:
    """Seconds; None if the server does not say so in seconds, or in more than a week's."""
    asked = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    return int(asked) if asked.isdigit() and len(asked) <= 6 else None
