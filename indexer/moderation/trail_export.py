"""The audit trail as a file for people and other programs: JSON lines as they are, or CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from indexer.moderation.trail import Entry

Format = Literal["jsonl", "csv"]

COLUMNS = ("number", "at", "who", "what", "item", "undoes", "note", "before", "after", "previous")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What makes spreadsheets take a cell for a formula, full width too (CWE-1236)."""


def export(entries: Iterable[Entry], format: Format = "jsonl") -> Iterator[str]:
    """The entries, a piece of text each, with line feeds; as CSV (RFC 4180) after a line of the columns' names.

    JSON lines of a whole trail are those of its file, byte for byte, so that the chain can be checked in the copy.
    In CSV, `before` and `after` are JSON, and what a spreadsheet would calculate has a `'` before it.
    """
    if format == "jsonl":
        for entry in entries:
            yield entry.to_line() + "\n"
        return
    yield _row(COLUMNS)
    for entry in entries:
        values = entry.model_dump(mode="json")
        yield _row(_cell(values[name]) for name in COLUMNS)


def _row(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
