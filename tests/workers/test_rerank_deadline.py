"""A deadline through the queue, in a time that is reckoned: the API's side and the worker are the real ones."""

import random
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from indexer.errors import RerankerAway
from indexer.items import Kind, Modality, Record, now
from indexer.models.rerank.reranker import PairScores
from indexer.rerank.comparing import Text, Texts
from indexer.settings import Settings
from indexer.store.points import Stored
from tests.indexer.rerank.simulation import SimulatedTurns, Simulation
from tests.workers.simulated_queue import SimulatedQueue, SimulatedRedis
from workers.rerank import line as line_module
from workers.rerank import worker as worker_module
from workers.rerank.elsewhere import WorkerRerankers
from workers.rerank.line import Line
from workers.rerank.messages import HURRIED_MS, Model, Present
from workers.rerank.worker import AT_ONCE, HURRIED, RerankWorker

MEAN = 0.04
"""Seconds of a batch."""
ITEMS = 32


class Model_:
    """A model whose batches take any time at all."""

    max_batch = 8
    is_gpu = False
    name = "judge"
    devices: ClassVar[dict[str, str]] = {}

    def __init__(self, simulation: Simulation, chance: random.Random) -> None:
        self.simulation, self.chance = simulation, chance
        self.busy: list[float] = []

    def scores(self, text: str, passages: Sequence[str]) -> PairScores:
        seconds = self.chance.lognormvariate(0, 0.6) * MEAN
        self.busy.append(seconds)
        self.simulation.sleep(seconds)
        scores = np.ones(len(passages), np.float32)
        return PairScores(scores, None, scores, truncated=False)


class Installed:
    """A worker's rerankers: one, of texts."""

    def __init__(self, model: Any) -> None:
        self.comparer = Texts(model)

    def of(self, _: Modality) -> Texts:
        return self.comparer

    def close(self) -> None:
        """Nothing is open."""


class Queue:
    """The API's side and a worker, whose threads all live in one simulation."""

    def __init__(
        self, simulation: Simulation, model: Model_, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redis_ = SimulatedRedis(simulation)
        redis_.present = [
            Present(name="w", image=None, text=Model(name="judge", state="open")).model_dump_json().encode()
        ]
        nothing = SimpleNamespace(add=lambda *_: None)
        for module in (line_module, worker_module):
            monkeypatch.setattr(module, "connect", lambda *_, **__: redis_)
        for name in ("Jobs", "Meters"):
            monkeypatch.setattr(worker_module, name, lambda _: nothing)
        monkeypatch.setattr(line_module, "time", SimpleNamespace(monotonic=simulation.clock))
        line = Line(settings, clock=simulation.clock, inbox=lambda: SimulatedQueue(simulation))
        line._out = SimulatedQueue(simulation)  # type: ignore[assignment]
        line._threads.append(threading.current_thread())  # so that it starts none: they are these
        self.worker = RerankWorker(
            settings, rerankers=Installed(model), turns=SimulatedTurns(simulation), clock=simulation.clock  # type: ignore[arg-type]
        )  # fmt: skip
        self.worker._models["text"] = Model(name="judge", state="open")
        self.rerankers = WorkerRerankers(settings, line=line, clock=simulation.clock)
        self.threads = [(0.0, line._send_all), (0.0, line._listen)]
        self.threads += [(0.0, lambda hurried=n < HURRIED: self.worker.work(hurried)) for n in range(AT_ONCE)]  # type: ignore[misc]

    def stop(self) -> None:
        """Have the threads end."""
        self.rerankers.close()
        self.worker.stopping.set()


@pytest.fixture
def items() -> list[Stored]:
    record = Record(
        kind=Kind.TEXT, sha256="0" * 64, locations=[], bytes=1, media_type="text/plain", text="a cat", added_at=now()
    )
    return [Stored("", record, {})] * ITEMS


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    yield Simulation()


@pytest.mark.parametrize("load", [0.5, 1.5, 5.0])
def test_500_requests_are_answered_within_their_deadline_and_a_batch(
    load: float, simulation: Simulation, items: list[Stored], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poisson arrivals at half, one and a half, and five times what the worker's device can do."""
    chance = random.Random(int(load * 10))
    model = Model_(simulation, chance)
    queue = Queue(simulation, model, settings, monkeypatch)
    deadline, requests = 0.3, 500
    late: list[float] = []
    scored: list[int] = []
    away: list[str] = []

    def request() -> None:
        began = simulation.now
        try:
            scored.append(queue.rerankers.of("text").compare_list([Text("x", 1.0)], items, deadline).scored)
        except RerankerAway as error:
            away.append(error.message)
            scored.append(0)
        late.append(simulation.now - began - deadline)
        if len(late) == requests:
            queue.stop()

    at, arrivals = 1.0, []
    for _ in range(requests):
        at += chance.expovariate(load / (ITEMS / Model_.max_batch * MEAN))
        arrivals.append((at, request))
    simulation.run([*queue.threads, *arrivals])
    assert len(late) == requests
    assert sum(each <= max(model.busy) for each in late) >= 0.99 * requests
    assert max(late) <= 1e-9, "the API's side waits for nobody any longer"
    assert not [message for message in away if "too much to do" not in message]
    if load < 1:
        assert not away
        assert sum(each == ITEMS for each in scored) > 100
    else:
        assert sum(model.busy) > 0.7 * (simulation.now - 1)  # the device works for who still has time
        assert sum(scored) > 0.4 * len(model.busy) * Model_.max_batch  # and what it does comes in time
    assert max(model.busy) > 3 * MEAN


def test_who_is_in_a_hurry_is_answered_beside_those_who_have_a_minute(
    simulation: Simulation, items: list[Stored], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lists that keep coming take all threads that they may, and the device all the time."""
    model = Model_(simulation, random.Random(7))
    queue = Queue(simulation, model, settings, monkeypatch)
    scored: dict[bool, list[int]] = {True: [], False: []}

    def asking(seconds: float) -> Any:
        def request() -> None:
            hurried = seconds * 1000 <= HURRIED_MS
            found = queue.rerankers.of("text").compare_list([Text("x", 1.0)], items * (1 if hurried else 4), seconds)
            scored[hurried].append(found.scored)
            if sum(map(len, scored.values())) == 40 + 40:
                queue.stop()

        return request

    arrivals = [(1 + 0.01 * number, asking(60.0)) for number in range(40)]
    arrivals += [(2 + 0.5 * number, asking(0.4)) for number in range(40)]
    simulation.run([*queue.threads, *arrivals])
    assert sum(count >= 8 for count in scored[True]) >= 0.95 * len(scored[True])
    assert sum(scored[False]) > 0.5 * 40 * 4 * ITEMS  # which does not starve the others
