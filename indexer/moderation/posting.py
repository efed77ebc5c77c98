"""POST requests to addresses that an operator named, under the rules by which URLs are fetched (`indexer.media.fetch`).

A name is resolved once, all its addresses are checked, and the connection goes to one of them. No redirects, nothing
from the environment but SSL_CERT_FILE, and of the answer nothing but its status and Retry-After is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import httpcore
import httpx

from indexer.errors import FetchFailed, FetchTimeout, UrlRefused
from indexer.media.addresses import AllowList, Target, check_addresses, read_address, resolve
from indexer.media.pinned import Deadline, PinnedBackend

if TYPE_CHECKING:
    import ssl

    from indexer.media.fetch import Resolver

_TIMEOUTS = {"connect": 10.0, "read": 15.0, "write": 15.0}
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
        self._resolve = resolve
        self._lookups = ThreadPoolExecutor(4, thread_name_prefix="crosslens-lookup")

    def close(self) -> None:
        """End its threads; a lookup under way is not waited for."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What the server answers, whatever that is.

        Raises:
            UrlRefused: the URL must not be asked, or is of http:// and not allowed; nothing was sent.
            FetchFailed, FetchTimeout: the host cannot be reached, does not answer in HTTP, or not in time.
        """
        target, deadline = Target.parse(url), Deadline(self._seconds)
        addresses = check_addresses(target, self._look_up(target, deadline), self._allow)
        usual = (None, target.port) if target.port not in _PORTS else (None, *_PORTS)
        if target.scheme == "http" and not all(self._allow.admits(target.host, each, usual) for each in addresses):
            raise UrlRefused("Webhooks go to https:// alone.", remedy="Use https://, or allow the host.")
        backend = PinnedBackend(target.host, [str(each) for each in addresses], deadline, httpcore.SyncBackend())
        where = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        sent = {
            "Host": target.authority,
            "User-Agent": "crosslens",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }
        tls = self._tls if target.scheme == "https" else None
        try:
            with (
                httpcore.HTTPConnection(where.origin, ssl_context=tls, network_backend=backend) as connection,
                connection.stream(
                    "POST", where, headers=list(sent.items()), content=body, extensions={"timeout": _TIMEOUTS}
                ) as response,
            ):
                return Answer(response.status, _retry_after(response))
        except httpcore.TimeoutException as error:
            raise FetchTimeout(f"{target.host} takes too long to answer.") from error
        except httpcore.NetworkError as error:
            raise FetchFailed(f"{target.host} cannot be reached: {str(error) or type(error).__name__}.") from error
        except httpcore.ProtocolError as error:
            raise FetchFailed(f"{target.host} breaks off, or does not answer in HTTP.") from error

    def _look_up(self, target: Target, deadline: Deadline) -> list[str]:
        if read_address(target.host) is not None:
            return [target.host]
        lookup = self._lookups.submit(self._resolve, target.host, target.port)
        try:
            return lookup.result(timeout=deadline.left())
        except TimeoutError as error:
            lookup.cancel()
            raise FetchTimeout(f"The name {target.host} takes too long to resolve.") from error
        except (OSError, UnicodeError) as error:
            raise FetchFailed(f"The name {target.host} does not resolve.", remedy="Check its spelling.") from error


def _retry_after(response: httpcore.Response) -> int | None:
    """Seconds; None if the server does not say so in seconds, or in more than a week's."""
    asked = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
    return int(asked) if asked.isdigit() and len(asked) <= 6 else None
