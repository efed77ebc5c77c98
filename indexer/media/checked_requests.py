"""HTTP requests to addresses that were checked: what fetching strangers' URLs and posting to webhooks have in common.

A name is resolved once, every address of it is checked, and the connection goes to a checked address itself, so that
nothing is gained by a name that resolves differently the next time (DNS rebinding). Redirects are not followed, and
nothing is taken from the environment but SSL_CERT_FILE and SSL_CERT_DIR.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property

import httpcore
import httpx

from indexer.errors import FetchFailed, FetchTimeout
from indexer.media.addresses import Address, AllowList, Target, check_addresses, read_address, resolve
from indexer.media.pinned import Deadline, PinnedBackend

Resolver = Callable[[str, int], list[str]]
"""A host name and a port to the host's addresses; OSError if there are none."""

_TIMEOUTS = {"connect": 10.0, "read": 15.0, "write": 15.0}
"""Seconds to a connection, and without a byte."""
_LOOKUPS = 16


class CheckedRequests:
    """Sends requests, each over a connection of its own; threads may share it. Close it after use.

    Args:
        allow: private hosts that are asked nevertheless.
        user_agent: what servers are told.
        resolve: resolves names, instead of the system.
        backend: opens connections to the addresses that were checked, instead of httpcore's own.
    """

    def __init__(
        self,
        allow: AllowList,
        *,
        user_agent: str = "crosslens",
        resolve: Resolver = resolve,
        backend: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._allow = allow
        self._user_agent = user_agent
        self._resolve = resolve
        self._backend = backend or httpcore.SyncBackend()
        # The system's resolver knows no deadline; in threads of their own, lookups that hang hold up only each other.
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="crosslens-lookup")

    def close(self) -> None:
        """End its threads; a lookup under way is not waited for."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Whose certificates are trusted: certifi's list, or what SSL_CERT_FILE or SSL_CERT_DIR names."""
        return httpx.create_ssl_context()

    def addresses(self, target: Target, deadline: Deadline) -> list[Address]:
        """A host's addresses, all of which may be asked.

        Raises:
            UrlRefused: one of them must not.
            FetchFailed, FetchTimeout: the name does not resolve, or not in time.
        """
        return check_addresses(target, self._look_up(target, deadline), self._allow)

    @contextmanager
    def send(
        self,
        method: str,
        target: Target,
        addresses: list[Address],
        deadline: Deadline,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> Iterator[httpcore.Response]:
        """The answer to one request to the first of these addresses that is reached, its body unread.

        Raises:
            FetchFailed, FetchTimeout: the host cannot be reached, does not answer in HTTP, or not in time.
        """
        host = target.host
        backend = PinnedBackend(host, [str(address) for address in addresses], deadline, self._backend)
        url = httpcore.URL(scheme=target.scheme, host=host, port=target.port, target=target.path)
        sent = {"Host": target.authority, "User-Agent": self._user_agent, "Connection": "close", **headers}
        tls = self._tls if target.scheme == "https" else None
        try:
            with (
                httpcore.HTTPConnection(url.origin, ssl_context=tls, network_backend=backend) as connection,
                connection.stream(
                    method, url, headers=list(sent.items()), content=content, extensions={"timeout": _TIMEOUTS}
                ) as response,
            ):
                yield response
        except httpcore.TimeoutException as error:
            raise FetchTimeout(f"{host} takes too long to answer.") from error
        except httpcore.NetworkError as error:
            raise FetchFailed(f"{host} cannot be reached: {str(error) or type(error).__name__}.") from error
        except httpcore.ProtocolError as error:
            # Its text quotes what came, which may be another service's and is not the asker's to read.
            raise FetchFailed(f"{host} breaks off, or does not answer in HTTP.") from error

    def _look_up(self, target: Target, deadline: Deadline) -> list[str]:
        """The addresses of a target's host, checked by nobody yet."""
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
