"""Declared payload fields: those that filters, facets, groups and orders may rely on.

A declaration is a payload index, and Qdrant's own list of a collection's payload indexes is the one place where it is
written down: there is nothing beside it that could differ. Any field may hold one value or a list of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import TypeAdapter
from qdrant_client import models

from indexer.errors import InvalidRequest
from indexer.items import RECORD_KEY

FieldType = Literal["keyword", "integer", "float", "bool", "datetime", "geo", "text"]
"""`keyword` is matched as a whole, `text` by its words; `datetime` is RFC 3339; `geo` is `{"lon", "lat"}`."""

SOURCE_KEY = f"{RECORD_KEY}.locations[].source"
PARENT_KEY = f"{RECORD_KEY}.parent"
SHA256_KEY = f"{RECORD_KEY}.sha256"
POLICY_KEY = "moderation"
"""In a collection's metadata, its moderation policy."""
ACTION_KEY = f"{RECORD_KEY}.verdict.action"
BY_KEY = f"{RECORD_KEY}.verdict.by"
STATE_KEY = f"{RECORD_KEY}.verdict.review.state"
WITHHELD_KEY = f"{RECORD_KEY}.withheld"

OWN: Mapping[str, FieldType] = {
    SOURCE_KEY: "keyword",
    f"{RECORD_KEY}.kind": "keyword",
    SHA256_KEY: "keyword",
    PARENT_KEY: "keyword",
    f"{RECORD_KEY}.media_type": "keyword",
    f"{RECORD_KEY}.width": "integer",
    f"{RECORD_KEY}.height": "integer",
    f"{RECORD_KEY}.bytes": "integer",
    f"{RECORD_KEY}.frames": "integer",
    f"{RECORD_KEY}.added_at": "datetime",
    ACTION_KEY: "keyword",
    BY_KEY: "keyword",
    WITHHELD_KEY: "bool",
    STATE_KEY: "keyword",
}
"""Fields of Crosslens' own record."""

DEFAULTS: Mapping[str, FieldType] = {
    "taken_at": "datetime",
    "year": "integer",
    "month": "integer",
    "rating": "integer",
    "tags": "keyword",
    "camera": "keyword",
    "lens": "keyword",
    "creator": "keyword",
    "city": "keyword",
    "region": "keyword",
    "country": "keyword",
    "place": "geo",
}
"""What every new collection declares: the fields that photos' metadata fill."""

_SCHEMA: TypeAdapter[Any] = TypeAdapter(models.PayloadFieldSchema)

MOST = 100
"""Declared fields of one collection: each costs time at every write."""
MOST_CHARACTERS = 256
"""Of a field's name."""
PATH = r'([\w-]+|"[^"\x00-\x1f\x7f]+")(\[\d*\])*'
"""A step in a field's path, as Qdrant reads them."""
_FIELD = re.compile(rf"{PATH}(\.{PATH})*")


def schema_document(schema: models.PayloadFieldSchema) -> Any:
    """A payload index as JSON has it."""
    return _SCHEMA.dump_python(schema, mode="json", exclude_none=True)


def schema_of(document: Any) -> models.PayloadFieldSchema:
    """A payload index from JSON.

    Raises:
        ValueError: it is none.
    """
    found: models.PayloadFieldSchema = _SCHEMA.validate_python(document)
    return found


def schemas(
    fields: Mapping[str, FieldType], declared: Mapping[str, str] | None = None
) -> dict[str, models.PayloadFieldSchema]:
    """The fields as payload indexes, beside those of the caller's that are declared already.

    Raises:
        InvalidRequest: a type is not known, a field is not the caller's to declare or is declared as another type, or
            there are too many.
    """
    declared = declared or {}
    for field, kind in fields.items():
        if kind not in get_args(FieldType):
            raise InvalidRequest(
                f"The field {field!r} cannot be of type {kind!r}.",
                remedy=f"Choose one of {', '.join(get_args(FieldType))}.",
            )
        if len(field) > MOST_CHARACTERS or not _FIELD.fullmatch(field):
            raise InvalidRequest(
                f"{field[:60]!r} is not a field that can be declared.",
                remedy="Name it by letters, digits, _ and -; anything else in double quotes. "
                "A dot leads inside an object, [] to what is in a list.",
            )
        if field.split(".")[0].split("[")[0].strip('"') == RECORD_KEY:
            raise InvalidRequest(f"{field!r} is not a field that can be declared.", remedy="Choose another name.")
        if declared.get(field, kind) != kind:
            raise InvalidRequest(
                f"The field {field!r} is declared as {declared[field]} already.",
                remedy="Use another field, or remove the payload index of this one first.",
            )
    if len({**declared, **fields}) > MOST:
        raise InvalidRequest(
            f"A collection can declare no more than {MOST} fields.",
            remedy="Declare those alone that are filtered, counted or ordered by.",
        )
    return {field: models.PayloadSchemaType(kind) for field, kind in fields.items()}
