"""What an item is: its identity, its record in the payload, and where it came from.

A point's payload is the caller's own fields at the top level, so that a filter reads `{"key": "tag", ...}`, and
Crosslens' record under one reserved key, `crosslens`.
"""

import hashlib
import re
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from indexer.errors import InvalidName, ReservedPayloadKey

RECORD_KEY = "crosslens"
"""The payload key that holds an item's `Record`; callers cannot write it."""

NAMESPACE = uuid.UUID("6f0b6c1e-3f0b-5c2a-9d0e-6b7c1a2f4e55")
"""The UUIDv5 namespace of item ids. Changing it would orphan every stored id."""

Modality = Literal["image", "text"]
"""Which of a model's towers embeds something."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Kind(StrEnum):
    """What an item is made of."""

    IMAGE = "image"
    TEXT = "text"
    VIDEO = "video"
    """A frame of a video or an animation."""
    PAGE = "page"
    """Of a PDF."""

    @property
    def modality(self) -> Modality:
        """Which of a model's towers embeds it."""
        return "text" if self is Kind.TEXT else "image"


class Location(BaseModel):
    """One place where an item's bytes were seen, and what tells that the file there has not changed since."""

    model_config = ConfigDict(frozen=True)

    source: str
    """A path, URL, `upload:<sha256>`, or `<text file>:<line>`.

    A frame or page but the first has a fragment behind it: `#t=12.5` (Media Fragments URI), `#page=3` (RFC 8118).
    """
    size: int | None = None
    mtime_ns: int | None = None


class Record(BaseModel):
    """Crosslens' own record of an item, stored in the payload under `crosslens`."""

    kind: Kind
    sha256: str
    """Of the file's bytes, or of a text item's UTF-8; a frame's and a page's is the whole file's."""
    locations: list[Location]
    """Every place the same bytes were found, first seen first."""
    bytes: int
    media_type: str
    """By content: `image/jpeg`, ...; `text/plain` for text items."""
    width: int | None = None
    height: int | None = None
    """As seen, after EXIF orientation."""
    pdq: str | None = None
    """The picture's PDQ hash, 64 hex digits; None where it is too flat to have one that means anything."""
    text: str | None = None
    """A text item's text; of a page, what can be selected there."""
    parent: str | None = None
    """Of a frame or page: the id of its file's first one, which stands for the file; of that, its own."""
    seconds: float | None = None
    """From the start of a video or animation."""
    page: int | None = None
    """Of a PDF; 1 is the first."""
    frames: int | None = None
    """How many frames or pages the file gave, at its first one; None until all of them are in."""
    verdict: dict[str, Any] | None = None
    """What moderation found of it and decided (`indexer.moderation.verdicts`)."""
    withheld: bool | None = None
    """Whether another part of its file is not shown; then it is not shown either."""
    scores: dict[str, list[float]] | None = None
    """Of each image classifier that moderation asked: its labels' probabilities, so that nothing is decoded again."""
    name: str | None = None
    """The id that the caller named, if it is not itself a UUID."""
    added_at: datetime
    job: str | None = None
    """The part of a queued job that indexed it, `<job>/<shard>`: should that be delivered again, it knows its own."""

    @property
    def whole(self) -> bool:
        """Whether everything that its file gives is in."""
        return self.parent is None or self.frames is not None


def check_collection_name(name: str) -> str:
    """Give the name back if it may name a collection.

    Raises:
        InvalidName: anything but 1 to 64 letters, digits, '-' and '_'.
    """
    if not _NAME.fullmatch(name):
        raise InvalidName(f"{name!r} cannot name a collection.")
    return name


def content_id(collection: str, sha256: str) -> str:
    """The id of an item that its content names: delivery twice is one item."""
    return str(uuid.uuid5(NAMESPACE, f"{collection}/{sha256}"))


def point_id(collection: str, name: str) -> str:
    """The point id of an item that the caller names: a UUID as it is, anything else hashed to one."""
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, f"{collection}/name/{name}"))


def fragment(seconds: float | None, page: int | None) -> str:
    """What a frame's or page's source has behind its file's: `#t=12.5`, `#page=3`."""
    return f"#page={page}" if page is not None else f"#t={seconds or 0:.3f}".rstrip("0").rstrip(".")


def sha256_hex(data: bytes) -> str:
    """The content hash that identity is made of."""
    return hashlib.sha256(data).hexdigest()


def to_payload(record: Record, payload: dict[str, Any] | None = None) -> dict[str, Any]:
    """The point payload of an item: the caller's fields and the record.

    Raises:
        ReservedPayloadKey: the caller's payload has the key `crosslens`.
    """
    if payload and RECORD_KEY in payload:
        raise ReservedPayloadKey(f"The payload has the key {RECORD_KEY!r}.")
    return {**(payload or {}), RECORD_KEY: record.model_dump(mode="json", exclude_none=True)}


def from_payload(stored: dict[str, Any]) -> tuple[Record, dict[str, Any]]:
    """An item's record and the caller's own fields, from a stored payload."""
    payload = {key: value for key, value in stored.items() if key != RECORD_KEY}
    return Record.model_validate(stored[RECORD_KEY]), payload


def now() -> datetime:
    """The time, in UTC, as records keep it."""
    return datetime.now(UTC)
