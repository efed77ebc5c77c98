"""Keys: their form, what is kept, what they may do, when they end."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from indexer.errors import CrosslensError, InvalidRequest
from search_api.access.keys import (
    Key,
    Role,
    admin_key,
    new_key,
    parse_expiry,
    parse_moment,
    read_token,
    renewed,
    without_secrets,
)
from tests.search_api.access.conftest import START, made


def test_a_key_has_256_random_bits_of_which_only_the_hash_is_kept() -> None:
    key, token = new_key("a", [Role.READ], now=START)
    other, another = new_key("a", [Role.READ], now=START)
    assert read_token(str(token)) == token
    assert (token.id, token.secret) != (another.id, another.secret)
    assert len(token.secret) * 6 >= 256
    assert token.secret not in key.model_dump_json()
    assert key.digest == hashlib.sha256(token.secret.encode()).hexdigest()
    assert key.is_of(token.secret)
    assert not key.is_of(another.secret)
    assert not key.is_of("")
    assert "digest" not in key.as_dict(START)
    assert other.digest != key.digest


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return a == b

    key, token = new_key("a", [Role.READ], now=START)
    monkeypatch.setattr("search_api.access.keys.hmac.compare_digest", compare)
    assert key.is_of(token.secret)
    assert not key.is_of("x")
    assert len(compared) == 2
    assert all(len(a) == len(b) == 64 for a, b in compared)


@pytest.mark.parametrize(
    ("role", "includes"),
    [
        (Role.READ, {Role.READ}),
        (Role.WRITE, {Role.READ, Role.WRITE}),
        (Role.MODERATE, {Role.READ, Role.MODERATE}),
        (Role.ADMIN, set(Role)),
    ],
)
def test_roles_include_what_comes_with_them(role: Role, includes: set[Role]) -> None:
    key, _ = new_key("a", [role], now=START)
    assert {each for each in Role if key.may(each)} == includes


def test_collections_are_names_or_beginnings() -> None:
    key = made(collections=("photos", "acme-*"))
    assert [key.sees(name) for name in ("photos", "photos2", "acme-", "acme-1", "acme", "Photos", "x", "")] == [
        True, False, True, True, False, False, False, False,
    ]  # fmt: skip
    assert made().sees("whatever")
    for wrong in ("", "*", "a*b", "a**", "../x", "a b", "é", "x" * 65, "a\n"):
        with pytest.raises(ValidationError):
            new_key("a", [Role.READ], now=START, collections=[wrong])
    for name in ("", "x" * 65, "a\nb", "\x1b[2J", " "):
        with pytest.raises(ValidationError):
            new_key(name, [Role.READ], now=START)
    with pytest.raises(ValidationError):
        new_key("a", [], now=START)


def test_a_key_ends_when_it_expires_or_is_revoked() -> None:
    key = made(expires=START + timedelta(days=1))
    assert key.state(START) == "active"
    assert key.state(START + timedelta(days=1)) == "expired"
    revoked = key.revoke(START)
    assert revoked.state(START) == "revoked"
    assert revoked.revoke(START + timedelta(hours=1)) == revoked
    assert Key.model_validate_json(revoked.model_dump_json()) == revoked
    again, token = renewed(key, now=START)
    assert (again.roles, again.expires, again.name) == (key.roles, key.expires, key.name)
    assert again.id == token.id != key.id
    assert not key.is_of(token.secret)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", START + timedelta(days=90)),
        ("30s", START + timedelta(seconds=30)),
        ("2w", START + timedelta(weeks=2)),
        ("2027-02-01T00:00:00Z", datetime(2027, 2, 1, tzinfo=UTC)),
        ("2027-02-01T02:00:00.5+02:00", datetime(2027, 2, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        (None, None),
    ],
)
def test_an_expiry_is_a_span_or_a_time(text: str | None, moment: datetime | None) -> None:
    assert parse_expiry(text, now=START) == moment


@pytest.mark.parametrize(
    "text",
    ["", "d", "90", "90y", "-1d", "0d", "2027-02-01", "2027-02-01T00:00:00", "2020-01-01T00:00:00Z", "٣d", "never"],
)
def test_what_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_expiry(text, now=START)


@given(
    st.text(max_size=40)
    | st.from_regex(r"[0-9]{1,5}[smhdw]|[0-9-]{8,10}T[0-9:.]{5,12}(Z|[+-][0-9:]{4,5})", fullmatch=True)
)
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert parse_moment(text, now=START).tzinfo is UTC
    except CrosslensError as error:
        assert error.status == 400


@given(st.text(max_size=100))
def test_any_text_is_a_key_or_none(text: str) -> None:
    token = read_token(text)
    assert token is None or str(token) == text


def test_logs_hold_no_secrets() -> None:
    _, token = new_key("a", [Role.READ], now=START)
    assert token.secret not in without_secrets(f"/v1/{token}/x?{token}")
    assert token.id in without_secrets(f"/v1/{token}")


def test_a_brought_key_must_be_long_enough_to_be_random() -> None:
    key = admin_key(SecretStr(f"  {'a1' * 16}\n"))
    assert key.is_of("a1" * 16)
    assert key.may(Role.ADMIN)
    for wrong in ("", "short", "x" * 31, "x" * 40 + "é", "x" * 20 + " " + "x" * 20, "x" * 40 + "\x00"):
        with pytest.raises(InvalidRequest):
            admin_key(SecretStr(wrong))
