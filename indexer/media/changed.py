"""What changed in folders, taken as a walk over the whole folder would take it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from indexer.errors import SourceNotFound
from indexer.media.archives import is_archive
from indexer.media.discover import Candidate, discover, is_media, with_sidecars
from indexer.media.sidecars import sidecars_of
from indexer.report import Counts, Failure
from indexer.settings import Settings


def discover_changed(
    paths: Iterable[Path], *, report: Counts, beneath: Path | None, settings: Settings
) -> Iterator[Candidate | Failure]:
    """What is at these paths: whole folders, and files as their folder's walk takes them.

    An image comes with the captions beside it, also if only those changed. What is no longer there, or is no media,
    gives nothing.
    """
    paths = list(paths)
    whole = {path for path in paths if path.is_dir()}
    by_folder: dict[Path, set[str]] = {}
    for path in paths:
        if whole.intersection(path.parents):
            continue  # it comes with its folder
        by_folder.setdefault(path.parent, set()).add(path.name)
    for folder in sorted(by_folder):
        for path, sidecars in _taken(folder, by_folder[folder], report, settings):
            if path.is_dir() and _leads_back(path, beneath):
                continue
            try:
                for found in discover([os.fspath(path)], report=report, beneath=beneath, settings=settings):
                    yield from with_sidecars(found, sidecars) if sidecars else (found,)
            except SourceNotFound:
                continue  # gone again


def _leads_back(folder: Path, beneath: Path | None) -> bool:
    """Whether a folder is Crosslens' own, or a link to one above it: what a walk from above leaves out."""
    try:
        others = [*folder.parents] if folder.is_symlink() else []
        others += [beneath] if beneath is not None and beneath.exists() else []
        return any(folder.samefile(other) for other in others)
    except OSError:
        return True  # gone again


def _taken(folder: Path, names: set[str], report: Counts, settings: Settings) -> Iterator[tuple[Path, list[Path]]]:
    """Those of a folder's names that are taken, and the images beside which one of the others lies."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        return  # it is gone, or a walk says what is the matter with it
    beside = sidecars_of(listed) if settings.sidecars else {}
    taken = {name for some in beside.values() for name in some}
    stems = {Path(name).stem for name in names & taken}
    for name in listed:
        path = folder / name
        if name in taken or (name not in names and path.stem not in stems):
            continue
        try:
            status = path.stat()
        except OSError:
            yield path, []  # a link that leads nowhere, or what may not be looked at: a failure
            continue
        if path.is_dir() or is_archive(name):
            yield path, []
        elif is_media(path, status):
            yield path, [folder / each for each in beside.get(path.stem, ())]
        else:
            report.passed_over += 1
