"""What a filter in Qdrant's language asks of a collection: that its fields are declared, and of the type it takes.

The embedded index would search through fields that are not declared, only slowly; a Qdrant server in strict mode
refuses them. Neither finds anything where a field is compared with what it cannot hold. So both are refused here, with
the field named, and a filter that was tried in one place works in the other.

The same holds for `is_empty` and `is_null`, on which a server in strict mode insists, too: any declared type will do
for them, and for `values_count`. `has_id` is about no field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from indexer.errors import InvalidRequest
from indexer.items import RECORD_KEY

if TYPE_CHECKING:
    from qdrant_client.http.models import Filter

MOST_DEEP = 32
"""Levels of JSON in a filter."""
MOST_VALUES = 10_000
"""JSON values in a filter, those of lists and the names of members included."""

_WORDS = {"keyword", "uuid"}
_KINDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "text_any": frozenset({"text"}),
    "phrase": frozenset({"text"}),
    "geo_radius": frozenset({"geo"}),
    "geo_bounding_box": frozenset({"geo"}),
    "geo_polygon": frozenset({"geo"}),
}
_TAKES = {
    "keyword": "match with value, any or except, of strings",
    "uuid": "match with value, any or except, of strings",
    "integer": "match with value, any or except, of whole numbers, and a range of numbers",
    "float": "a range of numbers",
    "bool": "match with the value true or false",
    "datetime": "a range of times such as 2020-05-01T00:00:00Z",
    "text": "match with text, text_any or phrase",
    "geo": "geo_radius, geo_bounding_box and geo_polygon",
}
"""What each type of field can be compared with."""
_SHOWN = 40


def check_size(body: Any) -> None:
    """Refuse what is too deep or too large to be looked at more closely, and what JSON, or the index, does not have.

    Raises:
        InvalidRequest: it is.
    """
    left = MOST_VALUES
    level, depth = [body], 0
    while level:
        depth += 1
        left -= len(level)
        if depth > MOST_DEEP:
            raise _wrong("filter", f"has more than {MOST_DEEP} levels", "Nest fewer filters in each other.")
        if left < 0:
            raise _wrong("filter", f"has more than {MOST_VALUES:,} values", "Ask for less at a time.")
        for each in level:
            if (isinstance(each, float) and not math.isfinite(each)) or (
                isinstance(each, int) and not -(2**63) <= each < 2**63
            ):
                raise _wrong("filter", f"has a number that cannot be compared: {str(each)[:30]}", "Name another.")
            if isinstance(each, str) and not _is_encodable(each):
                raise _wrong("filter", "has a string that is not valid Unicode", "Send whole characters.")
        level = [inner for each in level for inner in _inside(each)]


def check_fields(filter: Filter, types: Mapping[str, str]) -> None:
    """Hold every condition against the types of a collection's fields: those declared, and those of its own record.

    Raises:
        InvalidRequest: naming the place in the filter, the field, and what is possible.
    """
    _check(filter, types, "filter", "")


def _check(filter: Filter, types: Mapping[str, str], where: str, prefix: str) -> None:
    for place, condition in _conditions(filter, where):
        dumped = condition.model_dump(exclude_none=True)
        if "key" in dumped:
            _check_condition(dumped, types, place, prefix)
        elif "is_empty" in dumped or "is_null" in dumped:
            _type_of(prefix + next(iter(dumped.values()))["key"], types, place)
        elif "nested" in dumped:
            _check(condition.nested.filter, types, f"{place}.nested.filter", f"{prefix}{condition.nested.key}.")
        elif not isinstance(condition, type(filter)):
            if "has_id" not in dumped:  # such as `has_vector` and `slice`, which the embedded index does not know
                raise _wrong(place, f"has {next(iter(dumped), 'nothing')}", "Filter by fields, or by has_id.")
        else:
            _check(condition, types, place, prefix)


def _conditions(filter: Filter, where: str) -> Iterator[tuple[str, Any]]:
    for clause in ("must", "should", "must_not"):
        given = getattr(filter, clause)
        if isinstance(given, list):
            yield from ((f"{where}.{clause}.{number}", each) for number, each in enumerate(given))
        elif given is not None:
            yield f"{where}.{clause}", given
    if filter.min_should is not None:
        for number, each in enumerate(filter.min_should.conditions):
            yield f"{where}.min_should.conditions.{number}", each


def _check_condition(condition: dict[str, Any], types: Mapping[str, str], where: str, prefix: str) -> None:
    key = prefix + condition.pop("key")
    kind = _type_of(key, types, where)
    if not condition:
        raise _wrong(where, f"says nothing of {key!r}", f"It takes {_TAKES[kind]}.")
    for name, value in condition.items():
        if name in {"is_empty", "is_null", "values_count"}:
            continue
        fits = _fitting_match(value) if name == "match" else _fitting_range(value) if name == "range" else _KINDS[name]
        if kind not in fits:
            raise _wrong(
                where,
                f"compares {key!r}, which is of type {kind}, by {_said(name, value)}",
                f"A field of type {kind} takes {_TAKES[kind]}.",
            )


def _fitting_match(match: dict[str, Any]) -> frozenset[str]:
    name, value = next(iter(match.items()))
    if name in _KINDS:
        return _KINDS[name]
    if name not in {"value", "any", "except_"}:
        return frozenset()
    values = value if isinstance(value, list) else [value]
    kinds = [
        {"bool"} if isinstance(each, bool) else {"integer"} if isinstance(each, int) else _WORDS for each in values
    ]
    # A list without values is of no type, and fits what takes lists.
    return frozenset(set.intersection(*kinds) if kinds else _WORDS | {"integer"})


def _fitting_range(limits: dict[str, Any]) -> frozenset[str]:
    numbers = all(isinstance(each, int | float) for each in limits.values())
    return frozenset({"integer", "float"} if numbers else {"datetime"})


def _said(name: str, value: Any) -> str:
    if name == "match":
        inner, given = next(iter(value.items()))
        return f"match with {inner.removesuffix('_')} {str(given)[:40]!r}"
    if name == "range":
        return "a range of numbers" if "integer" in _fitting_range(value) else "a range of times"
    return name


def _type_of(key: str, types: Mapping[str, str], where: str) -> str:
    if (kind := types.get(key)) is not None:
        return kind
    declared = sorted(types, key=lambda field: (field.startswith(f"{RECORD_KEY}."), field))
    shown = ", ".join(f"{field} ({types[field]})" for field in declared[:_SHOWN])
    further = f" and {len(declared) - _SHOWN} more" if len(declared) > _SHOWN else ""
    remedy = "Name one of those."
    if not key.startswith(RECORD_KEY):
        remedy = (
            "Name one of those; or declare this one with its type: "
            f"`crosslens collections declare COLLECTION {key[:60]}=keyword`, or over HTTP "
            f"PUT /v1/collections/COLLECTION with {json.dumps({'fields': {key[:60]: 'keyword'}}, ensure_ascii=False)}. "
            "In the short form (tag:beach) the embedded index searches others, too."
        )
    raise InvalidRequest(
        f"{where}: the field {key[:60]!r} is not declared in this collection. Declared are {shown}{further}.",
        remedy=remedy,
        field=where,
    )


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(where: str, what: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {what}.", remedy=remedy, field=where)
