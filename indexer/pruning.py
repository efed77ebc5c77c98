"""What is gone: places on this machine that items were seen at and that are no longer there leave the index.

A location counts as gone only where the system says that there is no such file; what cannot be looked at is kept, and
so is what lies behind a link that leads nowhere, as it does to a disk that is not mounted. An archive's members, a
file's frames and a table's rows are there as long as their file is. URLs, uploads and cloud objects are never pruned.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from indexer.errors import PruneRefused
from indexer.media.archives import is_archive
from indexer.media.samples import SEPARATOR
from indexer.media.sources import path_of, source_of
from indexer.planning import drop_locations
from indexer.report import Report
from indexer.rerank.discarding import discard_unshown
from indexer.settings import Settings
from indexer.store.collection import Collection, Stored

_BATCH = 256
"""Items looked at at once; memory does not grow beyond them."""
_DROPPED = 1024
"""Items that leave the index at once, as each write waits for the disk."""
_FRAGMENT = re.compile(r"#(t|page)=[\d.]+\Z")
_ROW = re.compile(r":\d+\Z")


def prune(
    folders: Sequence[Path],
    *,
    collection: Collection,
    report: Report,
    settings: Settings,
    unguarded: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Take the locations beneath these folders that are gone from their items; an item without any is removed.

    Every item is looked at, a batch at a time, and `report.removed` counts. A folder may also be a file, gone or
    there, whose members or frames are meant. `unguarded` does without the first of the errors.

    Raises:
        PruneRefused: a folder is gone or empty, and the index holds items of it; nothing was removed, or no more once
            it became so.
        IndexUnavailable: the index went away; the same call again goes on.
    """
    guarded = [] if unguarded else folders
    refuse_where_lost(guarded, collection)
    roots = [os.path.abspath(folder) for folder in folders]  # noqa: PTH100  as sources are: links are not followed
    gone: dict[str, list[str]] = {}
    for stored in _items(collection):
        if stop is not None and stop.is_set():
            return
        for item in stored:
            if sources := [each for each in _sources(item) if _is_beneath(each, roots) and is_gone(each)]:
                gone[item.id] = sources
        if len(gone) >= _DROPPED:
            refuse_where_lost(guarded, collection)  # a disk may be pulled out in the middle
            _drop(collection, report, settings, gone)
            gone = {}
    refuse_where_lost(guarded, collection)
    _drop(collection, report, settings, gone)


def drop_gone(paths: Sequence[Path], *, collection: Collection, report: Report, settings: Settings) -> None:
    """The same for files that are known to be gone, without looking at every item; an archive's members stay."""
    for at in range(0, len(paths), _BATCH):
        gone: dict[str, list[str]] = {}
        sources = [source_of(path) for path in paths[at : at + _BATCH]]
        for source, (item_id, _) in collection.by_sources(sources).items():
            gone.setdefault(item_id, []).append(source)
        _drop(collection, report, settings, gone)


def refuse_where_lost(folders: Sequence[Path], collection: Collection) -> None:
    """Nothing, if what is gone from these folders may be taken for deleted.

    Raises:
        PruneRefused: one of them is gone or empty, as an unmounted disk's is, and the index holds items of it.
    """
    for folder in folders:
        if not is_lost(folder):
            continue
        roots = [os.path.abspath(folder)]  # noqa: PTH100
        if any(_is_beneath(each, roots) for items in _items(collection) for item in items for each in _sources(item)):
            state = "empty" if folder.is_dir() else "gone"
            raise PruneRefused(f"The folder {folder} is {state}, but the index holds items of it; none was removed.")


def is_lost(folder: Path) -> bool:
    """Whether a folder is gone, cannot be read, or has nothing in it that could be seen."""
    try:
        with os.scandir(folder) as entries:
            return all(entry.name.startswith(".") for entry in entries)
    except NotADirectoryError:
        return False  # a file that was named itself
    except OSError:
        return True


def is_gone(source: str) -> bool:
    """Whether a location was on this machine, and neither it nor the file that it is a part of is there any more."""
    paths = list(_holders(source))
    return bool(paths) and all(map(_is_missing, paths))


def _items(collection: Collection) -> Iterator[list[Stored]]:
    for ids in collection.ids(_BATCH):
        yield list(collection.get_many(ids).values())


def _sources(item: Stored) -> list[str]:
    return [location.source for location in item.record.locations]


def _holders(source: str) -> Iterator[Path]:
    """The path that a source is, and those of the files that it may be a member, frame or row of; none of a URL."""
    if not path_of(source).is_absolute():
        return
    yield path_of(source)
    at = source.find(SEPARATOR)
    while at >= 0:
        if is_archive(source[:at]):
            yield path_of(source[:at])
        at = source.find(SEPARATOR, at + 1)
    for part in (_FRAGMENT, _ROW):
        whole = part.sub("", source)
        if whole != source:
            yield path_of(whole)


def _is_beneath(source: str, roots: Sequence[str]) -> bool:
    """Whether a source is one of these absolute paths, a part of that file, or below that folder."""
    for path in map(os.fspath, _holders(source)):
        if any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots):
            return True
    return False


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return not _is_cut_off(path)
    except (OSError, ValueError):
        return False  # a drive that does not answer, a folder that may not be entered: who knows
    return False


def _is_cut_off(path: Path) -> bool:
    """Whether a link above leads nowhere, or cannot be looked at."""
    for folder in path.parents:
        try:
            status = folder.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return True
        return stat.S_ISLNK(status.st_mode) and not folder.exists()
    return False


def _drop(collection: Collection, report: Report, settings: Settings, gone: dict[str, list[str]]) -> None:
    """Take these sources from the items of these ids; one that is there again stays."""
    gone = {item_id: still for item_id, sources in gone.items() if (still := list(filter(is_gone, sources)))}
    items = collection.get_many(list(gone))  # as they are now
    files = collection.present([item.record.parent for item in items.values() if item.record.parent is not None])
    alone: list[str] = []
    for item in items.values():
        parent = item.record.parent
        left = set(_sources(item)) - set(gone[item.id])
        if parent is not None and parent != item.id:
            if parent not in files and not left:  # else it goes with its file's first one
                alone.append(item.id)
            continue
        report.removed += not left
        if parent is None and not left:
            alone.append(item.id)
        else:
            drop_locations(collection, [(item.id, source) for source in gone[item.id]], settings)
    collection.delete(alone)
    discard_unshown(collection, [items[item_id].record for item_id in alone], settings)
