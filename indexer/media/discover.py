"""What is there to index: folders walked, globs expanded, captions read; lazily, in a stable order.

In a folder, a file counts as an image if its name claims it or its content shows it; other files are passed over and
counted. A file named by itself is always tried. Text files (`.txt`, `.jsonl`) are read only when named: a folder's
README is no caption.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote_to_bytes

from indexer.errors import (
    InvalidTextSource,
    MediaError,
    SourceNotFound,
    SymlinkLoop,
    Unreadable,
)
from indexer.items import RECORD_KEY
from indexer.media.formats import IMAGE_SUFFIXES, SNIFF_BYTES, sniff
from indexer.report import Failure

_MAX_LINE = 2**20
_TEXT_SUFFIXES = frozenset((".txt", ".jsonl", ".ndjson"))
_ESCAPED = "file:"


class Counts(Protocol):
    """Who wants to know how many files were passed over."""

    passed_over: int


@dataclass(frozen=True)
class Candidate:
    """Something that may become an item: a file that may be an image, or a text."""

    source: str
    path: Path | None = None
    text: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    size: int | None = None
    mtime_ns: int | None = None


def discover(sources: Sequence[str], *, report: Counts, beneath: Path | None = None) -> Iterator[Candidate | Failure]:
    """Everything that the sources name: folders, files, globs, `.txt` of captions and `.jsonl` of items.

    `beneath` is a folder to leave out, Crosslens' own. All sources are looked up before the first is walked.

    Raises:
        SourceNotFound: a path is not there, or a glob matches nothing.
    """
    paths = [path for source in sources for path in _named(source)]
    own = _identity(beneath) if beneath is not None and beneath.exists() else None
    return _walk_all(paths, report, own)


def source_of(path: Path) -> str:
    """A path as a source: absolute, without `..`, valid Unicode. A name that is not UTF-8 becomes a `file:` URL."""
    absolute = os.path.abspath(path)  # noqa: PTH100  without following links: the name the user sees is kept
    try:
        absolute.encode()
    except UnicodeEncodeError:
        return _ESCAPED + quote(os.fsencode(absolute))
    return absolute


def path_of(source: str) -> Path:
    """The path that `source_of` made a source of."""
    if source.startswith(_ESCAPED):
        return Path(os.fsdecode(unquote_to_bytes(source.removeprefix(_ESCAPED))))
    return Path(source)


def _named(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(source):
        if matches := sorted(glob.iglob(str(path), recursive=True)):  # noqa: PTH207  Path.glob knows no absolute patterns
            return [Path(match) for match in matches]
        raise SourceNotFound(f"The pattern {source!r} matches nothing.")
    raise SourceNotFound(f"There is no {source!r}.")


def _walk_all(paths: list[Path], report: Counts, own: tuple[int, int] | None) -> Iterator[Candidate | Failure]:
    for path in paths:
        if path.is_dir():
            yield from _walk(path, report, (own,) if own else ())
        elif path.suffix.lower() in _TEXT_SUFFIXES and path.is_file():
            yield from _texts(path)
        else:
            yield _candidate(path)


def _walk(folder: Path, report: Counts, above: tuple[tuple[int, int], ...]) -> Iterator[Candidate | Failure]:
    """The files below a folder, by name; `above` are the folders on the way here, which a link may lead back to."""
    try:
        here = _identity(folder)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        yield Failure(source_of(folder), _unreadable(error))
        return
    for name in names:
        path = folder / name
        try:
            status = path.stat()
        except OSError as error:
            yield Failure(source_of(path), _unreadable(error))
            continue
        if stat.S_ISDIR(status.st_mode):
            inside = (status.st_dev, status.st_ino)
            if above and inside == above[0] and not path.is_symlink():
                continue  # Crosslens' own data folder
            if inside in (*above, here):
                yield Failure(source_of(path), SymlinkLoop("The link leads back to a folder above it."))
            else:
                yield from _walk(path, report, (*above, here))
        elif _is_media(path, status):
            yield _candidate(path, status)
        else:
            report.passed_over += 1


def _is_media(path: Path, status: os.stat_result) -> bool:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if not stat.S_ISREG(status.st_mode):
        return False
    try:
        with path.open("rb") as file:
            return sniff(file.read(SNIFF_BYTES)) is not None
    except OSError:
        return False


def _candidate(path: Path, status: os.stat_result | None = None) -> Candidate | Failure:
    """A file as a candidate. What is no regular file is never opened: a FIFO would hang, a device would not end."""
    source = source_of(path)
    try:
        status = status or path.stat()
    except OSError as error:
        return Failure(source, _unreadable(error))
    if not stat.S_ISREG(status.st_mode):
        return Failure(source, Unreadable("This is no regular file but a pipe, socket or device."))
    return Candidate(source, path, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _unreadable(error: OSError) -> MediaError:
    match error.errno:
        case errno.ELOOP:
            return SymlinkLoop("The link leads back to itself.")
        case errno.ENOENT:
            return Unreadable("The link leads nowhere.", remedy="Remove the link, or put back what it led to.")
        case _:
            return Unreadable(f"It cannot be opened: {error.strerror}.")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _texts(path: Path) -> Iterator[Candidate | Failure]:
    """The items of a text file, a line each; a line that is wrong is one failure, `<path>:<line>`."""
    source = source_of(path)
    read = _json_line if path.suffix.lower() != ".txt" else _caption_line
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901
                if not line.strip():
                    continue
                try:
                    if len(line) == _MAX_LINE:
                        raise InvalidTextSource(f"The line has more than {_MAX_LINE:,} bytes.")
                    yield read(f"{source}:{number}", line, path.parent)
                except InvalidTextSource as error:
                    yield Failure(f"{source}:{number}", error)
    except OSError as error:
        yield Failure(source, _unreadable(error))


def _decoded(line: bytes) -> str:
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidTextSource("The line is not UTF-8.", remedy="Save the file as UTF-8.") from error


def _caption_line(source: str, line: bytes, _folder: Path) -> Candidate:
    return Candidate(source, text=_decoded(line))


def _json_line(source: str, line: bytes, folder: Path) -> Candidate | Failure:
    try:
        entry = json.loads(_decoded(line), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidTextSource(f"The line is no JSON: {error}.") from error
    if not isinstance(entry, dict) or ("file" in entry) == ("text" in entry):
        raise InvalidTextSource('The line needs either "file" or "text".')
    if unknown := sorted(entry.keys() - {"file", "text", "payload", "id"}):
        raise InvalidTextSource(f"The line has {unknown[0]!r}, which is not known.")
    content = entry.get("file", entry.get("text"))
    if not isinstance(content, str) or not content.strip() or "\0" in content:
        raise InvalidTextSource('"file" and "text" take a string that is not empty.')
    payload = entry.get("payload", {})
    if not isinstance(payload, dict) or RECORD_KEY in payload:
        raise InvalidTextSource(f'"payload" takes an object, without the key "{RECORD_KEY}".')
    name = entry.get("id")
    if name is not None and (not isinstance(name, str) or not 1 <= len(name) <= 512):
        raise InvalidTextSource('"id" takes a string of 1 to 512 characters.')
    if "text" in entry:
        return Candidate(source, text=content, payload=payload, id=name)
    found = _candidate(folder / content)
    if isinstance(found, Failure):
        return found
    return Candidate(found.source, found.path, None, payload, name, found.size, found.mtime_ns)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
