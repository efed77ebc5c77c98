"""The short form of filters, for people: `tag:beach year>=2020 -kind:video`.

Conditions are separated by blanks and must all hold; `-` before one turns it round.

    tag:beach          the field has this value, or one of its values is this
    tag:beach,sea      one of several
    title:"two words"  quotes keep blanks, commas and signs in a value
    year>=2020         also > < <=, for numbers and times (`taken_at<2020-05-01`)
    year:2018..2020    from .. to, both included; either may be left out
    has:place          the field is there and not empty
    near:48.85,2.35,10km   the field `place` lies within so many m or km of a latitude and longitude

`kind`, `type`, `width`, `height`, `bytes` and `added` are Crosslens' own fields, unless the collection declares one of
that name; `tag` is the field `tags`. Dots lead into nested fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from indexer.errors import InvalidRequest
from indexer.items import RECORD_KEY

MAX_LENGTH = 4096
"""Characters of a filter."""

OWN_FIELDS = {
    "kind": f"{RECORD_KEY}.kind",
    "type": f"{RECORD_KEY}.media_type",
    "width": f"{RECORD_KEY}.width",
    "height": f"{RECORD_KEY}.height",
    "bytes": f"{RECORD_KEY}.bytes",
    "added": f"{RECORD_KEY}.added_at",
}
_OWN_TYPES = {"width": "integer", "height": "integer", "bytes": "integer", "added": "datetime"}

_CONDITION = re.compile(
    r"""\s*(?P<minus>-?)(?P<field>[^\s:<>="',-][^\s:<>="',]*)(?P<sign>>=|<=|>|<|:)(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s"])+)(?=\s|$)"""
)
_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,"]+)')
_RANGES = {">=": "gte", ">": "gt", "<=": "lte", "<": "lt"}
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_DAY = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
_TRUTHS = ("true", "false")
_NEAR = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(\d+(?:\.\d+)?)(km|m)", re.ASCII)
_REMEDY = 'Write conditions such as tag:beach, year>=2020, title:"two words", -kind:video, has:place.'

Condition = dict[str, Any]


def parse_short(text: str, types: Mapping[str, str]) -> dict[str, Any]:
    """A filter in the short form as one in Qdrant's language.

    `types` are those of the collection's declared fields; values of others are taken for what they look like.

    Raises:
        InvalidRequest: it does not parse, or a value does not fit its field.
    """
    if len(text) > MAX_LENGTH:
        raise _wrong(f"has more than {MAX_LENGTH:,} characters")
    must: list[Condition] = []
    must_not: list[Condition] = []
    at = 0
    while text[at:].strip():
        match = _CONDITION.match(text, at)
        if match is None:
            raise _wrong(f"cannot be read from {text[at:].strip()[:60]!r} on")
        (must_not if match["minus"] else must).append(_condition(match["field"], match["sign"], match["value"], types))
        at = match.end()
    return {"must": must, "must_not": must_not}


def _condition(name: str, sign: str, value: str, types: Mapping[str, str]) -> Condition:
    if sign == ":" and name == "has" and "has" not in types:
        return {"must_not": [{"is_empty": {"key": _key(_text(value), types)}}]}
    if sign == ":" and name == "near" and "near" not in types:
        return _near(value)
    key, kind = _key(name, types), types.get(name) or _OWN_TYPES.get(name)
    if sign != ":":
        return _range(key, kind, **{_RANGES[sign]: _text(value)})
    if ".." in value and '"' not in value and kind != "keyword":
        low, _, high = value.partition("..")
        return _range(key, kind, **{name: end for name, end in (("gte", low), ("lte", high)) if end})
    parts = _parts(value)
    either = [match for text, quoted in parts for match in _matches(key, kind, text, quoted=quoted)]
    return either[0] if len(either) == 1 else {"should": either}


def _matches(key: str, kind: str | None, text: str, *, quoted: bool) -> list[Condition]:
    """What finds a value; of a field that is not declared, `2020` may be a number or a string."""
    if kind == "integer" and (not _NUMBER.fullmatch(text) or "." in text):
        raise _wrong(f"compares {key}, a whole number, with {text[:60]!r}")
    if kind == "bool" and text not in _TRUTHS:
        raise _wrong(f"compares {key}, true or false, with {text[:60]!r}")
    found: list[Condition] = []
    if kind in {"float", "datetime"}:
        return [_range(key, kind, gte=text, lte=text)]
    if kind == "integer":
        return [_match(key, int(text))]
    if kind is None and not quoted and _NUMBER.fullmatch(text):
        found.append(_range(key, "float", gte=text, lte=text))
    if kind == "bool" or (kind is None and not quoted and text in _TRUTHS):
        found.append(_match(key, text == "true"))
    if kind != "bool":
        found.append({"key": key, "match": {"text": text}} if kind == "text" else _match(key, text))
    return found


def _match(key: str, value: str | int | bool) -> Condition:
    return {"key": key, "match": {"value": value}}


def _range(key: str, kind: str | None, **ends: str) -> Condition:
    if not ends:
        raise _wrong(f"has a range of {key} without an end")
    if kind in {"keyword", "text", "bool", "geo"}:
        raise _wrong(f"compares {key}, which has no order, with {next(iter(ends.values()))[:60]!r}")
    values: dict[str, float | int | str] = {}
    for end, text in ends.items():
        if kind != "datetime" and _NUMBER.fullmatch(text):
            values[end] = float(text) if "." in text else int(text)
        elif kind in {"integer", "float"}:
            raise _wrong(f"compares {key}, a number, with {text[:60]!r}")
        else:
            first, behind = _span(key, text)
            # `<=2020` lets all of 2020 through, `>2020` none of it.
            name, time = {"gte": ("gte", first), "gt": ("gte", behind), "lte": ("lt", behind), "lt": ("lt", first)}[end]
            if first == behind:
                name = end
            values[name] = time.isoformat()
    return {"key": key, "range": values}


def _span(key: str, text: str) -> tuple[datetime, datetime]:
    """When a year, month or day begins and the next one does; a time of day is twice itself."""
    wrong = _wrong(f"compares {key} with {text[:60]!r}, which is neither a number nor a time such as 2020-05-01")
    try:
        match = _DAY.fullmatch(text)
        if match is None:
            time = datetime.fromisoformat(text)
            return time, time
        year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
        first = datetime(year, month, day)
        if match[3]:
            return first, first + timedelta(days=1)
        months = year * 12 + month - 1 + (1 if match[2] else 12)
        return first, datetime(months // 12, months % 12 + 1, 1)
    except (ValueError, OverflowError) as error:
        raise wrong from error


def _near(value: str) -> Condition:
    match = _NEAR.fullmatch(value)
    if match is None:
        raise _wrong(f"has {value[:60]!r} for a place; write near:LATITUDE,LONGITUDE,10km")
    latitude, longitude, far, unit = float(match[1]), float(match[2]), float(match[3]), match[4]
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise _wrong(f"has {value[:60]!r}, which is nowhere on earth")
    centre = {"lat": latitude, "lon": longitude}
    return {"key": "place", "geo_radius": {"center": centre, "radius": far * (1000 if unit == "km" else 1)}}


def _key(name: str, types: Mapping[str, str]) -> str:
    if name == "tag" and name not in types and "tags" in types:
        return "tags"  # where photos' keywords are; everybody writes one
    return name if name in types else OWN_FIELDS.get(name, name)


def _parts(value: str) -> list[tuple[str, bool]]:
    """A value's alternatives, each with whether it was quoted."""
    parts: list[tuple[str, bool]] = []
    at = 0
    while True:
        match = _PART.match(value, at)
        if match is None:
            raise _wrong(f"has an empty value in {value[:60]!r}")
        quoted = match[1] is not None
        parts.append((re.sub(r"\\(.)", r"\1", match[1]) if quoted else match[2], quoted))
        at = match.end()
        if at == len(value):
            return parts
        if value[at] != ",":
            raise _wrong(f"needs a comma or a blank behind the quotes in {value[:60]!r}")
        at += 1


def _text(value: str) -> str:
    parts = _parts(value)
    if len(parts) > 1:
        raise _wrong(f"takes one value, not {value[:60]!r}")
    return parts[0][0]


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"filter: {what}.", remedy=_REMEDY, field="filter")
