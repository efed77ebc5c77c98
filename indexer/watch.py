"""Folders followed: what changes in them is indexed, what is gone leaves the index, until one says stop.

The kernel says which paths changed (`indexer.changes`); each is read once it has settled. A walk over everything, at
a long interval and wherever the kernel's messages were lost, heals what was missed. A folder that vanishes as a whole
may be a disk that is not mounted: nothing of it is removed.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.changes import Changes, is_remote
from indexer.errors import IndexOwned, IndexUnavailable, InvalidRequest, PruneRefused, SourceNotFound
from indexer.media.archives import is_archive
from indexer.media.changed import discover_changed
from indexer.media.discover import Candidate, discover
from indexer.media.sources import path_of, source_of
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest_found
from indexer.pruning import drop_gone, is_gone, is_lost, prune
from indexer.report import Failure, Report
from indexer.settings import Settings
from indexer.store.collection import Collection

_TICK = 0.25
"""Seconds between two looks at what changed."""
_LONGEST_PAUSE = 60.0
_BLIND = 60.0
"""Seconds between walks where the kernel does not tell of all changes."""
_PATIENCE = 10
"""Times as long as a walk took, the next one waits: of a large folder's time, most is left for the batches."""
_TOLD = 10_000
"""Failures that are remembered, to be told once and not after every walk."""


def watch(
    folders: Sequence[Path],
    *,
    collection: Collection,
    encoder: Encoder,
    settings: Settings,
    keep: bool = False,
    settle: float = 1.0,
    every: float = 3600.0,
    on_batch: Callable[[Report], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Index folders and follow them until `stop` is set; what is in work then is still stored.

    A file is read when it has not changed for `settle` seconds. With `keep` nothing is removed. Everything is walked
    again after `every` seconds, and after a minute where that is the only way to learn of changes. `on_batch` gets a
    report of the first walk and of every batch that did something; `on_notice` a sentence where a folder or the
    index is gone or back; `progress` is the first walk's, as in `ingest`.

    Raises:
        SourceNotFound, InvalidRequest: at the start, what is named is not there, or no folder.
        CollectionNotFound: the collection was removed.
    """
    for folder in folders:
        if not folder.exists():
            raise SourceNotFound(f"There is no {os.fspath(folder)!r}.")
        if not folder.is_dir():
            raise InvalidRequest(f"{os.fspath(folder)!r} is no folder.", remedy="Name the folder that it lies in.")
    roots = [_Root(Path(os.path.abspath(folder))) for folder in folders]  # noqa: PTH100  as sources are
    with Changes(beneath=settings.data) as changes:
        _Watcher(
            roots,
            changes,
            collection,
            encoder,
            settings,
            keep=keep,
            settle=settle,
            every=every,
            on_batch=on_batch,
            on_notice=on_notice,
            stop=stop or threading.Event(),
        ).run(progress)


class _Root:
    """A folder that is followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = _identity(path)
        self.is_here = True
        self.held_something = not is_lost(path)
        """Whether this very folder had something in it since it is followed: if it is empty now, it was emptied."""
        self.was_refused = False
        """Whether removing what is gone of it was refused the last time."""

    def holds(self, path: Path) -> bool:
        return path.is_relative_to(self.path)

    def look(self) -> bool:
        """Whether it is here: the folder it was, or another one that has something in it."""
        identity = _identity(self.path)
        is_another = identity != self.identity
        if identity is None or (is_another and is_lost(self.path)):
            return False
        self.identity = identity
        self.held_something = is_another or self.held_something or not is_lost(self.path)
        return True


@dataclass
class _Watcher:
    """One `watch`: its folders, and what it knows of them."""

    roots: list[_Root]
    changes: Changes
    collection: Collection
    encoder: Encoder
    settings: Settings
    keep: bool
    settle: float
    every: float
    on_batch: Callable[[Report], None]
    on_notice: Callable[[str], None]
    stop: threading.Event
    told: set[tuple[str, str]] = field(default_factory=set)
    """Failures that were handed on: source and code."""
    walk_at: float = 0.0
    """By the clock on the wall: after a sleep a walk is due."""
    is_blind: bool = False
    """Whether it was said that the kernel does not tell of all folders."""

    def run(self, progress: Callable[[Report], None] | None) -> None:
        """Follow until stopped."""
        for root in self.roots:
            self.changes.follow(root.path)  # before the walk, so that nothing falls between the two
        self._steadily(lambda: self._walk(progress, first=True))
        while not self.stop.wait(_TICK):
            self._look_at_roots()
            # Taken first: what the walk then finds of it is only found twice.
            changed = self.changes.take(self.settle)
            if any(changed):
                self._steadily(functools.partial(self._batch, *changed))
            if self.changes.take_lost() or time.time() >= self.walk_at:
                self._steadily(self._walk)

    def _steadily(self, work: Callable[[], None]) -> None:
        """Do a piece of work; as long as the index is away, again and again: it is safe to do twice."""
        pause = 1.0
        while not self.stop.is_set():
            try:
                work()
            except (IndexUnavailable, IndexOwned) as error:
                if pause == 1.0:
                    self.on_notice(f"{error.message} Waiting for it; no change is lost.")
                self.stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if pause > 1.0:
                self.on_notice("The index is back.")
            return

    def _look_at_roots(self) -> None:
        if not self.changes.complete and not self.is_blind:
            self.is_blind = True
            self.walk_at = min(self.walk_at, time.time() + _BLIND)
            self.on_notice(
                "The system does not tell of changes in all folders, so they are walked every minute; "
                "on Linux, raise fs.inotify.max_user_watches."
            )
        for root in self.roots:
            before, known = root.is_here, root.identity
            root.is_here = root.look()
            if root.is_here and (not before or root.identity != known):
                self.on_notice(f"The folder {root.path} is back.")
                self.changes.follow(root.path)
                self.walk_at = 0.0
            elif before and not root.is_here:
                self.on_notice(f"The folder {root.path} is gone; nothing of it is removed, and it is waited for.")

    def _walk(self, progress: Callable[[Report], None] | None = None, *, first: bool = False) -> None:
        """Index all that is in the folders, then remove what is gone."""
        started = time.time()
        report = Report(self.collection.name, self.encoder.name)
        here = [root for root in self.roots if root.is_here]
        for root in here:
            try:
                found = discover(
                    [os.fspath(root.path)], report=report, beneath=self.settings.data, settings=self.settings
                )
            except SourceNotFound:
                continue  # gone since; the next look says so
            self._ingest(found, report, progress)
        self._look_at_roots()
        for root in here:
            if root.is_here and not self.keep and not self.stop.is_set():
                self._prune(root, report)
        now = time.time()
        pause = self.every
        if not self.changes.complete or any(is_remote(root.path) for root in here):
            pause = min(pause, max(_BLIND, _PATIENCE * (now - started)))
        self.walk_at = now + pause
        report.failures = [each for each in report.failures if (each.source, each.error.code) not in self.told]
        if first or report.indexed or report.removed or report.failures:
            self._tell(report)

    def _batch(self, there: list[Path], files: list[Path], folders: list[Path]) -> None:
        """Index what is at some paths, then remove what is gone from others: what moved keeps its item."""
        report = Report(self.collection.name, self.encoder.name)
        found = discover_changed(
            self._of_roots(there), report=report, beneath=self.settings.data, settings=self.settings
        )
        self._ingest(found, report, None)
        if not self.keep and not self.stop.is_set():
            drop_gone(self._of_roots(files), collection=self.collection, report=report, settings=self.settings)
            # An archive's members and what was in a folder can only be found by looking at every item.
            whole = self._of_roots([*folders, *(path for path in files if is_archive(path.name))])
            whole = [path for path in whole if is_gone(source_of(path))]
            if whole:
                self._remove(whole, report, unguarded=True)
        if report.total or report.removed:
            self._tell(report)

    def _of_roots(self, paths: Iterable[Path]) -> list[Path]:
        """Those of the paths whose folder is here now; of one that is gone as a whole nothing can be told."""
        self._look_at_roots()
        away = [root for root in self.roots if not root.is_here]
        return [path for path in paths if not any(root.holds(path) for root in away)]

    def _ingest(
        self,
        found: Iterable[Candidate | Failure],
        report: Report,
        progress: Callable[[Report], None] | None,
    ) -> None:
        ingest_found(
            self._settled(found),
            collection=self.collection,
            encoder=self.encoder,
            settings=self.settings,
            report=report,
            progress=progress,
            stop=self.stop,
        )
        report.failures = [each for each in report.failures if not is_gone(each.source)]

    def _settled(self, found: Iterable[Candidate | Failure]) -> Iterator[Candidate | Failure]:
        """What did not change just now: that has its turn, once it has settled."""
        for each in found:
            path = each.path if isinstance(each, Candidate) else path_of(each.source)
            if path is None or not self.changes.is_pending(path):
                yield each

    def _prune(self, root: _Root, report: Report) -> None:
        if any(root.holds(other.path) for other in self.roots if not other.is_here):
            return  # a disk in it is away
        try:
            was_emptied = root.held_something and is_lost(root.path) and root.look()
            self._remove([root.path], report, unguarded=was_emptied)
        except PruneRefused as refusal:
            if not root.was_refused:
                self.on_notice(f"{refusal.message} {refusal.remedy}")
            root.was_refused = True
        else:
            root.was_refused = False

    def _remove(self, paths: list[Path], report: Report, *, unguarded: bool) -> None:
        prune(
            paths,
            collection=self.collection,
            report=report,
            settings=self.settings,
            unguarded=unguarded,
            stop=self.stop,
        )

    def _tell(self, report: Report) -> None:
        """Hand on a report of what was done; its failures need not be told again after each walk."""
        if len(self.told) > _TOLD:
            self.told.clear()
        self.told |= {(each.source, each.error.code) for each in report.failures}
        self.on_batch(report)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
