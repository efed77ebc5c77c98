"""The walk down a list: as far as time allows, and never late by more than one batch."""

import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.models.devices import cpu_count
from indexer.rerank.walk import DeviceTurns, InTurn, Walk
from tests.indexer.rerank.simulation import SimulatedTurns, Simulation
from tests.waiting import until


class Clock:
    """A clock that work moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Session:
    """A slow model: each batch takes its time by the clock."""

    def __init__(self, clock: Clock, durations: Sequence[float]) -> None:
        self.clock, self.durations = clock, list(durations)
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.clock.now += self.durations[len(self.batches) % len(self.durations)]
        self.batches.append(list(items))
        return [-item for item in items]


def down(walk: Walk, session: Callable[[Sequence[int]], list[int]], count: int, batch: int) -> list[int]:
    """The scores of as many as there is time for."""
    scores: list[int] = []
    while len(scores) < count:
        ran = walk.run(partial(session, range(len(scores), min(count, len(scores) + batch))))
        if ran is None:
            break
        scores += ran.result
    return scores


def walked(durations: Sequence[float], deadline: float, count: int = 50, batch: int = 8) -> tuple[list[int], Session]:
    clock = Clock()
    session = Session(clock, durations)
    return down(Walk(deadline, None, clock), session, count, batch), session


def test_with_time_enough_everything_is_scored_in_order() -> None:
    scores, session = walked([0.001], deadline=1)
    assert scores == [-item for item in range(50)]
    assert [len(each) for each in session.batches] == [8] * 6 + [2]


def test_when_time_is_up_the_first_are_scored_and_no_more() -> None:
    scores, session = walked([0.1], deadline=0.35)
    assert scores == [-item for item in range(24)]  # a fourth batch would end at 0.4
    assert session.clock.now <= 1000.35


def test_the_slowest_batch_is_what_the_next_is_expected_to_take() -> None:
    assert len(walked([0.01, 0.2, 0.01, 0.01, 0.01, 0.01], deadline=0.435)[0]) == 40  # at 0.24, 0.2 more is too late
    assert len(walked([0.01, 0.2, 0.01, 0.01], deadline=0.41)[0]) == 16
    assert len(walked([0.01, 0.01, 0.01], deadline=0.041, batch=10)[0]) == 40


def test_the_first_batch_runs_whatever_it_takes_unless_there_is_no_time() -> None:
    assert len(walked([60.0], deadline=0.001)[0]) == 8
    assert walked([0.001], deadline=0)[0] == []
    assert walked([0.001], deadline=-1)[0] == []
    assert walked([0.001], deadline=1, count=0)[0] == []


def test_a_batch_says_how_long_it_took() -> None:
    clock = Clock()
    ran = Walk(1, None, clock).run(lambda: Session(clock, [0.25])([3]))
    assert ran is not None
    assert (ran.result, ran.seconds) == ([-3], 0.25)


def test_before_a_batch_half_of_what_is_left_may_be_waited() -> None:
    clock = Clock()
    walk = Walk(1, None, clock)
    assert (walk.patience, walk.is_over) == (0.5, False)
    clock.now += 0.25
    assert walk.patience == 0.25
    clock.now += 0.25
    assert walk.patience == 0
    assert walk.run(lambda: Session(clock, [0.125])([0])) is not None
    assert (walk.patience, walk.is_over) == (0.1875, False)
    clock.now += 0.25
    assert (walk.patience, walk.is_over) == (0, True), "what is left is as much as a batch takes: none can begin"


def test_who_gets_no_turn_scores_nothing_and_gives_none_back() -> None:
    clock = Clock()
    turns = Turns(clock, [0.3])
    walk = Walk(0.25, turns, clock)
    assert down(walk, Session(clock, [0.1]), 20, 8) == []
    assert turns.held == 0
    assert clock.now == pytest.approx(1000.25)
    assert walk.is_over


def test_nobody_waits_for_a_turn_that_would_come_too_late_for_a_batch() -> None:
    clock = Clock()
    turns = Turns(clock, [0, 0.25])
    assert len(down(Walk(0.4, turns, clock), Session(clock, [0.1]), 20, 8)) == 8
    assert clock.now == pytest.approx(1000.3)


def test_a_turn_that_came_at_the_last_moment_is_handed_on() -> None:
    clock = Clock()
    turns = Turns(clock, [0, 0.1 + 1e-12], generous=True)
    assert len(down(Walk(0.3, turns, clock), Session(clock, [0.1]), 20, 8)) == 8
    assert turns.held == 0


def test_a_batch_that_fails_gives_its_turn_back() -> None:
    clock = Clock()
    turns = Turns(clock, [0])

    def fail(_: object) -> list[int]:
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        down(Walk(1, turns, clock), fail, 20, 8)
    assert turns.held == 0


class Turns:
    """Turns that come after given waits; a generous one comes even if that is too late."""

    def __init__(self, clock: Clock, waits: Sequence[float], *, generous: bool = False) -> None:
        self.clock, self.waits, self.generous = clock, list(waits), generous
        self.taken = self.held = 0

    def take(self, seconds: float) -> bool:
        wait = self.waits[self.taken % len(self.waits)]
        self.taken += 1
        came = wait <= seconds or self.generous
        self.clock.now += wait if came else max(0.0, seconds)
        self.held += came
        return came

    def give_back(self) -> None:
        self.held -= 1


@settings(max_examples=500, deadline=None)
@given(
    durations=st.lists(st.floats(1e-4, 5), min_size=1, max_size=30),
    waits=st.lists(st.floats(0, 2), min_size=1, max_size=30),
    deadline=st.floats(1e-3, 3),
    count=st.integers(0, 200),
    batch=st.integers(1, 32),
)
def test_never_later_than_one_batch(
    durations: list[float], waits: list[float], deadline: float, count: int, batch: int
) -> None:
    """500 requests, each with batches and queues that take any time at all."""
    clock = Clock()
    session, turns = Session(clock, durations), Turns(clock, waits)
    began = clock.now
    scores = down(Walk(deadline, turns, clock), session, count, batch)
    took = [durations[at % len(durations)] for at in range(len(session.batches))]
    assert clock.now - began <= deadline + max(took, default=0) + 1e-9
    assert scores == [-item for item in range(len(scores))]
    assert len(scores) == count or len(scores) % batch == 0
    assert turns.held == 0


@pytest.mark.parametrize("load", [0.5, 1.5, 5.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_deadline_is_kept_by_500_requests_beside_each_other(load: float, seed: int) -> None:
    """Poisson arrivals at half, one and a half, and five times what the device can do; batches of every duration."""
    simulation = Simulation()
    turns = SimulatedTurns(simulation)
    chance = random.Random(seed)
    deadline, mean = 0.3, 0.04
    late: list[float] = []
    scored: list[int] = []
    busy: list[float] = []

    def request() -> None:
        began, slowest = simulation.now, 0.0

        def score(items: Sequence[int]) -> list[int]:
            nonlocal slowest
            took = chance.lognormvariate(0, 0.6) * mean
            busy.append(took)
            simulation.sleep(took)
            slowest = max(slowest, took)
            return list(items)

        scores = down(Walk(deadline, turns, simulation.clock), score, 48, 8)
        late.append(simulation.now - began - deadline - slowest)
        scored.append(len(scores))

    at, requests = 0.0, []
    for _ in range(500):
        at += chance.expovariate(load / (6 * mean))
        requests.append((at, request))
    simulation.run(requests)
    assert len(late) == 500
    assert sum(each <= 1e-9 for each in late) >= 495
    if load < 1:
        assert sum(each == 48 for each in scored) > 100
    else:
        assert sum(busy) > 0.75 * simulation.now  # the device works for who still has time
    assert max(busy) > 3 * mean


def test_turns_come_one_at_a_time() -> None:
    turns = InTurn(2)
    assert turns.take(0)
    assert turns.take(5)
    assert not turns.take(0)
    assert not turns.take(-1)
    assert not turns.take(1e-6)
    came = waiting(turns, [60])
    turns.give_back()
    came[0].join(60)
    assert not turns.take(0)
    for _ in range(2):
        turns.give_back()
    assert turns.take(0)
    assert turns.take(0)
    assert not turns.take(0)


def waiting(turns: InTurn, patience: Sequence[float], order: list[float] | None = None) -> list[threading.Thread]:
    """Threads that wait for a turn, each for so long, and say when it came."""

    def wait(seconds: float) -> None:
        assert turns.take(seconds)
        if order is not None:
            order.append(seconds)
            turns.give_back()

    threads = [threading.Thread(target=wait, args=(seconds,)) for seconds in patience]
    for count, thread in enumerate(threads, 1):
        thread.start()
        until(lambda count=count: len(turns._waiting) == count)  # type: ignore[misc]
    return threads


def test_whoever_can_wait_least_comes_first_and_nobody_overtakes_those_who_wait() -> None:
    turns = InTurn()
    order: list[float] = []
    assert turns.take(0)
    threads = waiting(turns, [600, 300, 900, 150], order)
    turns.give_back()
    for thread in threads:
        thread.join(60)
    assert order == [150, 300, 600, 900]


def test_a_turn_given_back_goes_to_who_waits_and_not_to_who_is_quick() -> None:
    turns = InTurn()
    assert turns.take(0)
    (thread,) = waiting(turns, [600])
    turns.give_back()
    assert not turns.take(0)
    thread.join(60)


class Model:
    """A model on some devices."""

    def __init__(self, *devices: str) -> None:
        self.devices = {f"graph-{number}": names for number, names in enumerate(devices)}
        self.is_gpu = any(names.startswith("cuda") for names in devices)


def test_there_are_as_many_turns_as_devices_and_models_share_them() -> None:
    turns = DeviceTurns()

    def free(model: Any) -> int:
        count = 0
        while turns.of(model).take(0):
            count += 1
        for _ in range(count):
            turns.of(model).give_back()
        return count

    assert free(Model("cuda:0,cuda:1", "cuda:0,cuda:1")) == 2
    assert free(Model("cuda:0", "cuda:0")) == 1
    assert free(Model("cpu")) == cpu_count()
    assert turns.of(Model("cuda:1,cuda:0")) is turns.of(Model("cuda:0,cuda:1", "cuda:1,cuda:0"))
    assert turns.of(Model("cpu")) is turns.of(Model())
    unopened = Model()
    unopened.is_gpu = True
    assert free(unopened) == 1
