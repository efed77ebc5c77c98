"""What a rescan reads of an item beside its vector: a row of fixed width, made of the item's record.

A verdict is in it as numbers that the judge's columns can be compared with, a million at once: its action, and a sum of
hashes of its categories, each with its probability and whether it fired. The index process makes these rows, and it is
started while somebody waits: so plain dictionaries are read here, and nothing heavy is imported.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Facts = NDArray[np.void]
    Keys = NDArray[np.uint64]

FORMAT = 1
"""Raised whenever rows come to be made in another way."""
FIELDS = [f"crosslens.{name}" for name in ("kind", "sha256", "pdq", "parent", "withheld", "verdict")]
"""The fields of a payload that are read. (`RECORD_KEY` stands in a module that takes a while to import.)"""
BY_POLICY = "policy"
"""Who a verdict is by, if no person."""
ACTIONS = ("allow", "flag", "blur", "quarantine", "block")
"""As in `indexer.moderation.policy`: an action is kept as its place."""

FACTS = np.dtype(
    [
        ("id", "S16"),
        ("home", "S16"),
        ("sha256", "u1", 32),
        ("pdq", "u1", 32),
        ("reason", "<u8"),
        ("found", "<u8"),
        ("fired", "<u8"),
        ("version", "<u8"),
        ("action", "i1"),
        ("bits", "u1"),
        ("share", "<u2"),
        ("", "V4"),
    ]
)
"""A row. `home` is the id of the file's first part, or the item's own, and `share` the end of it, by which rows can be
divided; `action` is -1 without a verdict; `fired` has a bit for each category by `Names`; `found` and `reason` are
hashes, 0 for nothing; `version` is the policy's."""
THERE, IMAGE, HAS_PDQ, PART, WITHHELD, PERSONS, SAID, ODD = (np.uint8(1 << place) for place in range(8))
"""`bits`: the row is in use; the item is a picture; has a PDQ hash; is a part of a file; is withheld for another part;
a person decided; people said something of it; its verdict is not all in the row, and has to be read."""

_MOST_NAMES = 64


class Names:
    """Names of categories, each with a bit."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._bits = {name: place for place, name in enumerate(names)}

    def __iter__(self) -> Any:
        return iter(self._bits)

    def bit(self, name: str) -> int | None:
        """The bit of a name, which gets one if there is one left."""
        place = self._bits.get(name)
        if place is None:
            if len(self._bits) >= _MOST_NAMES:
                return None
            place = self._bits[name] = len(self._bits)
        return 1 << place

    def among(self, fired: NDArray[np.uint64], name: str) -> NDArray[np.bool_]:
        """In which of these rows' `fired` a category is."""
        if name not in self._bits:
            return np.zeros(len(fired), dtype=bool)
        found: NDArray[np.bool_] = (fired >> np.uint64(self._bits[name])) & np.uint64(1) == 1
        return found


@lru_cache(4096)
def key_of(text: str) -> int:
    """A name or a reason as 64 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) or 1


def hashed(keys: Keys, probabilities: NDArray[np.float32], fired: NDArray[np.bool_]) -> Keys:
    """A hash of each finding; the sum of an item's is its `found`. Shapes are broadcast; NaN is no finding, and 0."""
    bits = np.ascontiguousarray(probabilities, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits |= fired.astype(np.uint64) << np.uint64(32)
    bits ^= keys
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of splitmix64
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    bits[np.isnan(probabilities)] = 0
    return bits


def share_of(home: bytes) -> int:
    """`share` of a row."""
    return int.from_bytes(home[-2:])


def facts_of(ids: Sequence[bytes], payloads: Sequence[Mapping[str, Any]], names: Names) -> Facts:
    """Rows of items, by their ids of 16 bytes and payloads in which at least `FIELDS` are."""
    rows = np.zeros(len(ids), dtype=FACTS)
    findings = _Findings()
    for row, (item, payload) in enumerate(zip(ids, payloads, strict=True)):
        record = payload.get("crosslens") or {}
        try:
            rows[row] = _row(item, record, names, findings, row)
        except (AttributeError, KeyError, TypeError, ValueError):
            findings.forget(row)
            rows[row]["id"] = rows[row]["home"] = item
            rows[row]["bits"], rows[row]["share"] = THERE | ODD, share_of(item)
    rows["found"] = findings.sums(len(rows))
    return rows


class _Findings:
    """Findings of several rows, gathered to be hashed at once."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._keys: list[int] = []
        self._probabilities: list[float] = []
        self._fired: list[bool] = []

    def add(self, row: int, name: str, finding: Mapping[str, Any]) -> bool:
        """Gather one; gives whether it fired."""
        fired = finding["fired"]
        probability = finding["probability"]
        if (fired is not True and fired is not False) or not 0 <= probability <= 1:
            raise ValueError("a finding that is none")
        self._keys.append(key_of(name))
        self._probabilities.append(probability)
        self._fired.append(fired)
        self._rows.append(row)
        return fired

    def forget(self, row: int) -> None:
        """Let go of the last row's."""
        while self._rows and self._rows[-1] == row:
            for column in (self._rows, self._keys, self._probabilities, self._fired):
                column.pop()

    def sums(self, count: int) -> Keys:
        """`found` of so many rows."""
        found = np.zeros(count, dtype=np.uint64)
        if self._rows:
            each = hashed(
                np.array(self._keys, dtype=np.uint64),
                np.array(self._probabilities, dtype=np.float32),
                np.array(self._fired, dtype=bool),
            )
            rows, first = np.unique(np.array(self._rows), return_index=True)
            found[rows] = np.add.reduceat(each, first)
        return found


def _row(item: bytes, record: Mapping[str, Any], names: Names, findings: _Findings, row: int) -> tuple[Any, ...]:
    bits = int(THERE)
    if record["kind"] != "text":
        bits |= int(IMAGE)
    home = item
    if (parent := record.get("parent")) is not None:
        home, bits = uuid.UUID(parent).bytes, bits | int(PART)
    if record.get("withheld"):
        bits |= int(WITHHELD)
    pdq = record.get("pdq")
    if pdq is not None:
        bits |= int(HAS_PDQ)
    action, fired, version, reason = -1, 0, 0, 0
    verdict = record.get("verdict")
    if verdict is not None:
        action, version = ACTIONS.index(verdict["action"]), int(verdict["version"], 16)
        if verdict.get("reason"):
            reason = key_of(verdict["reason"])
        bits |= _people(verdict)
        for name, finding in (verdict.get("categories") or {}).items():
            if findings.add(row, name, finding):
                bit = names.bit(name)
                if bit is None:
                    bits |= int(ODD)
                else:
                    fired |= bit
    sha256, pdq = _hash(record["sha256"]), _hash(pdq or "0" * 64)
    return item, home, sha256, pdq, reason, 0, fired, version, action, bits, share_of(home), b""


def _people(verdict: Mapping[str, Any]) -> int:
    """The bits that say whether people decided, and said something."""
    if verdict["by"] != BY_POLICY and not verdict["by"].startswith("person:"):
        raise ValueError("a verdict by nobody")
    return (0 if verdict["by"] == BY_POLICY else int(PERSONS)) | (int(SAID) if "review" in verdict else 0)


def _hash(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(32)
