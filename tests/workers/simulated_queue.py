"""As much of Redis as reranking's queue asks of it, and queues of one process, in a time that is reckoned."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

from tests.indexer.rerank.simulation import Simulation
from workers.rerank import line, worker


class SimulatedQueue:
    """As `queue.SimpleQueue`."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._items: deque[Any] = deque()
        self._waiting: deque[threading.Event] = deque()

    def put(self, item: Any) -> None:
        """Add one, and wake who waits."""
        self._items.append(item)
        if self._waiting:
            self._simulation.wake(self._waiting.popleft())

    def get(self, block: bool = True, timeout: float = 1e9) -> Any:
        """The next; raises `Empty` after so long."""
        ends = self._simulation.now + timeout
        while not self._items:
            if self._simulation.now >= ends:
                raise Empty
            signal = threading.Event()
            self._waiting.append(signal)
            self._simulation.wait_for(signal, ends - self._simulation.now)
            if signal in self._waiting:
                self._waiting.remove(signal)
        return self._items.popleft()


class SimulatedRedis:
    """Lists, values that expire, and the scripts of `workers.rerank`; each call is on the way for `way` seconds."""

    def __init__(self, simulation: Simulation, way: float = 0.0005) -> None:
        self._simulation = simulation
        self._way = way
        self._lists: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._values: dict[str, tuple[bytes, float]] = {}
        self._waiting: list[tuple[list[str], threading.Event]] = []
        self.present: list[bytes] = []

    def register_script(self, script: str) -> Callable[..., Any]:
        """What a script does."""
        known: dict[str, Callable[..., Any]] = {
            line._PUSH: self._push, line._PRESENT: lambda *_: self.present, worker._TAKE: self._take,
            worker._ANSWER: lambda keys, args: self._append(keys[0], args[0]),
        }  # fmt: skip

        def run(keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
            self._simulation.sleep(self._way)
            return known[script](keys, args)

        return run

    def blpop(self, keys: Sequence[str], timeout: float) -> tuple[bytes, bytes] | None:
        """The first element of the first list that has one."""
        self._simulation.sleep(self._way)
        ends = self._simulation.now + timeout
        while True:
            for key in keys:
                if self._lists[key]:
                    return key.encode(), self._lists[key].popleft()
            if self._simulation.now >= ends:
                return None
            entry = (list(keys), threading.Event())
            self._waiting.append(entry)
            self._simulation.wait_for(entry[1], ends - self._simulation.now)
            if entry in self._waiting:
                self._waiting.remove(entry)

    def delete(self, key: str) -> None:
        """Remove a list."""
        self._lists.pop(key, None)

    def close(self) -> None:
        """Nothing is open."""

    def _push(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        if len(self._lists[keys[0]]) >= args[3]:
            return 0
        self._values[keys[1]] = (args[1].encode(), self._simulation.now + args[2] / 1000)
        self._append(keys[0], args[0])
        return 1

    def _take(self, keys: Sequence[str], _: Sequence[Any]) -> list[Any] | None:
        value, ends = self._values.pop(keys[0])
        left = int((ends - self._simulation.now) * 1000)
        return [left, value] if left > 0 else None

    def _append(self, key: str, element: str) -> None:
        self._lists[key].append(element.encode())
        for entry in self._waiting:
            if key in entry[0]:
                self._waiting.remove(entry)
                self._simulation.wake(entry[1])
                return
