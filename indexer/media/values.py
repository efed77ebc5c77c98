"""What metadata say, as plain values: texts, moments, places, numbers; what makes no sense is left out."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any

MAX_TEXT = 4096
"""Characters of a text that are kept."""
MAX_TAG = 128
"""Characters of a tag that are kept."""
MAX_TAGS = 100
"""Tags that are kept."""

FIRST_YEAR, LAST_YEAR = 1826, 2100
"""The years in which something may have been taken; the oldest photograph that is left is from 1826."""

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
# EXIF: 2024:05:01 12:30:00; XMP: 2024-05-01T12:30:00.25+02:00, or less of it; IPTC: 20240501T123000+0200;
# PDF: 20240501123000+02'00'.
_MOMENT = re.compile(
    r"(?P<year>\d{4})(?:[:/.-]?(?P<month>\d\d)(?:[:/.-]?(?P<day>\d\d)"
    r"(?:[T ]?(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,12}))?)?"
    r" ?(?P<zone>Z(?:00'?00'?)?|[+-]\d\d(?:[:']?\d\d'?)?'?)?)?)?)?",
    re.ASCII,
)
_ZONE = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d)\D?(?P<minutes>\d\d)?\D?", re.ASCII)
_FARTHEST_ZONE = timedelta(hours=15)
_XMP_DEGREES = re.compile(
    r"(\d{1,3}(?:\.\d{1,20})?)(?:,(\d{1,2}(?:\.\d{1,20})?))?(?:,(\d{1,2}(?:\.\d{1,20})?))?([NSEW])", re.ASCII
)
_ISO_6709 = re.compile(
    r"([+-])(\d{2}|\d{4}|\d{6})(\.\d{1,20})?([+-])(\d{3}|\d{5}|\d{7})(\.\d{1,20})?([+-]\d{1,9}(?:\.\d{1,20})?)?"
    r"(?:CRS[\w:]{1,40})?/?",
    re.ASCII,
)
# What follows a maker's name in EXIF, but not on its cameras.
_COMPANY = re.compile(
    r"(?:[\s,]+(?:imaging|optical|photo film|techwin|corporation|company|electronics|corp|co|ltd"
    r"|inc|gmbh|ag)\b[.,]*)+$",
    re.IGNORECASE,
)
# What cameras and programs write where a caption would be.
_NO_CAPTION = re.compile(
    r"untitled|unknown|none|null|\(null\)|n/?a|ascii|charset=\w+|binary comment|image|photo|picture|default"
    r"|(.*\b)?digital (still ?)?camera|sony dsc|minolta dsc|dcf 1\.0|exif[ _]jpeg[ _]picture|my beautiful picture"
    r"|samsung( camera pictures)?|<digimax.*>|casio computer co.*|dc ?img|creator: gd-jpeg.*"
    r"|file (source: |written by ).*|shape=\(.*\)|\{\"shape\": .*\}"
    r"|((gif )?made|created|edited|generated|optimi[sz]ed|compressed) (with|by|using|on) .*"
    r"|cof|dav|vdr|sdr|btf|mde|ptr|fbt|rhdr|hdr(pl)?|oznor\w{0,3}|burst",  # Huawei's modes
    re.IGNORECASE,
)
_EMPTY = re.compile(r"[\W_]*")


def decoded(data: bytes) -> str:
    """Text that does not say how it is encoded: UTF-8, as the guidance has it; what is none, Windows' Latin-1.

    EXIF itself knows ASCII alone.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def clean(text: str, most: int = MAX_TEXT) -> str:
    """At most so many characters of valid Unicode (NFC) in one line, without control characters."""
    words = _CONTROLS.sub(" ", text[: 4 * most]).split()
    text = " ".join(words).encode("utf-8", "ignore").decode()
    # Cut before and after: normalizing takes the square of a text's length at worst, and may make it longer.
    return unicodedata.normalize("NFC", text[:most])[:most].strip()


def first(*texts: str | None) -> str:
    """The first text with a letter or digit, clean; empty if there is none."""
    return next((known for text in texts if text and not _EMPTY.fullmatch(known := clean(text))), "")


def first_caption(*texts: str | None) -> str:
    """The first text that somebody wrote: what cameras write by themselves is passed over."""
    return first(*(text for text in texts if text and not _NO_CAPTION.fullmatch(clean(text))))


def tags(texts: Iterable[str]) -> list[str]:
    """Each once, whatever its case."""
    found: dict[str, str] = {}
    for text in islice(texts, 10 * MAX_TAGS):
        if tag := clean(text, MAX_TAG):
            found.setdefault(tag.casefold(), tag)
    return list(found.values())[:MAX_TAGS]


def moment(text: str, fraction: str = "", zone: str = "") -> dict[str, Any]:
    """`taken_at`, `year` and `month` of a date in EXIF's, XMP's, IPTC's or PDF's form; empty if it is none.

    A fraction of the second and an offset from UTC may be given apart. A date without a time counts from midnight; one
    without a day has a year, and perhaps a month, but no `taken_at`.
    """
    found = _MOMENT.fullmatch(text.strip("\0 ").removeprefix("D:"))
    if found is None or not FIRST_YEAR <= int(found["year"]) <= LAST_YEAR:
        return {}
    year, month, day, hour, minute, second = (
        int(found[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    if found["day"] is None or not day:  # IPTC writes zeros for what is not known
        if found["month"] is None or not month:
            return {"year": year}
        return {"year": year, "month": month} if 1 <= month <= 12 else {}
    try:
        when = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=_zone(found["zone"] or zone))
    except ValueError:
        return {}
    base, offset = when.isoformat()[:19], when.isoformat()[19:]
    digits = found["fraction"] or fraction.strip("\0 ")
    parts = f".{digits[:6]}".rstrip("0.") if digits.isascii() and digits.isdigit() else ""
    return {"taken_at": base + parts + offset, "year": year, "month": month}


def _zone(text: str) -> timezone | None:
    text = text.strip("\0 ")
    if text.startswith("Z"):
        return UTC
    found = _ZONE.fullmatch(text)
    if found is None:
        return None
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    if offset > _FARTHEST_ZONE:
        return None
    return timezone(-offset if found["sign"] == "-" else offset)


def number(value: float | None, least: float, most: float) -> float | None:
    """A number between the two, to six digits; None if it is not there or beyond them."""
    return float(f"{value:.6g}") if value is not None and least <= value <= most else None


def fraction(text: str) -> float | None:
    """XMP's numbers: `1/125`, `0.008`; None if it is none."""
    above, _, below = text.strip().partition("/")
    try:
        value = float(above[:40]) / float(below[:40] or 1)
    except (ValueError, ArithmeticError):
        return None
    return value if math.isfinite(value) else None


def degrees(parts: tuple[float, ...], reference: str) -> float | None:
    """Degrees, minutes and seconds with the letter of their direction; None without it: no side is guessed."""
    reference = reference.strip("\0 ").upper()[:1]
    if reference not in {"N", "S", "E", "W"} or not parts:
        return None
    if not all(0 <= part < 1000 for part in parts[:3]):  # nor NaN, a zero denominator's
        return None
    value = sum(part / 60.0**power for power, part in enumerate(parts[:3]))
    return -value if reference in {"S", "W"} else value


def xmp_degrees(text: str) -> float | None:
    """XMP's form: `26,34.951N` or `26,34,57S`; None if it is another."""
    found = _XMP_DEGREES.fullmatch(text.strip())
    return degrees(tuple(float(part or 0) for part in found.groups()[:3]), found[4]) if found else None


def place(latitude: float | None, longitude: float | None, *, fixed: bool = False) -> dict[str, Any]:
    """`place` with `lat` and `lon`; empty if there is none on Earth.

    Exactly 0, 0 is what receivers write before they know; it counts only if they are said to have `fixed` it.
    """
    if latitude is None or longitude is None:
        return {}
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180) or (not latitude and not longitude and not fixed):
        return {}
    return {"place": {"lat": round(latitude, 7), "lon": round(longitude, 7)}}


def altitude(metres: float | None) -> dict[str, Any]:
    """`altitude`, from the deepest trench to the orbits of space stations; empty elsewhere."""
    known = number(metres, -12_000, 1_000_000)
    return {} if known is None else {"altitude": known}


def iso_6709(text: str) -> dict[str, Any]:
    """`place` and `altitude` of a point such as `+37.3349-122.0090+012.3/`; empty if it is none."""
    found = _ISO_6709.fullmatch(text.strip("\0 "))
    if found is None:
        return {}
    north, latitude, part_of_latitude, east, longitude, part_of_longitude, high = found.groups(default="")
    point = place(
        _sexagesimal(north, latitude, part_of_latitude, 2), _sexagesimal(east, longitude, part_of_longitude, 3)
    )
    return point | altitude(float(high)) if point and high else point


def _sexagesimal(sign: str, digits: str, part: str, width: int) -> float:
    """DD, DDMM or DDMMSS, the last of them with a fraction."""
    parts = [float(digits[:width]), *(float(digits[at : at + 2]) for at in range(width, len(digits), 2))]
    parts[-1] += float(part or 0)
    value = sum(each / 60.0**power for power, each in enumerate(parts))
    return -value if sign == "-" else value


def camera(make: str, model: str) -> str:
    """Make and model as one name that says the make once: `Canon EOS R5`, `OLYMPUS E-M1`."""
    make, model = clean(make), clean(model)
    if model and not set(make.casefold().split()).isdisjoint(model.casefold().split()[:1]):
        return model
    make = _COMPANY.sub("", make[:MAX_TAG])
    return model if model.casefold().startswith(make.casefold()) and model else clean(f"{make} {model}")
