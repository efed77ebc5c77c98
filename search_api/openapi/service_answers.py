"""What the API answers of itself: keys, the audit log, health."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from search_api.openapi.answers import Absent, Answer, Problem


class KeyLimits(Answer):
    """What of a key's limits is not as the server has it."""

    rate: float | Absent = None
    burst: int | Absent = None
    requests_per_day: int | Absent = None
    bytes_per_day: int | Absent = None
    items_per_day: int | Absent = None


class ListedKey(Answer):
    """A key without its secret."""

    id: str
    name: str
    roles: list[Literal["read", "write", "moderate", "admin"]]
    collections: list[str]
    """Names, or beginnings of names with a `*`; none: all collections."""
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    used: datetime | None
    state: Literal["active", "expired", "revoked"]
    limits: KeyLimits


class MadeKey(ListedKey):
    """A key that was made just now."""

    key: Annotated[str, Field(pattern="^clk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}$")]
    """The key itself, shown this once."""


class KeyList(Answer):
    """Keys, the oldest first."""

    keys: list[ListedKey]


class AuditEntry(Answer):
    """A change or a refusal."""

    when: datetime
    key: str | None
    name: str | None
    address: str
    method: str
    path: str
    collection: str | None
    status: int
    request: str
    unlogged: int


class AuditPage(Answer):
    """What was done, newest first."""

    entries: list[AuditEntry]
    next: str | None


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]


class Part(Answer):
    """One part of the server."""

    ok: bool
    code: str | Absent = None
    reason: str | Absent = None
    devices: dict[str, str] | Absent = None


class Readiness(Answer):
    """The server can answer. Parts are told to this machine, and to whoever has a key."""

    status: Literal["ready"]
    parts: dict[str, Part] | Absent = None


class NotReady(Problem):
    """The server cannot answer yet."""

    parts: dict[str, Part] | Absent = None
