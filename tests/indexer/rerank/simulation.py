"""Requests beside each other in a time that is reckoned, not waited for: threads of which one runs at a time.

Each sleeps and waits in that time alone; whoever wakes first by the clock runs next. The same seed gives the same run.
"""

import heapq
import itertools
import threading
from collections.abc import Callable


class Simulation:
    """The clock, and who wakes when. `run` starts requests at their times and returns when all are over."""

    def __init__(self) -> None:
        self.now = 0.0
        self._wakes: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()
        self._idle = threading.Event()

    def clock(self) -> float:
        """The time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let others run for so long; for the request that calls it."""
        self.wait_for(threading.Event(), seconds)

    def wait_for(self, signal: threading.Event, seconds: float) -> None:
        """Until somebody gives the signal (`wake`), or for so long."""
        heapq.heappush(self._wakes, (self.now + seconds, next(self._order), signal))
        self._idle.set()
        signal.wait()

    def wake(self, signal: threading.Event) -> None:
        """Let whoever waits for the signal run at this time, after those that are due."""
        self._wakes = [
            (self.now, order, each) if each is signal else (t, order, each) for t, order, each in self._wakes
        ]
        heapq.heapify(self._wakes)

    def run(self, requests: list[tuple[float, Callable[[], None]]]) -> None:
        """Run requests, each from its time on."""
        for at, request in requests:
            start = threading.Event()
            heapq.heappush(self._wakes, (at, next(self._order), start))
            threading.Thread(target=self._live, args=(start, request), daemon=True).start()
        while self._wakes:
            self.now, _, event = heapq.heappop(self._wakes)
            self._idle.clear()
            event.set()
            self._idle.wait()

    def _live(self, start: threading.Event, request: Callable[[], None]) -> None:
        start.wait()
        try:
            request()
        finally:
            self._idle.set()


class SimulatedTurns:
    """As `InTurn`: a device that runs `at_once` batches; of the others whoever can wait least is called first."""

    def __init__(self, simulation: Simulation, at_once: int = 1) -> None:
        self._simulation = simulation
        self._free = at_once
        self._line: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()

    def take(self, seconds: float) -> bool:
        """Wait in the line for so long."""
        if self._free:
            self._free -= 1
            return True
        ticket = (self._simulation.now + seconds, next(self._order), threading.Event())
        heapq.heappush(self._line, ticket)
        self._simulation.wait_for(ticket[2], seconds)
        if ticket not in self._line:
            return True
        self._line.remove(ticket)
        heapq.heapify(self._line)
        return False

    def give_back(self) -> None:
        """Call the next one."""
        if self._line:
            self._simulation.wake(heapq.heappop(self._line)[2])
        else:
            self._free += 1
