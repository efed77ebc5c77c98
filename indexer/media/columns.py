"""What a table's columns mean: one names a file or URL, others a caption and an id, the rest is payload."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from indexer.errors import CrosslensError, InvalidTextSource
from indexer.media.payloads import CAPTION, check_payload, check_unicode

_FILES = (
    "file", "path", "image", "url", "image_path", "filepath", "file_path", "file_name", "filename", "image_url",
    "image_file", "img_path", "img", "uri",
)  # fmt: skip
_CAPTIONS = ("caption", "text", "title")
_IDS = ("id",)

REMEDY = "Correct the row; CSV is quoted as RFC 4180 says, with a header."


@dataclass(frozen=True)
class Columns:
    """Names of columns that are given; what is not is found among the usual names, whatever their case."""

    file: str | None = None
    caption: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Row:
    """A row that names a file or URL, or is a text."""

    number: int
    """As an editor or a spreadsheet counts: a header is row 1."""
    file: str | None = None
    text: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that is wrong; without a number, all of the table from here on."""

    number: int | None
    error: CrosslensError


@dataclass(frozen=True)
class Roles:
    """Which of a table's columns are special."""

    file: str
    caption: str | None
    id: str | None

    @classmethod
    def of(cls, names: Iterable[str], given: Columns) -> Roles | None:
        """The roles among these names; None if none of them is of files or URLs.

        Raises:
            InvalidTextSource: a column that was given is not there.
        """
        there = list(names)
        lower = {name.lower(): name for name in reversed(there)}

        def pick(name: str | None, usual: tuple[str, ...]) -> str | None:
            if name is None:
                return next((lower[each] for each in usual if each in lower), None)
            if name not in there:
                raise InvalidTextSource(f"There is no column {name!r}.", remedy=f"There are: {', '.join(there)[:500]}.")
            return name

        file = pick(given.file, _FILES)
        return None if file is None else cls(file, pick(given.caption, _CAPTIONS), pick(given.id, _IDS))

    @classmethod
    def of_table(cls, names: list[str], given: Columns) -> Roles:
        """The roles in a header.

        Raises:
            InvalidTextSource: a column is missing, there twice, or reserved.
        """
        check_payload(dict.fromkeys(names))
        named = [name for name in names if name]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise InvalidTextSource(f"The column {twice!r} is there twice.", remedy="Rename one of them.")
        roles = cls.of(names, given)
        if roles is None:
            raise InvalidTextSource(
                f"No column names a file or URL: there are {', '.join(names)[:500]}.",
                remedy=f"Name it {', '.join(_FILES[:4])}, ..., or set CROSSLENS_TABLE_FILE to its name.",
            )
        return roles

    def __contains__(self, name: str) -> bool:
        return name in {self.file, self.caption, self.id}


def to_row(number: int, entry: dict[str, Any], roles: Roles, payload: dict[str, Any] | None = None) -> Row:
    """A row of a table; `payload` are fields that its columns outrank.

    Raises:
        InvalidTextSource: no path or URL, or a payload or id that could not be stored.
    """
    file, caption = entry[roles.file], entry.get(roles.caption or "")
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        raise InvalidTextSource(f'"{roles.file}" takes a path or URL.', remedy=REMEDY)
    others = {name: value for name, value in entry.items() if name and name not in roles and value is not None}
    fields = {**(payload or {}), **others}
    if caption is not None and caption != "":
        fields[CAPTION] = caption
    check_payload(fields)
    return Row(number, file, None, fields, item_id(entry.get(roles.id or "")))


def item_id(name: Any) -> str | None:
    """A row's id; None where there is none. An integer is written out.

    Raises:
        InvalidTextSource: it is something else, too long, or no Unicode.
    """
    if name is None or name == "":
        return None
    name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
    if not isinstance(name, str) or not 1 <= len(name) <= 512:
        raise InvalidTextSource('"id" takes a string of 1 to 512 characters.')
    check_unicode(name)
    return name
