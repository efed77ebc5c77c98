"""For child processes: never outlive the parent, however it dies."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_STANDARD_INPUT = 0


def follow_parent(
    on_orphaned: Callable[[], None], *, grace: float = 10.0, death_signal: signal.Signals = signal.SIGTERM
) -> None:
    """Called by a child at its start; its standard input must be a pipe that only the parent holds open.

    The kernel sends `death_signal` when the parent is gone (Linux), and the standard input comes to its end
    (everywhere): then `on_orphaned` runs in a thread, and after `grace` seconds the process ends whatever it is doing.
    """
    end_with_parent(death_signal)

    def watch() -> None:
        while os.read(_STANDARD_INPUT, 4096):  # the parent never writes: this ends when its end closes
            pass
        threading.Timer(grace, os._exit, (1,)).start()
        on_orphaned()

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def end_with_parent(death_signal: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send `death_signal` when the parent is gone (Linux); what this process executes keeps that.

    If the parent is gone already, this process ends here: a pipe to its standard input that nobody holds tells.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal)
        input_ = select.poll()
        input_.register(_STANDARD_INPUT, select.POLLHUP)
        if any(event & select.POLLHUP for _, event in input_.poll(0)):
            os._exit(1)
