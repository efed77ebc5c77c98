"""What is there to index: folders walked, globs expanded, archives and tables read; lazily, in a stable order.

In a folder, a file counts as an image if its name claims it or its content shows it, and as an archive by its name;
other files are passed over and counted. A file named by itself is always tried. Tables and text files (`.csv`,
`.jsonl`, `.txt`, ...) are read only when named: a folder's README is no caption. But a `.txt` or `.json` that shares
an image's name up to the suffix goes with that image.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from indexer.errors import (
    CrosslensError,
    MediaError,
    SourceNotFound,
    SymlinkLoop,
    Unreadable,
    UnsupportedFormat,
)
from indexer.media.archives import is_archive, members
from indexer.media.columns import BadRow, Columns
from indexer.media.entries import Limits, Place
from indexer.media.formats import IMAGE_SUFFIXES, MEDIA_SUFFIXES, SNIFF_BYTES, sniff
from indexer.media.object_urls import ObjectUrl, check_object, is_object
from indexer.media.objects import Objects
from indexer.media.sidecars import from_sidecar, read_sidecar, sidecars_of
from indexer.media.sources import is_url, source_of
from indexer.media.tables import TEXT_SUFFIXES, check_extra, rows
from indexer.report import Counts, Failure
from indexer.settings import Settings

_SCHEMES = "Name a http(s)://, s3://, gs:// or az:// URL."
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Candidate:
    """Something that may become an item: a file, URL or archive's member that may be an image, or a text.

    But for `path`, which its source tells, its fields are JSON.
    """

    source: str
    path: Path | None = None
    text: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    """With `size`, what tells that the file has not changed; a member has its archive's."""
    member: Place | None = None
    """Where a member lies in the archive that its source names; None for a file."""


def discover(
    sources: Sequence[str], *, report: Counts, beneath: Path | None = None, settings: Settings | None = None
) -> Iterator[Candidate | Failure]:
    """Everything that the sources name: folders, files, globs, URLs, archives, tables, and `.txt` of captions.

    `beneath` is a folder to leave out, Crosslens' own; so is the media store's. All sources are looked up before the
    first is walked. Limits, columns and whether captions beside images are read are `settings`', by default those of
    the environment.

    Raises:
        SourceNotFound: a path or bucket is not there, or a glob matches nothing.
        UrlRefused: a URL of a kind that is not read, or one of cloud storage that names more than a bucket and a key.
        AccessDenied, FetchFailed, FetchTimeout: cloud storage does not let itself be listed.
        MissingExtra: a table's format, or a cloud, needs an extra that is not installed.
    """
    named = [each for source in sources for each in _named(source)]
    for each in named:
        if isinstance(each, Path):
            check_extra(each)
    settings = settings or Settings()
    own = {_identity(folder) for folder in (beneath, settings.media_folder) if folder is not None and folder.exists()}
    with ExitStack() as stack:
        walk = _Walk(report, settings, own, stack.enter_context(Objects(settings)))
        looked_up = [walk.listed(each) if isinstance(each, str) and is_object(each) else each for each in named]
        return walk.all(looked_up, stack.pop_all())


_Source = Path | str | Iterator[Candidate | Failure]
"""A source that was looked up: a path, a URL, or what is in cloud storage."""


def _named(source: str) -> Sequence[Path | str]:
    """The paths that a source names; a URL is given as it is."""
    if is_url(source):
        return [source]
    if is_object(source):
        check_object(source)
        return [source]
    path = Path(source).expanduser()
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(source):
        if matches := sorted(glob.iglob(str(path), recursive=True)):  # noqa: PTH207  Path.glob knows no absolute patterns
            return [Path(match) for match in matches]
        raise SourceNotFound(f"The pattern {source!r} matches nothing.")
    check_object(source)
    raise SourceNotFound(f"There is no {source!r}.")


class _Walk:
    """A walk over sources, with what its parts share."""

    def __init__(self, report: Counts, settings: Settings, own: set[tuple[int, int]], objects: Objects) -> None:
        self._report = report
        self._objects = objects
        self._own = own
        self._settings = settings
        self._limits = Limits(settings.max_bytes, settings.max_archive_bytes, settings.max_archive_members)

    def all(self, named: Sequence[_Source], until: ExitStack) -> Iterator[Candidate | Failure]:
        """What these paths and URLs are, what is below them, or what was looked up; `until` is closed after it."""
        with until:
            for each in named:
                yield from self._one(each)

    def listed(self, url: str) -> Iterator[Candidate | Failure]:
        """The objects that a URL of cloud storage names; it is looked up at once."""
        found = self._objects.listed(url, suffixes=MEDIA_SUFFIXES, counts=self._report)
        return (
            each if isinstance(each, Failure) else Candidate(each.source, size=each.size, mtime_ns=each.mtime_ns)
            for each in found
        )

    def _one(self, source: _Source) -> Iterator[Candidate | Failure]:
        if isinstance(source, Iterator):
            yield from source
        elif isinstance(source, str):
            yield Candidate(source)
        elif source.is_dir():
            yield from self._folder(source, ())
        elif source.suffix.lower() in TEXT_SUFFIXES and source.is_file():
            yield from self._rows(source)
        elif is_archive(source.name) and source.is_file() and not _shows_image(source):
            yield from self._members(source, source.stat())
        else:
            yield _candidate(source)

    def _folder(self, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Candidate | Failure]:
        """The files below a folder, by name; `above` are the folders on the way here, which a link may lead back to."""
        try:
            here = _identity(folder)
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            yield Failure(source_of(folder), _unreadable(error))
            return
        beside = sidecars_of(names) if self._settings.sidecars else {}
        taken = {name for some in beside.values() for name in some}
        for name in names:
            path = folder / name
            try:
                status = path.stat()
            except OSError as error:
                yield Failure(source_of(path), _unreadable(error))
                continue
            if stat.S_ISDIR(status.st_mode):
                inside = (status.st_dev, status.st_ino)
                if inside in self._own and not path.is_symlink():
                    continue  # Crosslens' own data or media
                if inside in (*above, here):
                    yield Failure(source_of(path), SymlinkLoop("The link leads back to a folder above it."))
                else:
                    yield from self._folder(path, (*above, here))
            elif name in taken:
                continue  # it goes with its image
            elif is_media(path, status):
                yield from with_sidecars(
                    _candidate(path, status), [folder / name for name in beside.get(path.stem, ())]
                )
            elif is_archive(name) and stat.S_ISREG(status.st_mode):
                yield from self._members(path, status)
            else:
                self._report.passed_over += 1

    def _members(self, path: Path, status: os.stat_result) -> Iterator[Candidate | Failure]:
        for each in members(path, source=source_of(path), limits=self._limits, counts=self._report):
            if isinstance(each, Failure):
                yield each
            else:
                size, mtime_ns = status.st_size, status.st_mtime_ns
                yield Candidate(each.source, path, None, each.payload, None, size, mtime_ns, each.place)

    def _rows(self, path: Path) -> Iterator[Candidate | Failure]:
        """The items of a table or text file; a row that is wrong is one failure, `<path>:<row>`."""
        source = source_of(path)
        given = Columns(self._settings.table_file, self._settings.table_caption, self._settings.table_id)
        try:
            for row in rows(path, given):
                where = source if row.number is None else f"{source}:{row.number}"
                if isinstance(row, BadRow):
                    yield Failure(where, row.error)
                elif row.file is None:
                    yield Candidate(where, text=row.text, payload=row.payload, id=row.id)
                else:
                    yield _of_row(where, row.file, path.parent, row.payload, row.id)
        except OSError as error:
            yield Failure(source, _unreadable(error))


def _of_row(where: str, named: str, folder: Path, payload: dict[str, Any], item_id: str | None) -> Candidate | Failure:
    """What a row of a table in this folder names."""
    named = named.strip() if _SCHEME.match(named.lstrip()) else named
    if is_url(named):
        return Candidate(named, payload=payload, id=item_id)
    if is_object(named):
        try:
            check_object(named)
            return Candidate(str(ObjectUrl.parse(named)), payload=payload, id=item_id)
        except CrosslensError as error:
            return Failure(where, error)
    if _SCHEME.match(named):
        return Failure(where, UnsupportedFormat(f"{named[:200]!r} is no URL of a kind that is read.", remedy=_SCHEMES))
    found = _candidate(folder / named)
    if isinstance(found, Failure):
        # Path.exists raises where a name is too long.
        is_there = os.path.lexists(folder / named)
        message = found.error.message if is_there else f"{named[:200]!r} is not there."
        return Failure(where, Unreadable(message, remedy="Relative paths are looked up in the table's own folder."))
    return Candidate(found.source, found.path, None, payload, item_id, found.size, found.mtime_ns)


def with_sidecars(found: Candidate | Failure, sidecars: list[Path]) -> Iterator[Candidate | Failure]:
    """A candidate with what the files beside it say; one that is wrong is a failure of its own."""
    payload: dict[str, Any] = {}
    for path in sidecars:
        if path.is_dir():
            continue
        try:
            payload |= from_sidecar(path.name, read_sidecar(path))
        except OSError as error:
            yield Failure(source_of(path), _unreadable(error))
        except CrosslensError as error:
            yield Failure(source_of(path), error)
    yield replace(found, payload=payload) if payload and isinstance(found, Candidate) else found


def is_media(path: Path, status: os.stat_result) -> bool:
    """Whether a file in a folder counts as media: its name claims it, or its content shows it."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return stat.S_ISREG(status.st_mode) and _shows_image(path)


def _shows_image(path: Path) -> bool:
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
