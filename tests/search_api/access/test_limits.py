"""Limits, in Redis and in the process: the same answers, exact under threads, and never in the way when Redis is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from search_api.access.limits import DAY, Limit, LocalMeters, Meters, RedisMeters, header_policy, header_state
from tests.search_api.access.conftest import Clock

RATE = Limit("key:a", "rate", quota=10, rate=2)
A_DAY = Limit("key:a", "requests", quota=5)
BYTES = Limit("key:a", "bytes", quota=1000, unit="content-bytes")
Make = Callable[[Clock], Meters]


@pytest.fixture(params=["redis", "process"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "process":
        return lambda clock: LocalMeters(now=clock.seconds)
    client: redis.Redis = request.getfixturevalue("valkey")
    client.flushall()
    return lambda clock: RedisMeters(client, now=clock.seconds)


def allowed(meters: Meters, limit: Limit, cost: float = 1) -> bool:
    return not any(each.refused for each in meters.spend([(limit, cost)]))


def test_a_bucket_gives_its_burst_and_then_its_rate(make: Make) -> None:
    clock = Clock()
    meters = make(clock)
    assert [allowed(meters, RATE) for _ in range(11)] == [True] * 10 + [False]
    (refused,) = meters.spend([(RATE, 1)])
    assert (refused.wait, refused.remaining, refused.reset) == (1, 0, 5)
    clock.move(seconds=0.4)
    assert not allowed(meters, RATE)
    clock.move(seconds=0.1)
    assert [allowed(meters, RATE), allowed(meters, RATE)] == [True, False]
    clock.move(hours=1)
    assert [allowed(meters, RATE) for _ in range(11)] == [True] * 10 + [False]


def test_a_days_quota_comes_back_at_midnight(make: Make) -> None:
    clock = Clock(datetime(2027, 1, 31, 23, 59, 50, tzinfo=UTC))
    meters = make(clock)
    assert [allowed(meters, A_DAY) for _ in range(6)] == [True] * 5 + [False]
    assert meters.spend([(A_DAY, 1)])[0].wait == 10
    clock.move(seconds=9)
    assert not allowed(meters, A_DAY)
    clock.move(seconds=1)
    assert [allowed(meters, A_DAY) for _ in range(6)] == [True] * 5 + [False]


def test_what_is_refused_is_charged_nowhere(make: Make) -> None:
    meters = make(Clock())
    assert allowed(meters, BYTES, 900)
    refused = meters.spend([(RATE, 1), (BYTES, 101)])
    assert [each.refused for each in refused] == [False, True]
    assert [each.remaining for each in refused] == [10, 100]
    assert [each.remaining for each in meters.spend([(RATE, 1), (BYTES, 100)])] == [9, 0]
    assert not allowed(meters, BYTES, 10**12)


def test_looking_costs_nothing(make: Make) -> None:
    meters = make(Clock())
    for _ in range(20):
        assert allowed(meters, A_DAY, 0)
    for _ in range(5):
        assert allowed(meters, A_DAY)
    assert not allowed(meters, A_DAY, 0)


def test_callers_are_counted_apart(make: Make) -> None:
    meters = make(Clock())
    other = Limit("key:b", "requests", quota=5)
    assert [allowed(meters, A_DAY) for _ in range(6)][-1] is False
    assert allowed(meters, other)


def test_a_quota_is_exact_under_eight_threads(make: Make) -> None:
    meters = make(Clock())
    many, heavy = Limit("key:a", "requests", quota=500), Limit("key:a", "bytes", quota=2000)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: meters.spend([(many, 1), (heavy, 7)]), range(800)))
    granted = [each for each in done if not any(standing.refused for standing in each)]
    assert len(granted) == 2000 // 7
    assert meters.spend([(many, 0), (heavy, 0)])[0].used == 2000 // 7


steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.5, 3600.0, 50_000.0]),
        st.lists(
            st.tuples(st.sampled_from([RATE, A_DAY, BYTES]), st.sampled_from([0, 1, 2, 5, 400])),
            min_size=1,
            max_size=3,
            unique_by=lambda each: each[0].name,
        ),
    ),
    max_size=25,
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_redis_and_the_process_count_alike(
    valkey: redis.Redis, trace: list[tuple[float, list[tuple[Limit, int]]]]
) -> None:
    valkey.flushall()
    clock = Clock()
    here, there = LocalMeters(now=clock.seconds), RedisMeters(valkey, now=clock.seconds)
    for seconds, charges in trace:
        clock.move(seconds=seconds)
        for one, other in zip(here.spend(charges), there.spend(charges), strict=True):
            assert (one.refused, one.remaining) == (other.refused, other.remaining)
            assert one.used == pytest.approx(other.used, abs=1e-4)
            assert abs(one.wait - other.wait) <= 1


def test_redis_keeps_time_itself_and_forgets_what_says_nothing(valkey: redis.Redis) -> None:
    valkey.flushall()
    meters = RedisMeters(valkey)
    meters.spend([(RATE, 1), (A_DAY, 1)])
    assert 0 < int(valkey.ttl("crosslens:limit:key:a:rate")) <= 6  # type: ignore[arg-type]
    assert 0 < int(valkey.ttl("crosslens:limit:key:a:requests")) <= DAY + 1  # type: ignore[arg-type]


def test_without_redis_nothing_is_limited() -> None:
    client = redis.Redis(host="127.0.0.1", port=1, retry=None)
    meters = RedisMeters(client)
    assert meters.spend([(A_DAY, 10**9)]) == []
    assert meters.spend([(A_DAY, 10**9)]) == []


def test_a_process_drops_what_says_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_api.access.limits._MOST", 100)
    clock = Clock()
    meters = LocalMeters(now=clock.seconds)
    for number in range(100):
        meters.spend([(Limit(f"address:{number}", "rate", 10, 10), 1)])
    clock.move(seconds=10)
    meters.spend([(A_DAY, 1), (RATE, 1)])
    assert len(meters._states) == 2


def test_headers_are_of_the_drafts_form() -> None:
    standings = LocalMeters(now=Clock().seconds).spend([(RATE, 1), (BYTES, 400)])
    assert header_policy(standings) == '"rate";q=10;w=5, "bytes";q=1000;w=86400;qu="content-bytes"'
    assert header_state(standings) == '"rate";r=9;t=1, "bytes";r=600;t=43200'
