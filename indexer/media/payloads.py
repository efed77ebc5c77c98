"""What goes with an item: captions and fields, checked so that one of them cannot stop a batch from being stored."""

from __future__ import annotations

import json
from typing import Any

from indexer.errors import InvalidTextSource
from indexer.items import RECORD_KEY

MAX_TEXT = 2**20
"""Bytes of a line, a row, or a file beside an image."""

CAPTION = "caption"
"""The payload key of an image's caption."""

_DEPTH = 64
"""Objects and lists in one another; the index refuses a batch at about twice that."""


def decoded(data: bytes, what: str) -> str:
    """UTF-8 without the space around it.

    Raises:
        InvalidTextSource: it is not UTF-8; `what` is what the message calls it.
    """
    try:
        return data.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidTextSource(f"{what} is not UTF-8.", remedy="Save the file as UTF-8.") from error


def parse_json(text: str) -> Any:
    """JSON without NaN and infinities.

    Raises:
        ValueError, RecursionError: it does not parse.
    """
    return json.loads(text, parse_constant=_no_constant)


def check_payload(payload: dict[str, Any]) -> None:
    """Refuse what could not be stored.

    Raises:
        InvalidTextSource: a reserved key, a string that is no Unicode, a number that is infinite or has more than 64
            bits, or too deep a nesting.
    """
    if RECORD_KEY in payload:
        raise InvalidTextSource(
            f'The key "{RECORD_KEY}" is reserved for the item\'s own record.', remedy="Rename the key or column."
        )
    level: list[Any] = [payload]
    for _ in range(_DEPTH):
        values = [value for each in level for value in (each.values() if isinstance(each, dict) else each)]
        if any(isinstance(value, int) and not -(2**63) <= value < 2**64 for value in values):
            raise InvalidTextSource("A number has more than 64 bits.", remedy="Write it as a string.")
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            break
    else:
        raise InvalidTextSource(f"Objects are nested more than {_DEPTH} deep.", remedy="Flatten the object.")
    try:
        check_unicode(json.dumps(payload, ensure_ascii=False, allow_nan=False))
    except ValueError as error:
        raise InvalidTextSource("A number is infinite or none.", remedy="Leave it out.") from error


def check_unicode(text: str) -> None:
    """Refuse a string that has no UTF-8.

    Raises:
        InvalidTextSource: it holds half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextSource("A string is no valid Unicode.", remedy="Save the file as UTF-8.") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
