"""Which URLs may be fetched for a stranger, judged by the addresses that they lead to (SSRF, CWE-918).

A URL is taken apart once, so that what is checked is what is connected to. Odd notations of an address are refused;
those of IPv6 that stand for one of IPv4 are judged by that.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

import idna

from indexer.errors import FetchFailed, UrlRefused, UsageError

Address = IPv4Address | IPv6Address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8000
"""Characters; RFC 9110, 4.1 asks for no more."""
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH_SAFE = "/%:@!$&'()*+,;=~"

# `ipaddress` knows most of these, but which depends on Python's version; 168.63.129.16 answers for Azure's metadata.
_SPECIAL = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
"""Address blocks that lead to no public host (IANA's special-purpose registries); Teredo and 6to4 are among them."""
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER_BY_NAME = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "100.100.100.200/32", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.192/32", "224.0.0.0/3"),
        *("::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128"),
    )
)
"""Cloud metadata and what is no host at all: an allowed name does not open these, only their own address does."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet's; of NAT64's prefix, whether the IPv4 address in it is."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _SPECIAL)


def read_address(text: str) -> Address | None:
    """The address that a text spells in the usual notation, an IPv4-mapped one as IPv4; None if it spells none.

    One with a zone (`fe80::1%eth0`) is none: it means something on this machine alone.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return None if address.scope_id else address.ipv4_mapped or address


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host name, as the system knows them.

    Raises:
        OSError: it has none, or nobody answers.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True)
class Target:
    """A URL, taken apart and normalised."""

    scheme: str
    """`https` or `http`."""
    host: str
    """A name in lower-case ASCII without the trailing dot, or an address without brackets."""
    port: int
    path: str
    """With the query, percent-encoded: what the request line holds."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """A URL's parts; its fragment is dropped.

        Raises:
            UrlRefused: it is no URL, not of the web, or written so that two readers may take it for two things.
        """
        _check_characters(url)
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise UrlRefused("The URL does not parse.", remedy="Check its host and brackets.") from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise UrlRefused("Only URLs of https:// and http:// are fetched.", remedy="Name a URL of https://.")
        if "@" in parts.netloc:
            raise UrlRefused(
                "The URL holds a user name or a password.", remedy="Leave out what is before the '@', and the '@'."
            )
        host, port = read_authority(parts.netloc)
        path = quote(parts.path, safe=_PATH_SAFE) or "/"
        if parts.query:
            path += "?" + quote(parts.query, safe=_PATH_SAFE + "?")
        return cls(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port, path)

    @property
    def authority(self) -> str:
        """The host, in brackets if need be, and the port unless it is the scheme's own: the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The normalised URL."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def follow(self, location: str) -> Self:
        """Where a redirect from here leads.

        Raises:
            UrlRefused: as for `parse`, or it leads from https:// to http://.
        """
        _check_characters(location)
        try:
            url = urljoin(self.url, location)
        except ValueError as error:
            raise UrlRefused(f"{self.host} redirects to what is no URL.") from error
        target = type(self).parse(url)
        if self.scheme == "https" and target.scheme == "http":
            raise UrlRefused(
                f"{self.host} redirects from https:// to http://.", remedy="Ask for an address that stays on https://."
            )
        return target


class AllowList:
    """The hosts that are fetched from though they are private: names and networks, each for a port or for the usual.

    An entry is `name`, `name:port`, an address, `address:port`, `[address]:port` or a network such as `10.0.0.0/8`.

    Raises:
        UsageError: an entry is none of them.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[tuple[str, int | None]] = set()
        self._networks: list[tuple[IPv4Network | IPv6Network, int | None]] = []
        for entry in filter(None, map(str.strip, entries)):
            try:
                self._networks.append((ip_network(entry), None))
            except ValueError:
                self._add_host(entry)

    def _add_host(self, entry: str) -> None:
        try:
            host, port = read_authority(entry)
        except UrlRefused as error:
            raise UsageError(
                f"{entry!r} is no host that could be allowed.",
                remedy="CROSSLENS_FETCH_ALLOW takes names, name:port and networks such as 10.0.0.0/8, with commas.",
            ) from error
        if read_address(host) is None:
            self._names.add((host, port))
        else:
            self._networks.append((ip_network(host), port))

    def admits(self, host: str, address: Address, ports: Sequence[int | None]) -> bool:
        """Whether an entry for one of `ports` (None: the usual ones) names the host, or holds its address."""
        if any(address in network for network, its_port in self._networks if its_port in ports):
            return True
        return not any(address in network for network in _NEVER_BY_NAME) and any(
            (host, its_port) in self._names for its_port in ports
        )


def check_addresses(target: Target, answers: Sequence[str], allow: AllowList) -> list[Address]:
    """The addresses to connect to, of those that a target's host has: every one must be fit, not just the first.

    Raises:
        UrlRefused: an address is not public, or the port is not one of the web, and no entry allows it.
        FetchFailed: there are no addresses.
    """
    if not answers:
        raise FetchFailed(f"{target.host} has no address.")
    host, port = target.host, target.port
    addresses = [address for answer in answers if (address := read_address(answer)) is not None]
    # The address itself is not said: who asks must not learn how names resolve inside.
    if len(addresses) < len(answers) or not all(
        is_public(address) or allow.admits(host, address, (None, port)) for address in addresses
    ):
        raise UrlRefused(f"{host} is not a host of the public internet.")
    if not (port in _DEFAULT_PORTS.values() or port >= 1024) and not all(
        allow.admits(host, address, (port,)) for address in addresses
    ):
        raise UrlRefused(
            f"Port {port} is not one of the web.",
            remedy=f"Use port 443, or allow {host}:{port} by CROSSLENS_FETCH_ALLOW.",
        )
    return addresses


def read_authority(text: str) -> tuple[str, int | None]:
    """The host, normalised, and the port of `host[:port]`; None if it names no port.

    Raises:
        UrlRefused: it is none.
    """
    if not (match := _AUTHORITY.fullmatch(text)):
        raise UrlRefused("The URL names no host, or one that does not parse.")
    host, port = match[1], int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 2**16:
        raise UrlRefused("The URL's port is out of range.", remedy="Use a port from 1 to 65535, or leave it out.")
    return (_read_ipv6(host[1:-1]) if host.startswith("[") else _read_name(host)), port


def _check_characters(url: str) -> None:
    """Refuse what readers of URLs strip, or take for something else: each in its own way."""
    if len(url) > _MAX_URL:
        raise UrlRefused(f"The URL is longer than {_MAX_URL:,} characters.", remedy="Use a shorter one.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise UrlRefused(
            "The URL holds a space, a backslash or a character that is not printed.",
            remedy="Remove it, or percent-encode it.",
        )


def _read_ipv6(text: str) -> str:
    address = read_address(text)
    if address is None or ":" not in text:
        raise UrlRefused("What the URL's brackets hold is no IPv6 address.", remedy="Write it in full, with no zone.")
    return str(address)


def _read_name(text: str) -> str:
    """A host name in lower-case ASCII, or an IPv4 address in the usual notation."""
    host = text.lower()
    if not host.isascii() and len(host) <= 253:
        try:
            # UTS 46 first: full-width digits and ideographic full stops become what resolvers take them for.
            host = idna.encode(host, uts46=True, std3_rules=True).decode()
        except UnicodeError as error:
            raise UrlRefused("The URL's host is no international domain name (IDNA).") from error
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise UrlRefused("The URL's host is no host name.", remedy="Check it for empty, long or misspelt parts.")
    # Whose last part is a number is an address to resolvers: 127.1, 0177.0.0.1, 2130706433 and 0x7f000001 are loopback.
    if _NUMBER.fullmatch(labels[-1]) and read_address(host) is None:
        raise UrlRefused("The URL's host is an address in an odd notation.", remedy="Write it as four decimal numbers.")
    return host
