"""API keys: what one looks like, what is kept of it, and what it may do.

A key is `clk_<id>_<secret>`: a public id of 12 hexadecimal digits, by which it is listed and revoked, and a secret of
256 random bits, shown once. Of the secret its SHA-256 alone is kept. That is enough, and a slow hash (bcrypt, Argon2)
would gain nothing: those protect what people choose, of which there are few enough to be tried one after another; 256
random bits cannot be tried at any speed, and every request pays for the hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from indexer.errors import InvalidRequest
from search_api.request import WHOLE

_TOKEN = re.compile(r"clk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_TOKENS = re.compile(r"(clk_[0-9a-f]{12})_[A-Za-z0-9_-]+")
_SPAN = re.compile(r"([0-9]{1,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

SHORTEST_ADMIN_KEY = 32
"""Characters of a key that an operator brings: as many as `openssl rand -hex 16` gives, which is 128 bits."""


class Role(StrEnum):
    """What a key is for. Each role includes what its caller needs besides."""

    READ = "read"
    """Search, and see collections, items, originals and jobs."""
    WRITE = "write"
    """All of `read`; make collections, upload, change and remove items, hand in and cancel jobs."""
    MODERATE = "moderate"
    """All of `read`; policies, reviews and rescans."""
    ADMIN = "admin"
    """Everything: remove collections, and, for a key that is for all collections, keys and the audit log."""

    @property
    def includes(self) -> frozenset[Role]:
        """Itself and what comes with it."""
        return frozenset(Role) if self is Role.ADMIN else frozenset({self, Role.READ})


def _pattern(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\*?", text):
        raise ValueError("is neither a collection's name nor the beginning of one with a * behind it")
    return text


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be printable")
    return text


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Roles = Annotated[frozenset[Role], Field(min_length=1)]
Collections = Annotated[tuple[Pattern, ...], Field(max_length=100)]


class Allowance(BaseModel):
    """How much a key may do; what is unset is as the settings have it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False, le=1e6)] | None = None
    """Requests a second, in the long run."""
    burst: Annotated[int, Field(gt=0, le=10**6), WHOLE] | None = None
    """Requests at once."""
    requests_per_day: Annotated[int, Field(gt=0, le=10**12), WHOLE] | None = None
    bytes_per_day: Annotated[int, Field(gt=0, le=10**15), WHOLE] | None = None
    items_per_day: Annotated[int, Field(gt=0, le=10**12), WHOLE] | None = None


class Key(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: Name
    digest: str
    """The SHA-256 of its secret, in hexadecimal."""
    roles: Roles
    collections: Collections = ()
    """Names, or beginnings of names with a `*`; none: all collections."""
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    used: datetime | None = None
    """About when it was last used."""
    allowance: Allowance = Allowance()

    def may(self, role: Role) -> bool:
        """Whether one of its roles is or includes this one."""
        return any(role in each.includes for each in self.roles)

    def sees(self, collection: str) -> bool:
        """Whether it is for this collection, which need not exist."""
        return not self.collections or any(
            collection.startswith(each[:-1]) if each.endswith("*") else collection == each for each in self.collections
        )

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"

    def is_of(self, secret: str) -> bool:
        """Whether this is its secret; in a time that tells nothing of how near it was."""
        return hmac.compare_digest(digest_of(secret), self.digest)

    def revoke(self, now: datetime) -> Key:
        """As it is once it is revoked; if it was before, as it is."""
        return self if self.revoked is not None else self.model_copy(update={"revoked": now})

    def as_dict(self, now: datetime) -> dict[str, Any]:
        """What may be told of it: all but the hash."""
        told = self.model_dump(mode="json", exclude={"digest", "roles", "allowance"})
        roles = [role.value for role in Role if role in self.roles]
        return {
            **told, "roles": roles, "state": self.state(now), "limits": self.allowance.model_dump(exclude_none=True),
        }  # fmt: skip


class Token(NamedTuple):
    """A key as its holder has it, taken apart."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"clk_{self.id}_{self.secret}"


def read_token(text: str) -> Token | None:
    """The parts of a key; None if the text is none."""
    found = _TOKEN.fullmatch(text)
    return Token(*found.groups()) if found else None


def without_secrets(text: str) -> str:
    """The text with the secrets of all keys in it left out; for logs."""
    return _TOKENS.sub(r"\1_...", text)


def digest_of(secret: str) -> str:
    """The SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(
    name: str,
    roles: Iterable[Role],
    *,
    now: datetime,
    collections: Iterable[str] = (),
    expires: datetime | None = None,
    allowance: Allowance | None = None,
) -> tuple[Key, Token]:
    """A new key, and what its holder gets, which nobody can find out again.

    Raises:
        pydantic.ValidationError: a name, role or pattern that will not do.
    """
    token = Token(secrets.token_hex(6), secrets.token_urlsafe(32))
    key = Key(
        id=token.id,
        name=name,
        digest=digest_of(token.secret),
        roles=frozenset(roles),
        collections=tuple(collections),
        created=now,
        expires=expires,
        allowance=allowance or Allowance(),
    )
    return key, token


def renewed(key: Key, *, now: datetime, expires: datetime | None = None) -> tuple[Key, Token]:
    """A new key with the same name and rights, and the same expiry unless another is given."""
    return new_key(
        key.name, key.roles, now=now, collections=key.collections, expires=expires or key.expires,
        allowance=key.allowance,
    )  # fmt: skip


def admin_key(secret: SecretStr) -> Key:
    """The key that an operator brings (`CROSSLENS_ADMIN_KEY`): for everything, never stored.

    Raises:
        InvalidRequest: it is too short to be random, or holds what no header can.
    """
    text = secret.get_secret_value().strip()
    if len(text) < SHORTEST_ADMIN_KEY or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest(
            f"The admin key must be {SHORTEST_ADMIN_KEY} or more random letters and digits.",
            remedy="Make one: openssl rand -hex 32",
        )
    created = datetime.fromtimestamp(0, UTC)
    return Key(
        id="environment", name="admin key", digest=digest_of(text), roles=frozenset({Role.ADMIN}), created=created
    )


def parse_moment(text: str, *, now: datetime, ahead: bool = True) -> datetime:
    """A time: RFC 3339, as 2027-01-31T12:00:00Z, or a span from now, as `90d` (s, m, h, d, w); in UTC.

    A span counts forward, or back if not `ahead`.

    Raises:
        InvalidRequest: it is neither.
    """
    try:
        if span := _SPAN.fullmatch(text):
            length = timedelta(**{_UNITS[span[2]]: int(span[1])})
            return now + length if ahead else now - length
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below
    raise InvalidRequest(
        f"{text[:40]!r} is no time.", remedy="Give a span such as 90d, or a time such as 2027-01-31T12:00:00Z."
    )


def parse_expiry(text: str | None, *, now: datetime) -> datetime | None:
    """When a key expires; None for never.

    Raises:
        InvalidRequest: it is no time, or one that has passed.
    """
    if text is None:
        return None
    moment = parse_moment(text, now=now)
    if moment <= now:
        raise InvalidRequest(f"expires: {text[:40]!r} has passed.", remedy="Name a time to come.")
    return moment
