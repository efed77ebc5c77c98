"""The supervisor with real processes: restarts, signals, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from workers.supervisor import Backoff

# A supervised process as ours are: it follows its parent, writes its id, and ends on SIGTERM.
CHILD = """
import os, signal, sys, threading
from pathlib import Path
from indexer.lifeline import follow_parent
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
follow_parent(stop.set, grace=2)
with open(sys.argv[1], "a") as pids:
    pids.write(f"{os.getpid()}\\n")
{behaviour}
"""
SUPERVISOR = """
import sys
from workers.supervisor import Backoff, Child, Supervisor
child = Child("child", [sys.executable, "-c", sys.argv[2], sys.argv[1]])
sys.exit(Supervisor([child], backoff=Backoff(first=0.01, longest=0.05), grace=float(sys.argv[3])).run())
"""
WAIT = "stop.wait()"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


class Supervised:
    """A supervisor in a process of its own, and what its child wrote."""

    def __init__(self, folder: Path, behaviour: str, grace: float) -> None:
        self.file = folder / "pids"
        self.file.touch()
        code = CHILD.replace("{behaviour}", behaviour)
        self.process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(self.file), code, str(grace)])

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.file.read_text().split()]

    def started(self, times: int) -> None:
        eventually(lambda: len(self.pids) >= times)

    def none_left(self) -> bool:
        return not any(alive(pid) for pid in self.pids)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def make(behaviour: str = WAIT, grace: float = 10) -> Supervised:
        made.append(Supervised(tmp_path, behaviour, grace))
        return made[-1]

    yield make
    for supervised in made:
        supervised.process.kill()
        supervised.process.wait()
        for pid in filter(alive, supervised.pids):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_child_is_started_again(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise()
    for starts in (1, 2, 3):
        supervised.started(starts)
        os.kill(supervised.pids[-1], signal.SIGKILL)
    supervised.started(4)
    assert len(set(supervised.pids)) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_children_and_then_the_supervisor(
    supervise: Callable[..., Supervised], number: signal.Signals
) -> None:
    supervised = supervise()
    supervised.started(1)
    supervised.process.send_signal(number)
    assert supervised.process.wait(20) == 0
    assert supervised.none_left()


def test_a_child_that_ignores_the_signal_is_killed_after_the_grace(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(STUBBORN, grace=0.2)
    supervised.started(1)
    supervised.process.terminate()
    assert supervised.process.wait(20) == 0
    assert supervised.none_left()


def test_no_child_outlives_a_killed_supervisor(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise()
    supervised.started(1)
    supervised.process.kill()
    supervised.process.wait()
    eventually(supervised.none_left)


def test_not_even_a_child_that_ignores_signals(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(STUBBORN)
    supervised.started(1)
    supervised.process.kill()
    supervised.process.wait()
    eventually(supervised.none_left)


def test_a_child_that_refuses_is_not_started_again(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise("sys.exit(2)")
    assert supervised.process.wait(20) == 2
    assert len(supervised.pids) == 1


def test_the_pause_doubles_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=3)
    assert [backoff.pause(deaths) for deaths in range(6)] == [0, 0.5, 1, 2, 3, 3]
    assert backoff.pause(10**6) == 3
