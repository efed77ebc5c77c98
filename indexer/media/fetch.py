"""URLs that a stranger named, fetched: from public hosts alone, within limits of size and time.

Redirects start over, with all that `indexer.media.checked_requests` checks. Nothing the server says about its content
is trusted.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Self

import httpcore
import httpx

from indexer.errors import EmptyFile, FetchFailed, FetchTimeout, MediaError, NotAnImage, TooLarge
from indexer.media.addresses import AllowList, Target, resolve
from indexer.media.checked_requests import CheckedRequests, Resolver
from indexer.media.formats import SNIFF_BYTES, sniff
from indexer.media.pinned import Deadline

_REDIRECTS = 5
_REDIRECT_STATUSES = frozenset((301, 302, 303, 307, 308))
_RETRY_STATUSES = frozenset((429, 503))
_LONGEST_WAIT = 10.0
"""Seconds that a Retry-After may ask for."""
_HEADERS = {
    "Accept": "image/*,*/*;q=0.1",
    # Compressed content could be any size once it is unpacked.
    "Accept-Encoding": "identity",
}
_AT_ONCE = 8
"""Fetches of one request under way."""


@dataclass(frozen=True)
class Fetched:
    """What a URL gave."""

    data: bytes
    media_type: str
    """By content; it may be one that is recognised but not decoded."""
    url: str
    """Where it came from, after redirects and normalised."""


@dataclass
class _Slots:
    """A host's places, and how many hold or wait for one."""

    free: threading.Semaphore
    users: int = field(default=0)


class _Budget:
    """Bytes that fetches may take together."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._lock = threading.Lock()

    def check(self, host: str, count: int) -> None:
        """Whether so many are left, as far as that is known now.

        Raises:
            TooLarge: they are not.
        """
        if count > self._left:
            others = "" if self._left == self._size else ", with what else was fetched"
            raise TooLarge(f"What {host} sends has more than {self._size:,} bytes{others}.")

    def take(self, host: str, count: int) -> None:
        """Use so many up; raises as `check`."""
        with self._lock:
            self.check(host, count)
            self._left -= count


class Fetcher:
    """Fetches URLs; threads may share it. Close it after use.

    Args:
        max_bytes: the most bytes of one body.
        allow: private hosts that are fetched from nevertheless, see `AllowList`.
        deadline: seconds for one fetch, from waiting for the host's turn to the last byte, redirects included.
        per_host: fetches of one host at a time.
        user_agent: what servers are told.
        resolve: resolves names, instead of the system.
        sleep: waits these seconds, where a server asks for it.
        backend: opens connections to the addresses that were checked, instead of httpcore's own.

    Raises:
        UsageError: an entry of `allow` does not parse.

    Usage:
        with Fetcher(max_bytes=settings.max_bytes, allow=settings.fetch_allowed) as fetcher:
            image = decode(fetcher.fetch("https://example.org/a.jpg").data, max_pixels=settings.max_pixels)
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        allow: Sequence[str] = (),
        deadline: float = 60.0,
        per_host: int = 2,
        user_agent: str = "crosslens",
        resolve: Resolver = resolve,
        sleep: Callable[[float], None] = time.sleep,
        backend: httpcore.NetworkBackend | None = None,
    ) -> None:
        self._max_bytes = max_bytes
        self._seconds = deadline
        self._per_host = per_host
        self._sleep = sleep
        self._requests = CheckedRequests(AllowList(allow), user_agent=user_agent, resolve=resolve, backend=backend)
        self._lock = threading.Lock()
        self._slots: dict[str, _Slots] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads; a lookup under way is not waited for."""
        self._requests.close()

    def fetch(self, url: str) -> Fetched:
        """What a URL gives.

        A server that asks for a short pause (429 or 503 with Retry-After, at most 10 s) is asked again, once.

        Raises:
            UrlRefused: the URL, or one that it redirects to, must not be fetched; nothing was sent there.
            FetchTimeout: it took longer than the deadline, or 15 s passed without a byte.
            FetchFailed: the host cannot be reached, answers with an error or not in HTTP, or breaks off.
            TooLarge: the content has, or declares, more bytes than the cap.
            EmptyFile, NotAnImage: by content.
        """
        return self._fetch(url, Deadline(self._seconds), _Budget(self._max_bytes))

    def fetch_all(self, urls: Sequence[str]) -> list[Fetched | MediaError]:
        """What each of several URLs gives, or why it gives nothing; some at once.

        All together have the time that `fetch` has for one, and may have the bytes of one.
        """
        deadline, budget = Deadline(self._seconds), _Budget(self._max_bytes)

        def outcome(url: str) -> Fetched | MediaError:
            try:
                return self._fetch(url, deadline, budget)
            except MediaError as error:
                return error

        once = list(dict.fromkeys(urls))
        with ThreadPoolExecutor(min(_AT_ONCE, max(len(once), 1)), thread_name_prefix="crosslens-fetch") as pool:
            outcomes = dict(zip(once, pool.map(outcome, once), strict=True))
        return [outcomes[url] for url in urls]

    def _fetch(self, url: str, deadline: Deadline, budget: _Budget) -> Fetched:
        target = Target.parse(url)
        redirects = 0
        has_waited = False
        while True:
            wait = 0.0
            with self._turn(target.host, deadline), self._ask(target, deadline) as response:
                location = _header(response, b"location")
                if response.status in _REDIRECT_STATUSES and location is not None:
                    target = target.follow(location)
                    redirects += 1
                elif not has_waited and (wait := _wait_asked_for(response)) <= min(_LONGEST_WAIT, deadline.left()):
                    has_waited = True
                else:
                    return self._read(target, response, budget)
            if redirects > _REDIRECTS:
                raise FetchFailed(f"The URL redirects more than {_REDIRECTS} times.")
            if wait:
                self._sleep(wait)

    @contextmanager
    def _turn(self, host: str, deadline: Deadline) -> Iterator[None]:
        """One of the host's places. A host is forgotten with its last fetch, so that strangers cannot pile them up."""
        with self._lock:
            slots = self._slots.setdefault(host, _Slots(threading.Semaphore(self._per_host)))
            slots.users += 1
        try:
            if not slots.free.acquire(timeout=deadline.left()):
                raise FetchTimeout(f"Too many other fetches of {host} are under way.")
            try:
                yield
            finally:
                slots.free.release()
        finally:
            with self._lock:
                slots.users -= 1
                if not slots.users:
                    del self._slots[host]

    def _ask(self, target: Target, deadline: Deadline) -> AbstractContextManager[httpcore.Response]:
        addresses = self._requests.addresses(target, deadline)
        return self._requests.send("GET", target, addresses, deadline, _HEADERS)

    def _read(self, target: Target, response: httpcore.Response, budget: _Budget) -> Fetched:
        """An answer's content, within the cap and of a known kind."""
        host = target.host
        if response.status != httpx.codes.OK:
            raise FetchFailed(f"{host} answers {response.status}.", http_status=response.status)
        if (_header(response, b"content-encoding") or "identity").lower() != "identity":
            raise FetchFailed(f"{host} sends compressed content, though it was asked not to.")
        declared = _header(response, b"content-length") or ""
        if declared.isdecimal():
            budget.check(host, int(declared))
        content = io.BytesIO()  # not a list: bytes that come one by one would take forty times their size
        media_type: str | None = None
        for chunk in response.iter_stream():
            budget.take(host, len(chunk))
            content.write(chunk)
            if media_type is None and content.tell() >= SNIFF_BYTES:
                media_type = _sniffed(content.getvalue(), host)
        if not content.tell():
            raise EmptyFile(f"{host} sends an empty file.")
        data = content.getvalue()
        return Fetched(data, media_type or _sniffed(data, host), target.url)


def _sniffed(data: bytes, host: str) -> str:
    if (media_type := sniff(data[:SNIFF_BYTES])) is None:
        raise NotAnImage(
            f"What {host} sends is no image or video that is known.",
            remedy=f"Name the URL of the file itself, not of a page that shows it. {NotAnImage.default_remedy}",
        )
    return media_type


def _wait_asked_for(response: httpcore.Response) -> float:
    """Seconds after which to ask again; infinite if the server does not say so in seconds."""
    asked = (_header(response, b"retry-after") or "").strip()
    is_short = response.status in _RETRY_STATUSES and asked.isascii() and asked.isdecimal()
    return float(asked) if is_short else float("inf")


def _header(response: httpcore.Response, name: bytes) -> str | None:
    """A header's value, of repeated ones all, with commas; None if it is missing."""
    values = [value for key, value in response.headers if key.lower() == name]
    # What is no UTF-8 is kept as characters that no URL may have.
    return b", ".join(values).decode("utf-8", "surrogateescape") if values else None
