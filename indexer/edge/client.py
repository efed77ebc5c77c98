"""Attach to a data folder's index process; start it if nobody has.

An attached client holds a lease: a shared lock that the kernel frees however the client ends. The process ends with
its last lease, so nothing has to be stopped and nothing is orphaned.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from indexer.edge.address import EXIT_OWNED, LEASES_FILE, OWNER_FILE, describe_owner, read_address
from indexer.edge.files import FileLock
from indexer.errors import IndexOwned, IndexUnavailable
from indexer.settings import Settings

_START_SECONDS = 60.0
_LOG_BYTES = 1_000_000


class Attached:
    """A lease on a data folder's index process. `close` gives it up."""

    def __init__(self, lease: FileLock, folder: Path, optimize_after: int) -> None:
        self._lease = lease
        self._folder = folder
        self._optimize_after = optimize_after
        self.url = ""
        self.direct = 0
        """The port for questions without HTTP (`indexer.edge.direct`)."""
        self.secret = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._answered = False
        """Whether the child ever came up: one that did may crash (a full disk does that) and is started again."""

    def connect(self) -> None:
        """Wait until the process answers; start it again if it died.

        Raises:
            IndexOwned: a process that keeps no address there owns the folder.
            IndexUnavailable: it does not start.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if address := self._running():
                self.url, self.direct, self.secret = address
                self._answered = True
                return
            if self._child is not None and self._died_at_start(self._child):
                code, self._child = self._child.returncode, None  # the next call tries again
                raise IndexUnavailable(
                    f"The index process does not start (exit code {code}): {_last_words(self._folder)}"
                )
            self.start()
            time.sleep(0.005)
        raise IndexOwned(f"The index in {self._folder} belongs to {describe_owner(self._folder)}.")

    def _died_at_start(self, child: subprocess.Popen[bytes]) -> bool:
        return not self._answered and child.poll() not in {None, 0, -signal.SIGKILL, EXIT_OWNED}

    def start(self) -> None:
        """Start the process if none runs, without waiting for it: there is work to do meanwhile.

        Should two clients start one at the same moment, one of the two processes finds the folder taken and ends.
        """
        if (self._child is not None and self._child.poll() is None) or not _is_free(self._folder / OWNER_FILE):
            return
        command = [sys.executable, "-m", "indexer.edge", str(self._folder), str(self._optimize_after)]
        self._answered = False
        with _open_log(self._folder) as log:
            # A session of its own, so that Ctrl-C in a terminal ends the client first, and its writes still land.
            self._child = subprocess.Popen(  # noqa: S603  our own command line
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _running(self) -> tuple[str, int, str] | None:
        address = read_address(self._folder)
        if address is None or _is_free(self._folder / OWNER_FILE):
            return None
        return address["url"], address["direct"], address["secret"]

    def close(self) -> None:
        """Give up the lease. The process ends soon, if nobody else holds one."""
        self._lease.close()
        if self._child is not None:
            self._child.poll()


def attach(settings: Settings) -> Attached:
    """Take a lease on the index process of the settings' data folder; `connect` then waits for it.

    Raises:
        IndexUnavailable: the folder cannot be made or written.
    """
    folder = settings.index_folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lease = FileLock(folder / LEASES_FILE)
    except OSError as error:
        raise IndexUnavailable(
            f"The data folder {settings.data} cannot be used: {error.strerror}.",
            remedy="Name a folder that you may write to, with --data or CROSSLENS_DATA.",
        ) from error
    deadline = time.monotonic() + _START_SECONDS
    # An index process that is ending holds this lock for itself, for as long as it writes out what it has.
    while not lease.try_acquire(shared=True):
        if time.monotonic() > deadline:
            raise IndexUnavailable(f"The index in {folder} is being closed by {describe_owner(folder)}, for too long.")
        time.sleep(0.01)
    attached = Attached(lease, folder, settings.optimize_after)
    attached.start()
    return attached


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock; looking takes it for a moment, which its next owner has to bear with."""
    lock = FileLock(path)
    try:
        return lock.try_acquire(shared=True)  # shared: two who look must not take each other for the owner
    finally:
        lock.close()


def _open_log(folder: Path) -> BinaryIO:
    path = folder / "index.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(folder / "index.log.1")
    return path.open("ab")


def _last_words(folder: Path) -> str:
    lines = (folder / "index.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1][:500] if lines else "it said nothing."
