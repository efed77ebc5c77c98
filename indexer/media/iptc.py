"""IPTC-IIM: the news agencies' fields, and the Photoshop resources that hold them (IIM 4.2)."""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from indexer.media.values import decoded

TITLE, KEYWORDS, CITY, REGION, COUNTRY = 5, 25, 90, 95, 101
DATE, TIME, DIGITIZED_DATE, DIGITIZED_TIME = 55, 60, 62, 63
PROGRAM, CREATOR, COPYRIGHT, CAPTION = 65, 80, 116, 120

_IPTC, _DIGEST = 0x0404, 0x0425
_MARK = 0x1C
_MAX_DATASETS = 2000
_MAX_RESOURCES = 1000
_UTF_8 = b"\x1b%G"  # ISO 2022's escape sequence, in the dataset that names the encoding of the others


class Resources(NamedTuple):
    """Of Photoshop's resources those that are of use here."""

    iptc: bytes
    digest: bytes
    """MD5 of the IPTC at the time when XMP was last written with it; empty if that is not known."""


def resources(data: bytes) -> Resources:
    """The IPTC among Photoshop's resources; never raises."""
    found: dict[int, bytes] = {}
    at = 0
    for _ in range(_MAX_RESOURCES):
        if data[at : at + 4] != b"8BIM" or at + 12 > len(data):
            break
        name, number = data[at + 6], int.from_bytes(data[at + 4 : at + 6], "big")
        at += 6 + (name + 2) // 2 * 2  # with its length a name has an even number of bytes
        size = int.from_bytes(data[at : at + 4], "big")
        found.setdefault(number, data[at + 4 : at + 4 + size])
        at += 4 + (size + 1) // 2 * 2
    return Resources(found.get(_IPTC, b""), found.get(_DIGEST, b""))


def read(data: bytes) -> dict[int, list[str]]:
    """The texts of the application record (2) by their datasets' numbers; up to the first broken one, never raises."""
    found: dict[int, list[bytes]] = {}
    utf_8, at = False, 0
    for _ in range(_MAX_DATASETS):
        try:
            mark, record, dataset, size = struct.unpack_from(">BBBH", data, at)
        except struct.error:
            break
        at += 5
        if mark != _MARK:
            break
        if size & 0x8000:  # then that many bytes have the size
            width = size & 0x7FFF
            size, at = int.from_bytes(data[at : at + min(width, 8)], "big"), at + width
        value = data[at : at + size]
        if len(value) < size:
            break
        at += size
        if (record, dataset) == (1, 90):
            utf_8 = value.startswith(_UTF_8)
        elif record == 2:
            found.setdefault(dataset, []).append(value)
    return {
        dataset: [value.decode("utf-8", "replace") if utf_8 else decoded(value) for value in values]
        for dataset, values in found.items()
    }


def changed_since(data: bytes, digest: bytes) -> bool:
    """Whether IPTC was changed by a program that did not change XMP with it, which is what the digest is for."""
    return len(digest) == 16 and any(digest) and hashlib.md5(data, usedforsecurity=False).digest() != digest
