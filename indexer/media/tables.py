"""Tables of items, a row at a time: CSV, TSV, Parquet, JSON lines, and plain lines of captions.

A row names a file or URL in one column, known by its name or given. A caption column goes into the payload as
`caption`, an `id` column names the item, and every other column goes into the payload under its own name.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import importlib.util
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from indexer.errors import InvalidTextSource, MissingExtra
from indexer.media.columns import REMEDY, BadRow, Columns, Roles, Row, item_id, to_row
from indexer.media.payloads import MAX_TEXT, check_payload, check_unicode, decoded, parse_json

TEXT_SUFFIXES = frozenset((".txt", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"))
"""Files that are tables or lines of text."""

_BOM = b"\xef\xbb\xbf"
_PARQUET_ROWS = 256
"""Rows of a Parquet file that are in memory at once, beside the pages that they come from."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]{1,3})?|[eE][+-][0-9]{1,3})")
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def check_extra(path: Path) -> None:
    """Refuse a table that needs what is not installed.

    Raises:
        MissingExtra: a Parquet file, and pyarrow is not there.
    """
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("Parquet files are read with pyarrow: pip install 'crosslens[tables]'")


def rows(path: Path, columns: Columns) -> Iterator[Row | BadRow]:
    """The rows of a table, by its suffix; empty ones are left out. `columns` names those that are given.

    Raises:
        OSError: the file cannot be read.
    """
    match path.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            with path.open("rb") as file:
                yield from _delimited(file, columns, "\t" if suffix == ".tsv" else None)
        case ".parquet":
            yield from _parquet(path, columns)
        case suffix:
            with path.open("rb") as file:
                yield from _lines(file, columns, is_json=suffix != ".txt")


def _line(file: BinaryIO) -> bytes:
    """The next line; of one that is too long, its first `MAX_TEXT` bytes. Empty at the end."""
    line = more = file.readline(MAX_TEXT)
    while len(more) == MAX_TEXT and not more.endswith(b"\n"):
        more = file.readline(MAX_TEXT)
    return line


def _lines(file: BinaryIO, columns: Columns, *, is_json: bool) -> Iterator[Row | BadRow]:
    for number, line in enumerate(iter(lambda: _line(file), b""), start=1):
        if number == 1:
            line = line.removeprefix(_BOM)  # noqa: PLW2901
        if not line.strip():
            continue
        try:
            if len(line) == MAX_TEXT:
                raise InvalidTextSource(f"The line has more than {MAX_TEXT:,} bytes.")
            text = decoded(line, "The line")
            yield _json_row(number, text, columns) if is_json else Row(number, text=text)
        except InvalidTextSource as error:
            yield BadRow(number, error)


def _json_row(number: int, line: str, columns: Columns) -> Row:
    """A line of `{"file" or "text", "payload", "id"}`, or one with a table's columns."""
    try:
        entry = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise InvalidTextSource(f"The line is no JSON: {error}.") from error
    if not isinstance(entry, dict) or ("file" in entry and "text" in entry):
        raise InvalidTextSource('The line needs either "file" or "text".')
    payload = entry.pop("payload", {})
    if not isinstance(payload, dict):
        raise InvalidTextSource('"payload" takes an object.')
    # Lines may differ: a column that was given counts where it is.
    given = Columns(*(name if name in entry else None for name in (columns.file, columns.caption, columns.id)))
    roles = Roles.of(entry, given)
    if roles is not None:
        return to_row(number, entry, roles, payload)
    if "text" not in entry:
        raise InvalidTextSource('The line needs either "file" or "text".')
    if unknown := sorted(entry.keys() - {"text", "id"}):
        raise InvalidTextSource(f'The line has {unknown[0]!r}, which is not known beside "text".')
    text = entry["text"]
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidTextSource('"file" and "text" take a string that is not empty.')
    check_unicode(text)
    check_payload(payload)
    return Row(number, None, text, payload, item_id(entry.get("id")))


class _Records:
    """The lines of a file for `csv`, with a cap on those of one row: an open quote would take all of the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.taken = 0

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> str:
        line = _line(self._file)
        self.taken += len(line)
        if self.taken > MAX_TEXT or len(line) == MAX_TEXT:
            raise csv.Error(f"it has more than {MAX_TEXT:,} bytes")
        if not line:
            raise StopIteration
        return line.decode("utf-8", "surrogateescape")


def _delimited(file: BinaryIO, columns: Columns, delimiter: str | None) -> Iterator[Row | BadRow]:
    """The rows below a header; without a delimiter, the one that the header has most of."""
    begin = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
    file.seek(begin)
    if delimiter is None:
        first = file.readline(MAX_TEXT)
        delimiter = max(",;\t", key=lambda each: first.count(each.encode()))
        file.seek(begin)
    records = _Records(file)
    reader = csv.reader(records, delimiter=delimiter, strict=True)
    header: list[str] = []
    roles: Roles | None = None
    for number in itertools.count(1):
        records.taken = 0
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cells):
                continue
            check_unicode("".join(cells))
            if roles is None:
                header, roles = cells, Roles.of_table(cells, columns)
                continue
            if len(cells) != len(header):
                raise InvalidTextSource(f"The row has {len(cells)} cells, the header {len(header)}.", remedy=REMEDY)
            typed = {name: cell if name in roles else _typed(cell) for name, cell in zip(header, cells, strict=True)}
            yield to_row(number, typed, roles)
        except InvalidTextSource as error:
            yield BadRow(number if roles else None, error)
        except csv.Error as error:
            wrong = InvalidTextSource(f"The row does not parse: {error}.", remedy=REMEDY)
            yield BadRow(number if roles else None, wrong)
        if roles is None:
            return


def _typed(cell: str) -> str | float | bool | None:
    """A cell as a number or truth value if it is written as one, `007` and `1e5` are not; None if it is empty."""
    if cell in _TRUTHS:
        return _TRUTHS[cell]
    if _INTEGER.fullmatch(cell):
        return int(cell)
    if _NUMBER.fullmatch(cell) and math.isfinite(number := float(cell)):
        return number
    return cell or None


def _parquet(path: Path, columns: Columns) -> Iterator[Row | BadRow]:
    check_extra(path)
    import pyarrow  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    try:
        # Without pre_buffer, pages are read as they are needed, not a whole row group at once.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            # Bytes, such as pictures in the table itself, are nothing that a payload could hold.
            names = [column.name for column in file.schema_arrow if "binary" not in str(column.type)]
            roles = Roles.of_table(names, columns)
            number = 0
            for batch in file.iter_batches(_PARQUET_ROWS, columns=names, use_threads=False):
                for at in range(batch.num_rows):
                    number += 1
                    try:
                        (entry,) = batch.slice(at, 1).to_pylist()
                        yield to_row(number, {name: _plain(value) for name, value in entry.items()}, roles)
                    except (InvalidTextSource, UnicodeDecodeError, OverflowError) as error:
                        wrong = error if isinstance(error, InvalidTextSource) else InvalidTextSource(f"{error}.")
                        yield BadRow(number, wrong)
    except InvalidTextSource as error:
        yield BadRow(None, error)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if getattr(error, "errno", None):  # the system's, not pyarrow's own over the content
            raise
        yield BadRow(None, InvalidTextSource(f"The table is damaged from here on: {error}.", remedy=REMEDY))


def _plain(value: Any) -> Any:  # noqa: PLR0911  one for each kind
    """A value as JSON has it: times in ISO 8601, durations in seconds, decimals as floats; None for NaN."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case decimal.Decimal():
            return _plain(float(value))
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return str(value)
