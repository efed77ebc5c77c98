"""How busy this process keeps its devices, whichever graphs run there."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.models.devices import Device


class Load:
    """Counts runs by device. Thread-safe."""

    def __init__(self) -> None:
        self._in_work: Counter[Device] = Counter()
        self._runs: Counter[Device] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def least(self, devices: Sequence[Device]) -> Iterator[int]:
        """Where the fewest runs are in work, and of those were so far: a place among the devices, with one more now."""
        with self._lock:
            place = min(range(len(devices)), key=lambda each: (self._in_work[devices[each]], self._runs[devices[each]]))
            device = devices[place]
            self._in_work[device] += 1
            self._runs[device] += 1
        try:
            yield place
        finally:
            with self._lock:
                self._in_work[device] -= 1


LOAD = Load()
"""Of this process: two graphs on the same GPU keep each other waiting."""
