"""Keeps child processes alive, and takes them along when it ends.

What dies is started again, after a pause that doubles with every early death and is forgotten after a healthy time.
SIGTERM and SIGINT are passed on, and the children get a grace to finish what they do. Should the supervisor itself die,
however that happens, its children notice in two ways and end: the kernel tells them (Linux), and their standard
input, a pipe that only the supervisor holds open, comes to its end (everywhere).
"""

import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

REFUSED = 2
"""The exit code of a child that would refuse again however often it is started; it ends the supervisor too."""

_log = structlog.get_logger("supervisor")


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the n-th start in a row: `first`, doubled each time, `longest` at most; in seconds."""

    first: float = 0.2
    longest: float = 30.0
    healthy: float = 10.0
    """A child that lived this long begins again at no pause."""

    def pause(self, early_deaths: int) -> float:
        """Seconds to wait after so many deaths in a row, each before `healthy` was reached."""
        return 0.0 if early_deaths == 0 else min(self.longest, self.first * 2.0 ** min(early_deaths - 1, 32))


@dataclass
class Child:
    """One process to keep alive: its command, and the file descriptors that it inherits beside stderr."""

    name: str
    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    outlives: bool = False
    """Ended only when the others are gone: they need it to end well."""
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    starts: int = field(default=0, init=False)
    _early_deaths: int = field(default=0, init=False)
    _started_at: float = field(default=0.0, init=False)
    _due_at: float = field(default=0.0, init=False)

    @property
    def pid(self) -> int | None:
        """The running process' id; None between a death and the next start."""
        return self.process.pid if self.process else None


class Supervisor:
    """Runs until a signal, or until a child refuses to run.

    Usage:
        raise SystemExit(Supervisor([Child("api", [sys.executable, "-m", "search_api.server"])]).run())
    """

    def __init__(self, children: Sequence[Child], *, backoff: Backoff | None = None, grace: float = 15.0) -> None:
        self.children = list(children)
        self._backoff = backoff or Backoff()
        self._grace = grace
        self._stopping = False
        self._hurry = False

    def run(self) -> int:
        """Start the children and watch them; give the exit code: 0 after a signal, `REFUSED` if a child refused.

        Must be called in the main thread: signal handlers live there, and the kernel ties a child's life to the thread
        that started it.
        """
        with self._signals() as wakened:
            while not self._stopping:
                self._start_due()
                wakened(self._until_next_start())
                if self._reap() == REFUSED:
                    self._stop_children(wakened)
                    return REFUSED
            self._stop_children(wakened)
        return 0

    def stop(self) -> None:
        """End as on SIGTERM; for use in signal handlers and tests. A second call kills instead of waiting."""
        self._hurry = self._stopping
        self._stopping = True

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.process is None and child._due_at <= now:
                child.process = subprocess.Popen(  # noqa: S603  our own command lines, never a shell
                    list(child.command),
                    stdin=subprocess.PIPE,
                    stdout=sys.stderr.fileno(),  # ours may be one JSON document
                    pass_fds=tuple(child.pass_fds),
                )
                child.starts += 1
                child._started_at = now
                _log.info("child started", child=child.name, pid=child.process.pid, start=child.starts)

    def _until_next_start(self) -> float | None:
        pauses = [child._due_at - time.monotonic() for child in self.children if child.process is None]
        return max(0.0, min(pauses)) if pauses else None

    def _reap(self) -> int | None:
        """Note who died and when to start it again; give `REFUSED` if one of them will never run."""
        for child in self.children:
            if child.process is None or (code := child.process.poll()) is None:
                continue
            now = time.monotonic()
            early = now - child._started_at < self._backoff.healthy
            child._early_deaths = child._early_deaths + 1 if early else 0
            pause = self._backoff.pause(child._early_deaths)
            child._due_at = now + pause
            _close(child.process)
            child.process = None
            if code == REFUSED:
                return REFUSED
            _log.warning("child died", child=child.name, code=code, restart_in=pause)
        return None

    def _stop_children(self, wakened: Callable[[float | None], None]) -> None:
        deadline = time.monotonic() + self._grace
        for outlives in (False, True):
            self._stop_some([child for child in self.children if child.outlives is outlives], wakened, deadline)

    def _stop_some(self, children: Sequence[Child], wakened: Callable[[float | None], None], deadline: float) -> None:
        for child in children:
            if child.process is not None:
                child.process.terminate()
        while alive := [c.process for c in children if c.process is not None and c.process.poll() is None]:
            if self._hurry or time.monotonic() >= deadline:
                for process in alive:
                    process.kill()
                    process.wait()
                break
            wakened(deadline - time.monotonic())
        for child in children:
            if child.process is not None:
                _close(child.process)
                child.process = None

    @contextmanager
    def _signals(self) -> Iterator[Callable[[float | None], None]]:
        """Handle SIGTERM, SIGINT and SIGCHLD meanwhile; give a function that waits for one of them, with a timeout."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        handlers = {
            signal.SIGTERM: lambda *_: self.stop(),
            signal.SIGINT: lambda *_: self.stop(),
            signal.SIGCHLD: lambda *_: None,  # a handler, so that the wake-up descriptor is written to
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        fd_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def wakened(timeout: float | None) -> None:
            if select.select([reader], [], [], timeout)[0]:
                reader.recv(4096)

        try:
            yield wakened
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()


def _close(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
