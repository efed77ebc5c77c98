"""Lists of hashes as trust-and-safety teams exchange them: read from, and written to, CSV and ThreatExchange's JSON.

Read are
- text or CSV: a hash first, the rest of the line after commas, as `pdq-photo-hasher` and its kin print it
  (`hash,quality,...`), or with a header that names columns (`hash` or `indicator` or `signal_value`; `type` or
  `signal_type`; `quality`). PDQ and SHA-256 both have 64 digits: who gives no type for a line gives one for all.
- JSON: ThreatExchange's pages of indicators or descriptors (`{"data": [{"indicator", "type": "HASH_PDQ"}]}`), and
  python-threatexchange's and Hasher-Matcher-Actioner's signals (`[{"signal_type": "pdq", "signal_value"}]`).

Hashes of other kinds (MD5, PhotoDNA, TMK) are left out and counted, as are PDQ hashes of pictures too flat for one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from pydantic_core import from_json

from indexer.errors import HashListInvalid
from indexer.media.pdq import HASH_BYTES, MIN_QUALITY

if TYPE_CHECKING:
    from indexer.moderation.subjects import Bytes

Kind = Literal["sha256", "pdq"]

MOST_BYTES = 256 * 2**20
MOST_HASHES = 1_000_000

_LONGEST_LINE = 4000
_DIGITS = re.compile(r"[0-9a-fA-F]{64}")
_KINDS: dict[str, Kind] = {
    "pdq": "pdq", "hash_pdq": "pdq", "sha256": "sha256", "sha-256": "sha256", "hash_sha256": "sha256",
}  # fmt: skip
_HASH_KEYS = ("hash", "indicator", "raw_indicator", "signal_value")
_KIND_KEYS = ("type", "signal_type", "kind")
_NAMES: dict[Kind, str] = {"pdq": "HASH_PDQ", "sha256": "HASH_SHA256"}


def _none() -> Bytes:
    return np.empty((0, HASH_BYTES), dtype=np.uint8)


@dataclass(frozen=True)
class HashList:
    """Hashes of both kinds, each once, sorted."""

    sha256: Bytes = field(default_factory=_none)
    """(n, 32)."""
    pdq: Bytes = field(default_factory=_none)
    """(m, 32)."""

    def __len__(self) -> int:
        return len(self.sha256) + len(self.pdq)

    @property
    def digest(self) -> str:
        """16 hex digits of everything in it."""
        parts = (len(self.sha256).to_bytes(8), self.sha256.tobytes(), self.pdq.tobytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def joined(self, other: HashList) -> HashList:
        """What is on either.

        Raises:
            HashListInvalid: more than a list may have.
        """
        both = {
            "sha256": np.concatenate([self.sha256, other.sha256]),
            "pdq": np.concatenate([self.pdq, other.pdq]),
        }
        if sum(map(len, both.values())) > MOST_HASHES:
            raise HashListInvalid(f"A list holds no more than {MOST_HASHES:,} hashes.")
        return HashList(**{kind: np.unique(hashes, axis=0) for kind, hashes in both.items()})


@dataclass(frozen=True)
class Imported:
    """What a file gave."""

    hashes: HashList
    twice: int
    """Lines with a hash that stood before."""
    other_kinds: int
    """Hashes of kinds that are not compared here."""
    flat: int
    """PDQ hashes of a quality below 50: those of unrelated flat pictures are alike."""


def read_hash_list(data: bytes, *, kind: Kind | None = None) -> Imported:
    """A list from a file's content; `kind` is that of hashes that come without one.

    Raises:
        HashListInvalid: it is too large, is of no form that is known, or a line does not parse; nothing is taken over.
    """
    if len(data) > MOST_BYTES:
        raise HashListInvalid(f"The list has more than {MOST_BYTES // 2**20} MiB.", remedy="Divide it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HashListInvalid(f"The list is not UTF-8 at byte {error.start}.") from error
    rows = _of_json(text) if text.lstrip()[:1] in {"{", "["} else _of_lines(text)
    found: dict[Kind, set[bytes]] = {"sha256": set(), "pdq": set()}
    count = other = flat = 0
    for where, row in rows:
        own = _first(row, _KIND_KEYS)
        its_kind = kind if own is None else _KINDS.get(str(own).lower())
        value = str(_first(row, _HASH_KEYS) or "").strip()
        if own is not None and its_kind is None:
            other += 1
        elif its_kind is None:
            _refuse(where, "has a hash of 64 digits without its type", "Say whether they are pdq or sha256.")
        elif not _DIGITS.fullmatch(value):
            _refuse(where, f"has no hash of 64 hex digits: {value[:80]!r}", "Correct the line, or remove it.")
        elif its_kind == "pdq" and _quality(where, row) < MIN_QUALITY:
            flat += 1
        else:
            found[its_kind].add(bytes.fromhex(value))
            count += 1
        if count > MOST_HASHES:
            _refuse(where, f"is past the {MOST_HASHES:,} hashes that a list may have", "Divide the list.")
    arrays = {kind: _sorted(hashes) for kind, hashes in found.items()}
    hashes = HashList(sha256=arrays["sha256"], pdq=arrays["pdq"])
    return Imported(hashes, count - len(hashes), other, flat)


def as_csv(hashes: HashList) -> str:
    """A list as CSV with the header `hash,type`; `read_hash_list` reads it."""
    lines = [f"{value},{kind}" for kind, value in _each(hashes)]
    return "\n".join(["hash,type", *lines]) + "\n"


def as_json(hashes: HashList) -> str:
    """A list as ThreatExchange writes indicators: `{"data": [{"indicator", "type"}]}`."""
    return json.dumps({"data": [{"indicator": value, "type": _NAMES[kind]} for kind, value in _each(hashes)]})


def as_lines(hashes: HashList, kind: Kind) -> str:
    """The hashes of one kind, one a line, as most matchers read them."""
    return "".join(f"{value}\n" for its_kind, value in _each(hashes) if its_kind == kind)


def _each(hashes: HashList) -> Iterator[tuple[Kind, str]]:
    yield from (("sha256", each.tobytes().hex()) for each in hashes.sha256)
    yield from (("pdq", each.tobytes().hex()) for each in hashes.pdq)


def _sorted(hashes: set[bytes]) -> Bytes:
    return np.frombuffer(b"".join(sorted(hashes)), dtype=np.uint8).reshape(-1, HASH_BYTES)


def _of_lines(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A row of each line; empty ones and comments are left out. Quotes may not run over the end of a line."""
    columns: list[str] | None = None
    first = True
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"Line {number}"
        if len(line) > _LONGEST_LINE:
            _refuse(where, f"has more than {_LONGEST_LINE:,} characters", "Divide it.")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            _refuse(where, f"is no CSV: {error}", "Correct the line, or remove it.")
        if first and any(cell.lower() in _HASH_KEYS for cell in cells):
            columns = [cell.lower() for cell in cells]
        elif columns is not None:
            yield where, dict(zip(columns, cells, strict=False))
        else:
            # As `sha256sum` has it, too: the hash, blanks, a name.
            value = cells[0].partition(" ")[0]
            yield where, {"hash": value, "quality": cells[1] if len(cells) > 1 and cells[1].isdecimal() else None}
        first = False


def _of_json(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        body = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise HashListInvalid(f"The list is not JSON: {str(error)[:200]}.") from error
    entries = body.get("data", body.get("signals")) if isinstance(body, dict) else body
    if not isinstance(entries, list):
        raise HashListInvalid("The list is JSON of a form that is not known here.")
    for number, entry in enumerate(entries, start=1):
        row = entry.get("indicator") if isinstance(entry, dict) and isinstance(entry.get("indicator"), dict) else entry
        if not isinstance(row, dict):
            _refuse(f"Entry {number}", "is no object", "Give objects with indicator and type.")
        yield f"Entry {number}", row


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of the keys that has anything."""
    return next((row[key] for key in keys if row.get(key)), None)


def _quality(where: str, row: Mapping[str, Any]) -> float:
    """A PDQ hash's; the best where it is not given."""
    given = row.get("quality")
    try:
        return 100 if given is None or given == "" else float(str(given))
    except ValueError:
        _refuse(where, f"has the quality {str(given)[:40]!r}, which is no number", "Correct the line, or remove it.")


def _refuse(where: str, problem: str, remedy: str) -> NoReturn:
    raise HashListInvalid(f"{where} {problem}.", remedy=f"Nothing was taken over. {remedy}")
