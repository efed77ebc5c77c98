"""Whose address counts: the connection's, and what trusted proxies alone say."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from indexer.settings import Settings
from search_api.access.peers import peer_of

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def peer(remote: str = "10.0.0.1", host: str = "localhost", **headers: str) -> Any:
    environ = {"REMOTE_ADDR": remote, "HTTP_HOST": host}
    return peer_of(environ | {f"HTTP_{name}": value for name, value in headers.items()}, TRUSTED)


@pytest.mark.parametrize(
    ("remote", "written", "address"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # nobody trusts it
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # the caller wrote the first
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, junk", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("", "198.51.100.1", "unknown"),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy(remote: str, written: str, address: str) -> None:
    assert peer(remote, X_FORWARDED_FOR=written).address == address


def test_this_machine_asks_by_its_own_name_and_through_no_proxy() -> None:
    assert peer("127.0.0.1").local
    assert peer("::1", host="[::1]:8000").local
    assert not peer("10.0.0.1").local
    assert not peer("127.0.0.1", host="evil.example").local
    assert not peer("127.0.0.1", host="").local
    assert not peer("127.0.0.1", host="[::1").local
    for name in ("X_FORWARDED_FOR", "FORWARDED", "X_FORWARDED_HOST", "X_REAL_IP", "VIA"):
        assert not peer("127.0.0.1", **{name: "127.0.0.1"}).local


def test_a_network_of_one_machine_is_limited_as_one() -> None:
    assert peer("2001:db8::1").bucket == peer("2001:db8::ffff").bucket != peer("2001:db8:0:1::1").bucket
    assert peer("203.0.113.9").bucket == "203.0.113.9"


@given(st.text(max_size=30), st.text(max_size=60), st.text(max_size=30))
def test_any_header_gives_an_address(remote: str, written: str, host: str) -> None:
    found = peer(remote, host, X_FORWARDED_FOR=written)
    assert found.address
    assert found.bucket
    assert not found.local


def test_settings_take_networks_and_origins_alone() -> None:
    settings = Settings(trusted_proxies="10.0.0.0/8, ::1", cors_origins=" https://a.example , http://localhost:3000")
    assert [str(each) for each in settings.proxy_networks] == ["10.0.0.0/8", "::1/128"]
    assert settings.allowed_origins == ("https://a.example", "http://localhost:3000")
    for wrong in (
        {"trusted_proxies": "proxy"},
        {"trusted_proxies": "10.0.0.1/8"},
        {"cors_origins": "a.example"},
        {"cors_origins": "https://.*"},
        {"cors_origins": "https://a.example/"},
        {"cors_origins": "null"},
    ):
        with pytest.raises(ValidationError):
            Settings.model_validate(wrong)
