"""Who is at the other end: the address that counts, and whether it is this machine itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from search_api.loopback import is_loopback

_HOPS = 32
"""Proxies in a row that are looked at; a longer list is somebody's play."""

_PROXIED = (
    "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED", "HTTP_X_REAL_IP",
    "HTTP_VIA",
)  # fmt: skip
"""What proxies add: whoever asks through one is not this machine, although the proxy may be."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Peer:
    """The caller's end of a connection."""

    address: str
    """As it is written down."""
    local: bool
    """On this machine, not through a proxy, and asking for it by a loopback name: a page of another site that had its
    own name resolve to this machine (DNS rebinding) still sends that name."""

    @property
    def bucket(self) -> str:
        """What is limited together: an IPv4 address, or an IPv6 network of 64 bits, which one machine has to itself."""
        address = _address(self.address)
        return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else self.address


def peer_of(environ: Mapping[str, Any], trusted: Sequence[Network]) -> Peer:
    """The caller, by the connection and, where that is a trusted proxy's, by its X-Forwarded-For.

    The list is read from its end, where the nearest proxy wrote, up to the first address that is no trusted proxy's:
    what stands before that, anybody may have written.
    """
    nearest = _address(str(environ.get("REMOTE_ADDR", "")))
    proxied = any(name in environ for name in _PROXIED)
    local = nearest is not None and nearest.is_loopback and not proxied and names_this_machine(environ)
    address = nearest
    if address is not None and _within(address, trusted):
        for written in reversed(str(environ.get("HTTP_X_FORWARDED_FOR", "")).rsplit(",", _HOPS)[-_HOPS:]):
            before = _address(written.strip())
            if before is None:
                break
            address = before
            if not _within(before, trusted):
                break
    return Peer(str(address) if address is not None else "unknown", local)


def names_this_machine(environ: Mapping[str, Any]) -> bool:
    """Whether the Host header can only mean this machine."""
    try:
        host = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    except ValueError:
        return False
    return is_loopback(host)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    """An address without a zone; an IPv4 address in IPv6's clothes as itself."""
    try:
        address = ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
