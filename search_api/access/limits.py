"""How much a key or an address may do: requests a second with a burst, and amounts a day.

A rate is a token bucket, kept as what was used and leaks away; an amount a day is counted from midnight (UTC). What
one request costs is charged to all its limits or to none, by one script in Redis where there is a queue, so that all
API processes share them, else in this process. When Redis does not answer, nothing is limited: it fails open, since a
limit protects from too much, and the keys, which fail closed, from the wrong ones.

Why not Flask-Limiter and `limits`: they have no bucket with a burst, their fixed windows charge what they refuse, so
that one upload too large would use up a day's bytes, and each limit is a round trip of its own.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from indexer.settings import Settings

if TYPE_CHECKING:
    import redis

DAY = 86_400
_MOST = 20_000
"""Meters that a process keeps, before it drops those that say nothing any more."""
_AWAY_SECONDS = 5.0
"""How long a Redis that did not answer is left alone."""
_GRAIN = 1e-6
"""Below this, what is missing is an error of rounding."""

_log = structlog.get_logger("access")


@dataclass(frozen=True)
class Limit:
    """One limit of one caller."""

    key: str
    """Whose and which: where it is counted."""
    name: str
    """As the RateLimit headers call it."""
    quota: float
    """The burst of a rate; the amount of a day."""
    rate: float = 0.0
    """Refilled a second; 0: at midnight (UTC)."""
    unit: str | None = None
    """What is counted, if not requests: as the RateLimit headers call it."""

    @property
    def window(self) -> int:
        """Seconds in which the quota comes back in full."""
        return max(1, math.ceil(self.quota / self.rate)) if self.rate else DAY


@dataclass(frozen=True)
class Standing:
    """Where a limit is after a request."""

    limit: Limit
    used: float
    refused: bool
    reset: int
    """Seconds until the quota is there in full."""
    wait: int
    """Seconds until the request can be sent again; 0 if it was not refused."""

    @property
    def remaining(self) -> int:
        """What is left, in whole ones."""
        return max(0, math.floor(self.limit.quota - self.used + _GRAIN))


class Meters(Protocol):
    """Where what was used is counted."""

    def spend(self, charges: Sequence[tuple[Limit, float]]) -> list[Standing]:
        """Charge each limit with a cost if all have it left, else none. A cost of 0 looks whether 1 is left."""


# KEYS: meters. ARGV: now, or '' for the server's own; then for each meter quota, rate, cost.
# Gives what each has used, before if any refuses, else after; then 1 for each that refuses; then the time.
_SPEND = """
local now = tonumber(ARGV[1])
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local used, refuses, answer, any = {}, {}, {}, false
for i, key in ipairs(KEYS) do
  local quota, rate, cost = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local state = redis.call('HMGET', key, 'used', 'at')
  local before, at = tonumber(state[1] or '0') or 0, tonumber(state[2] or '0') or 0
  if rate > 0 then
    before = math.max(0, before - math.max(0, now - at) * rate)
  elseif math.floor(at / 86400) < math.floor(now / 86400) then
    before = 0
  end
  used[i] = before
  refuses[i] = before + math.max(cost, 1) > quota + 0.000001
  any = any or refuses[i]
end
for i, key in ipairs(KEYS) do
  local quota, rate, cost = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  if not any and cost > 0 then
    used[i] = used[i] + cost
    redis.call('HSET', key, 'used', string.format('%.6f', used[i]), 'at', string.format('%.6f', now))
    redis.call('EXPIRE', key, rate > 0 and math.ceil(quota / rate) + 1 or 86401)
  end
  answer[i] = string.format('%.6f', used[i])
  answer[#KEYS + i] = refuses[i] and '1' or '0'
end
answer[2 * #KEYS + 1] = string.format('%.6f', now)
return answer
"""


class RedisMeters:
    """Meters in Redis. When it does not answer, nothing is refused."""

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] | None = None) -> None:
        self._spend: Any = client.register_script(_SPEND)
        self._now = now
        self._away_until = 0.0

    def spend(self, charges: Sequence[tuple[Limit, float]]) -> list[Standing]:
        """Charge all or none, in one script; nothing where Redis is away."""
        import redis  # noqa: PLC0415

        if not charges or time.monotonic() < self._away_until:
            return []
        keys = [f"crosslens:limit:{limit.key}:{limit.name}" for limit, _ in charges]
        numbers = [number for limit, cost in charges for number in (limit.quota, limit.rate, cost)]
        try:
            answer = self._spend(keys=keys, args=[self._now() if self._now else "", *numbers])
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            _log.warning("limits are not kept", detail=str(error))
            return []
        now, many = float(answer[-1]), len(keys)
        return [
            _standing(limit, cost, float(answer[i]), answer[many + i] == b"1", now)
            for i, (limit, cost) in enumerate(charges)
        ]


class LocalMeters:
    """Meters in this process."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._states: dict[str, tuple[float, float, float]] = {}
        """What was used, when, and when that says nothing any more."""

    def spend(self, charges: Sequence[tuple[Limit, float]]) -> list[Standing]:
        """Charge all or none."""
        now = self._now()
        with self._lock:
            before = [self._used(limit, now) for limit, _ in charges]
            refused = [
                used + max(cost, 1.0) > limit.quota + _GRAIN
                for used, (limit, cost) in zip(before, charges, strict=True)
            ]
            if any(refused):
                after = before
            else:
                after = [used + cost for used, (_, cost) in zip(before, charges, strict=True)]
                for used, (limit, cost) in zip(after, charges, strict=True):
                    if cost > 0:
                        self._states[f"{limit.key}:{limit.name}"] = (used, now, now + limit.window + 1)
            if len(self._states) > _MOST:
                self._states = {key: state for key, state in self._states.items() if state[2] > now}
        return [
            _standing(limit, cost, used, refuses, now)
            for (limit, cost), used, refuses in zip(charges, after, refused, strict=True)
        ]

    def _used(self, limit: Limit, now: float) -> float:
        used, at, _ = self._states.get(f"{limit.key}:{limit.name}", (0.0, 0.0, 0.0))
        if limit.rate:
            return max(0.0, used - max(0.0, now - at) * limit.rate)
        return 0.0 if at // DAY < now // DAY else used


def open_meters(settings: Settings) -> Meters:
    """The meters of these settings; nothing is asked before their first use."""
    if not settings.has_queue:
        return LocalMeters()
    from search_api.access.store import impatient_client  # noqa: PLC0415

    return RedisMeters(impatient_client(settings))


def header_policy(standings: Sequence[Standing]) -> str:
    """The field RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers): quotas and their windows in seconds."""
    return ", ".join(
        f'"{each.limit.name}";q={math.floor(each.limit.quota)};w={each.limit.window}'
        + (f';qu="{each.limit.unit}"' if each.limit.unit else "")
        for each in standings
    )


def header_state(standings: Sequence[Standing]) -> str:
    """The field RateLimit: what is left of each quota, and in how many seconds it is there in full."""
    return ", ".join(f'"{each.limit.name}";r={each.remaining};t={each.reset}' for each in standings)


def _standing(limit: Limit, cost: float, used: float, refused: bool, now: float) -> Standing:
    midnight = math.ceil(DAY - now % DAY)
    reset = math.ceil(used / limit.rate) if limit.rate else midnight
    missing = max(0.0, used + max(cost, 1.0) - limit.quota)
    wait = math.ceil(missing / limit.rate) if limit.rate else midnight
    return Standing(limit, used, refused, reset, max(1, wait) if refused else 0)
