"""What the kernel tells of folders: which paths below them changed, and when last.

Only Linux is asked (inotify); elsewhere, and where the kernel takes no more folders, `complete` says so, and whoever
follows the folders has to walk them now and then. Links to folders are followed, as an ingest does; what is hidden is
not.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

_MOST_PATHS = 100_000
"""That are remembered; beyond, a walk is cheaper than their list."""
_MOST_NAMES = 16
"""Of one folder, by links that lead there: as many are followed."""
_WAKE_MS = 500


class Settled(NamedTuple):
    """Paths that changed and then did not for a while."""

    there: list[Path]
    files: list[Path]
    """Those that are gone, and were files."""
    folders: list[Path]
    """Those that are gone, and were folders."""


class Changes:
    """Paths below folders that changed. Its thread takes the kernel's messages as they come; close it after use.

    Usage:
        with Changes(beneath=settings.data) as changes:
            changes.follow(Path("photos"))
            there, files, folders = changes.take(settle=1.0)
    """

    def __init__(self, *, beneath: Path | None = None) -> None:
        """`beneath` is a folder to leave out, Crosslens' own."""
        self._own = _identity(beneath) if beneath is not None else None
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._roots: list[str] = []
        self._names: dict[int, set[str]] = {}
        """The names of each watched folder, by what the kernel calls it."""
        self._watches: dict[str, int] = {}
        self._times: dict[str, float] = {}
        self._folders: set[str] = set()
        """Those of the changed paths that were folders when they changed."""
        self._lost = False
        self.complete = True
        """Whether the kernel tells of all folders."""
        self._inotify = self._opened()
        self._thread = threading.Thread(target=self._read, name="changes", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        if self._inotify is not None:
            self._inotify.close()

    def follow(self, folder: Path) -> None:
        """Watch a folder and all below it; again, should it have been another one of that name before."""
        root = os.path.abspath(folder)  # noqa: PTH100  as sources are: links are not followed
        with self._lock:
            self._forget(root)
            if root not in self._roots:
                self._roots.append(root)
            self._watch(root)

    def take(self, settle: float) -> Settled:
        """The paths that did not change for `settle` seconds; each is given once.

        What is gone is held back for as long again: what it was renamed to has to be known first.
        """
        now = time.monotonic()
        with self._lock:
            due = {path: at for path, at in self._times.items() if now - at >= settle}
        settled = Settled([], [], [])
        for path, at in due.items():
            exists = os.path.lexists(path)
            if not exists and now - at < 2 * settle:
                continue
            with self._lock:
                if self._times.get(path) != at:
                    continue  # it changed again
                del self._times[path]
                was_folder = path in self._folders
                self._folders.discard(path)
            (settled.there if exists else settled.folders if was_folder else settled.files).append(Path(path))
        return settled

    def is_pending(self, path: Path) -> bool:
        """Whether a path changed and has not been taken yet."""
        with self._lock:
            return os.fspath(path) in self._times

    def take_lost(self) -> bool:
        """Whether messages were lost since the last call, so that only a walk can tell what changed."""
        with self._lock:
            lost, self._lost = self._lost, False
            return lost

    def _opened(self) -> Any:
        try:
            from inotify_simple import INotify  # noqa: PLC0415  there is none but for Linux

            return INotify()
        except (ImportError, OSError):
            self.complete = False
            return None

    def _read(self) -> None:
        while self._inotify is not None and not self._closed.is_set():
            try:
                events = self._inotify.read(timeout=_WAKE_MS)
            except OSError:
                self.complete = False
                return
            with self._lock:
                for event in events:
                    self._note(event.wd, event.mask, event.name)

    def _note(self, watch: int, mask: int, name: str) -> None:
        from inotify_simple import flags  # noqa: PLC0415

        if mask & flags.Q_OVERFLOW:
            self._lose()
            return
        if mask & flags.IGNORED:
            for folder in self._names.pop(watch, ()):
                self._watches.pop(folder, None)
            return
        if not name or name.startswith("."):
            return
        for folder in list(self._names.get(watch, ())):
            path = os.path.join(folder, name)  # noqa: PTH118  a string is what is kept
            if mask & (flags.CREATE | flags.MOVED_TO) or (mask & flags.ISDIR and mask & flags.ATTRIB):
                is_folder = bool(mask & flags.ISDIR) or os.path.isdir(path)  # noqa: PTH112  a link to a folder is one
                if is_folder:
                    self._watch(path)
            else:
                is_folder = bool(mask & flags.ISDIR) or path in self._watches
            if mask & (flags.MOVED_FROM | flags.DELETE) and path in self._watches:
                self._forget(path)
            self._times[path] = time.monotonic()
            if is_folder:
                self._folders.add(path)
        if len(self._times) > _MOST_PATHS:
            self._lose()

    def _lose(self) -> None:
        """Give up on single paths. New folders may be among what was not told, so all are looked for again."""
        self._times.clear()
        self._folders.clear()
        self._lost = True
        for root in self._roots:
            self._watch(root)

    def _watch(self, folder: str) -> None:
        """Have the kernel tell of a folder and all below it; of a link that leads back above itself, once."""
        if self._inotify is None:
            return
        from inotify_simple import flags  # noqa: PLC0415

        mask = (
            flags.CREATE | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE
            | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
        )  # fmt: skip
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            try:
                if _identity(here) == self._own:
                    continue
                watch = self._inotify.add_watch(here, mask)
                names = self._names.setdefault(watch, set())
                is_loop = any(here.startswith(name + os.sep) for name in names)
                if is_loop or (here not in names and len(names) >= _MOST_NAMES):
                    continue
                names.add(here)
                self._watches[here] = watch
                with os.scandir(here) as entries:
                    waiting += [entry.path for entry in entries if not entry.name.startswith(".") and _is_folder(entry)]
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.ENOMEM}:
                    self.complete = False
                    return
                # It is gone again, or may not be read: a walk says so.

    def _forget(self, folder: str) -> None:
        """Stop watching a folder by this name, and all below it."""
        inside = folder.rstrip(os.sep) + os.sep
        for name in [name for name in self._watches if name == folder or name.startswith(inside)]:
            watch = self._watches.pop(name)
            names = self._names.get(watch, set())
            names.discard(name)
            if not names and self._names.pop(watch, None) is not None:
                try:
                    self._inotify.rm_watch(watch)
                except OSError as error:
                    if error.errno != errno.EINVAL:  # it went with its folder
                        raise


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to what may not be looked at


def is_remote(folder: Path) -> bool:
    """Whether a folder is on a network drive or one that another system writes to: of those the kernel tells little."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
        here = os.path.realpath(folder)
    except OSError:
        return False
    best, kind = "", ""
    for line in lines:
        _, place, fstype, *_ = line.split(" ")
        place = place.replace("\\040", " ").rstrip("/")
        if (here == place or here.startswith(place + "/")) and len(place) >= len(best):
            best, kind = place, fstype
    return kind.startswith(_REMOTE)


_REMOTE = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "ceph", "afs", "vboxsf", "virtiofs")


def _identity(folder: Path | str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)  # noqa: PTH116  a string or a path
    except OSError:
        return None
    return status.st_dev, status.st_ino
