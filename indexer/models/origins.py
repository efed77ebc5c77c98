"""Where a bundle is taken from: a folder of this machine, or one on the web.

Connections stay encrypted, and lead nowhere that their user would not have gone.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

import httpx

from indexer.errors import DownloadFailed, InvalidBundle, SourceNotFound, UsageError
from indexer.models.catalog import find_known
from indexer.models.manifest import MANIFEST_FILE

_CHUNK = 1 << 20
_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(30, connect=10)
"""Seconds without a byte, and to a connection."""
_HUB = re.compile(r"hf:([A-Z0-9][\w.-]*/[A-Z0-9][\w.-]*)(?:@([\w./-]+))?", re.ASCII | re.IGNORECASE)


class Origin(Protocol):
    """A folder, here or elsewhere, that holds a bundle's files."""

    where: str
    """The folder, in words."""
    is_remote: bool
    """Whether others could change it, or what comes from it."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """One file's content, as it comes."""


@contextmanager
def open_origin(source: str) -> Iterator[Origin]:
    """What a source names: a folder, the URL of one, or a hub repository (`hf:org/name[@revision]`).

    Raises:
        UsageError: it names none of them; or a known model, which is made, not fetched.
    """
    if hub := _HUB.fullmatch(source):
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        source = f"{endpoint}/{hub[1]}/resolve/{quote(hub[2] or 'main', safe='')}"
    if "://" in source:
        with closing(WebFolder(source)) as web:
            yield web
    elif (folder := Path(source).expanduser()).is_dir():
        yield LocalFolder(folder)
    elif known := find_known(source):
        raise UsageError(
            f"{source!r} is known, but nobody publishes a ready bundle of it: it is made from {known.source}.",
            remedy=f"crosslens models export {source}",
        )
    else:
        raise SourceNotFound(
            f"{source!r} is no folder, no URL and no hub repository.",
            remedy=f"Name a folder that holds {MANIFEST_FILE}, the https:// URL of one, or hf:org/name.",
        )


class LocalFolder:
    """A folder of this machine."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self._folder = folder

    def chunks(self, name: str) -> Iterator[bytes]:
        """One file's content.

        Raises:
            InvalidBundle: it is missing, unreadable or elsewhere.
        """
        path = self._folder / name
        if not path.is_file():  # a pipe would never end
            raise InvalidBundle(f"{self._folder} has no file {name}.", remedy="Copy the whole folder.")
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise InvalidBundle(f"{path} leads out of the bundle.", remedy="Copy the folder with what its links name.")
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise InvalidBundle(f"{path} cannot be read: {error.strerror}.", remedy="Copy the folder again.") from error


class WebFolder:
    """The files below a URL: https, or http on this machine alone. Close it after use.

    Raises:
        UsageError: the URL is none, or not encrypted.
    """

    is_remote = True

    def __init__(self, url: str) -> None:
        try:
            self._host = httpx.URL(url).host
            self._parts = urlsplit(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"{url!r} is no URL: {error}.", remedy="Name the https:// URL of a folder.") from error
        self._path = self._parts.path.removesuffix(f"/{MANIFEST_FILE}").rstrip("/")
        self.where = f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}{self._path}"
        if not self._host or not self._is_allowed(httpx.URL(url)):
            raise UsageError(
                f"{self.where}: only https:// is read, and http:// from this machine.",
                remedy="Use the https:// URL, or copy the folder here and pull the copy.",
            )
        # Compressed content could be any size once it is unpacked.
        headers = {"accept-encoding": "identity", "user-agent": "crosslens"}
        self._client = httpx.Client(timeout=_TIMEOUT, headers=headers)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def chunks(self, name: str) -> Iterator[bytes]:
        """One file's content, as it comes.

        Raises:
            DownloadFailed: it cannot be reached, is refused, leads astray or breaks off.
        """
        url = self._parts._replace(path=f"{self._path}/{quote(name)}", fragment="").geturl()
        try:
            response = self._get(url)
            try:
                if response.status_code != httpx.codes.OK:
                    raise DownloadFailed(
                        f"{self.where}/{name} answers {response.status_code} {response.reason_phrase}.",
                        remedy=f"Check the address: it must be a folder that holds {MANIFEST_FILE}, open to anyone.",
                    )
                yield from response.iter_raw(_CHUNK)
            finally:
                response.close()
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise DownloadFailed(f"{self.where}/{name} could not be fetched: {reason}.") from error

    def _get(self, url: str) -> httpx.Response:
        """The answer that redirects lead to.

        httpx follows them too, but it reads the whole body of each, however long.
        """
        request = self._client.build_request("GET", url)
        for _ in range(_REDIRECTS + 1):
            if not self._is_allowed(request.url):
                raise DownloadFailed(
                    f"{self.where} leads to {request.url.scheme}://{request.url.host}, where it must not.",
                    remedy="Ask who publishes the bundle for an address that stays on https://.",
                )
            response = self._client.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()
            request = response.next_request
        raise DownloadFailed(f"{self.where} leads from one address to the next, without end.")

    def _is_allowed(self, url: httpx.URL) -> bool:
        """Encrypted and to a public address, or to the very host that was named; plain only from loopback to it."""
        if url.scheme == "http":
            return _is_loopback(url.host) and _is_loopback(self._host)
        return url.scheme == "https" and (url.host == self._host or not _is_internal(url.host))


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ((address := _address(host)) is not None and address.is_loopback)


def _is_internal(host: str) -> bool:
    return host == "localhost" or ((address := _address(host)) is not None and not address.is_global)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host's name spells; None for one that must be looked up."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # which also knows 127.1 and 0x7f000001
    except OSError:
        pass
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
