"""Files that survive a crash: written whole or not at all, and locks that the kernel frees."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, document: Any, *, mode: int = 0o600) -> None:
    """Write JSON so that a reader, or a power cut, finds the old file or the new one."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Make what was written to the files of a folder, mapped into memory or not, survive a power cut.

    Files may be renamed meanwhile, as the engine's log does when it begins the next one.

    Raises:
        OSError: the folder is gone.
    """
    while True:
        try:
            for path in folder.iterdir():
                _sync(path)
        except FileNotFoundError:
            if not folder.is_dir():
                raise
            continue
        _sync(folder)
        return


class FileLock:
    """An advisory lock on a file (flock), freed by the kernel however its holder dies. Not inherited by children."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Free the lock."""
        os.close(self._descriptor)
