"""Jobs in Redis: what was asked for, how far it is, what failed. The counts add up, also after redelivery.

    crosslens:jobs                 sorted set   job ids by time of creation
    crosslens:job:ID               hash         what was asked for, state, counters
    crosslens:job:ID:open          set          shards that are planned and not done
    crosslens:job:ID:shard:N       string       a shard's items (JSON, compressed)
    crosslens:job:ID:state:N       string       a shard's state (`workers.shard`)
    crosslens:job:ID:failures      list         failures, JSON each
    crosslens:claims               hash         "ID/N" -> the worker that works on it
    crosslens:worker:NAME          string       expires: who lives, and what it is (JSON)

A shard's counts are added when it is done, in one script that checks that it was not done before: a shard that was
delivered twice is counted once.
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import redis

from indexer import tracing
from indexer.errors import JobNotFound
from workers.job import OVER, Job, State
from workers.shard import ShardState

_PREFIX = "crosslens:"

PLANNING = -1
"""In a claim, the place of a shard's number: the job is being planned."""


# KEYS: job, open, state, shard, failures, claims.
# ARGV: shard, claim, indexed, skipped, failed, truncated, now, failures...
_FINISH = """
if redis.call('SREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'indexed', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'skipped', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'failed', ARGV[5])
redis.call('HINCRBY', KEYS[1], 'truncated', ARGV[6])
for at = 8, #ARGV do redis.call('RPUSH', KEYS[5], ARGV[at]) end
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('HDEL', KEYS[6], ARGV[2])
if redis.call('SCARD', KEYS[2]) == 0 and redis.call('HGET', KEYS[1], 'state') == 'running' then
  redis.call('HSET', KEYS[1], 'state', 'done', 'finished', ARGV[7], 'note', '')
end
return 1
"""

# KEYS: job, open, shard. ARGV: shard, items, count, last source. The shard's number is its place: again is no change.
_ADD = """
if tonumber(redis.call('HGET', KEYS[1], 'shards') or '0') ~= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[3], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'shards', 1)
redis.call('HINCRBY', KEYS[1], 'planned', ARGV[3])
redis.call('HSET', KEYS[1], 'last', ARGV[4])
return 1
"""

# KEYS: job, open. ARGV: now.
_PLANNED = """
if redis.call('HGET', KEYS[1], 'state') ~= 'planning' then return 0 end
if redis.call('SCARD', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], 'state', 'done', 'finished', ARGV[1], 'note', '')
else
  redis.call('HSET', KEYS[1], 'state', 'running', 'note', '')
end
return 1
"""


# KEYS: claims. ARGV: claim, worker.
_RELEASE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


# KEYS: job. ARGV: now.
_CANCEL = """
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'done' or state == 'cancelled' or state == 'failed' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'cancelled', 'finished', ARGV[1], 'note', '')
return 1
"""


class Jobs:
    """The jobs of one Redis. Thread-safe."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # its types name every answer that any setting could give
        self._finish = client.register_script(_FINISH)
        self._add = client.register_script(_ADD)
        self._planned = client.register_script(_PLANNED)
        self._release = client.register_script(_RELEASE)
        self._cancel = client.register_script(_CANCEL)

    def create(self, collection: str, model: str, sources: list[str]) -> Job:
        """A new job, to be planned."""
        job_id = str(uuid.uuid4())
        now = time.time()
        fields: dict[str, str | float] = {
            "collection": collection,
            "model": model,
            "sources": json.dumps(sources),
            "state": State.QUEUED.value,
            "created": now,
            "trace": json.dumps(tracing.carrier()),
        }
        with self._redis.pipeline() as pipe:
            pipe.hset(_job(job_id), mapping=fields)
            pipe.zadd(_PREFIX + "jobs", {job_id: now})
            pipe.execute()
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            JobNotFound: there is none.
        """
        fields = self._redis.hgetall(_job(job_id))
        if not fields:
            raise JobNotFound(f"There is no job {job_id!r}.")
        return Job.read(job_id, {key.decode(): value.decode() for key, value in fields.items()})

    def newest(self, limit: int = 100) -> list[Job]:
        """The newest jobs, the newest first."""
        ids = self._redis.zrevrange(_PREFIX + "jobs", 0, limit - 1)
        return [self.get(each.decode()) for each in ids]

    def unfinished(self) -> list[Job]:
        """Jobs that are not over."""
        return [job for job in self.newest(10_000) if job.state not in OVER]

    def set_state(self, job_id: str, state: State, **fields: str | float) -> None:
        """Change a job's state and other fields."""
        mapping: dict[str, str | float] = {"state": state.value, **fields}
        self._redis.hset(_job(job_id), mapping=mapping)

    def note(self, job_id: str, note: str) -> None:
        """Say what a job waits for; nothing when it goes on."""
        self._redis.hset(_job(job_id), "note", note)

    def pass_over(self, job_id: str, count: int) -> None:
        """Set how many files were no media."""
        self._redis.hset(_job(job_id), "passed_over", str(count))

    def planned_so_far(self, job_id: str) -> tuple[int, str]:
        """How many shards are planned, and the source of the last item in them."""
        shards, last = self._redis.hmget(_job(job_id), ["shards", "last"])
        return int(shards or 0), (last or b"").decode()

    def add_shard(self, job_id: str, number: int, items: list[dict[str, Any]]) -> bool:
        """Note a shard as planned; False if it, or a later one, was before."""
        packed = zlib.compress(json.dumps(items, ensure_ascii=False).encode(), 1)
        keys = [_job(job_id), _open(job_id), _shard(job_id, number)]
        count = sum(item.get("items", 1) for item in items)  # one may stand for many
        return bool(self._add(keys=keys, args=[number, packed, count, items[-1]["source"]]))

    def finish_planning(self, job_id: str) -> None:
        """Every shard is planned: the job runs, or is done if nothing is open."""
        self._planned(keys=[_job(job_id), _open(job_id)], args=[time.time()])

    def cancel(self, job_id: str) -> bool:
        """End a job that is not over: what is in work may still be stored, and is not counted. False if it was over.

        Raises:
            JobNotFound: there is none of that id.
        """
        self.get(job_id)
        if not self._cancel(keys=[_job(job_id)], args=[time.time()]):
            return False
        keys = [key for number in self.open_shards(job_id) for key in (_shard(job_id, number), _state(job_id, number))]
        self._redis.delete(_open(job_id), *keys)
        return True

    def shard(self, job_id: str, number: int) -> list[dict[str, Any]] | None:
        """A shard's items; None once it is done."""
        if not self._redis.sismember(_open(job_id), str(number)):
            return None
        packed = self._redis.get(_shard(job_id, number))
        if packed is None:
            return None
        items: list[dict[str, Any]] = json.loads(zlib.decompress(packed))
        return items

    def load_state(self, job_id: str, number: int) -> ShardState | None:
        """A shard's state; None before anybody began it."""
        data = self._redis.get(_state(job_id, number))
        return None if data is None else ShardState.model_validate_json(data)

    def save_state(self, job_id: str, number: int, state: ShardState) -> None:
        """Write a shard's state down."""
        self._redis.set(_state(job_id, number), state.model_dump_json())

    def finish_shard(self, job_id: str, number: int, state: ShardState) -> bool:
        """Add a shard's counts to its job's, once; False if it was done before."""
        keys = [
            _job(job_id), _open(job_id), _state(job_id, number), _shard(job_id, number), _failures(job_id),
            _PREFIX + "claims",
        ]  # fmt: skip
        counts = [state.indexed, state.skipped, len(state.failures), state.truncated, time.time()]
        failures = [json.dumps(each, ensure_ascii=False) for each in state.failures]
        return bool(self._finish(keys=keys, args=[number, f"{job_id}/{number}", *counts, *failures]))

    def open_shards(self, job_id: str) -> list[int]:
        """Shards that are planned and not done."""
        return sorted(int(each) for each in self._redis.smembers(_open(job_id)))

    def failures(self, job_id: str, offset: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """What failed, in the order in which it was noted."""
        lines = self._redis.lrange(_failures(job_id), offset, offset + limit - 1)
        return [json.loads(line) for line in lines]

    def all_failures(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Everything that failed."""
        offset = 0
        while page := self.failures(job_id, offset, 1000):
            yield from page
            offset += len(page)

    def claim(self, job_id: str, number: int, worker: str) -> None:
        """Note who works on a shard."""
        self._redis.hset(_PREFIX + "claims", f"{job_id}/{number}", worker)

    def claims(self) -> dict[tuple[str, int], str]:
        """Who works on what."""
        found = self._redis.hgetall(_PREFIX + "claims")
        pairs = ((key.decode().rsplit("/", 1), worker.decode()) for key, worker in found.items())
        return {(job_id, int(number)): worker for (job_id, number), worker in pairs}

    def release(self, job_id: str, number: int, worker: str) -> bool:
        """Take a claim away from a worker; False if it is not its own any more."""
        return bool(self._release(keys=[_PREFIX + "claims"], args=[f"{job_id}/{number}", worker]))

    def beat(self, worker: str, about: Mapping[str, Any], seconds: float) -> None:
        """A worker's sign of life, good for so long."""
        self._redis.set(f"{_PREFIX}worker:{worker}", json.dumps(about), px=int(seconds * 1000))

    def farewell(self, worker: str) -> None:
        """A worker ends as it should."""
        self._redis.delete(f"{_PREFIX}worker:{worker}")

    def lives(self, worker: str) -> bool:
        """Whether a worker gave a sign of life lately."""
        return bool(self._redis.exists(f"{_PREFIX}worker:{worker}"))

    def workers(self) -> dict[str, dict[str, Any]]:
        """Who lives, and what each is."""
        found = {}
        for key in self._redis.scan_iter(match=f"{_PREFIX}worker:*", count=1000):
            if data := self._redis.get(key):
                found[key.decode().removeprefix(f"{_PREFIX}worker:")] = json.loads(data)
        return found

    def queued(self, *queues: str) -> int:
        """Messages that wait in these queues."""
        return sum(int(self._redis.llen(queue)) for queue in queues)

    def lock(self, name: str, seconds: float) -> bool:
        """Take a lock for so long; False if somebody has it."""
        return bool(self._redis.set(f"{_PREFIX}lock:{name}", "1", nx=True, px=int(seconds * 1000)))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._redis.ping()


def _job(job_id: str) -> str:
    return f"{_PREFIX}job:{job_id}"


def _open(job_id: str) -> str:
    return f"{_PREFIX}job:{job_id}:open"


def _shard(job_id: str, number: int) -> str:
    return f"{_PREFIX}job:{job_id}:shard:{number}"


def _state(job_id: str, number: int) -> str:
    return f"{_PREFIX}job:{job_id}:state:{number}"


def _failures(job_id: str) -> str:
    return f"{_PREFIX}job:{job_id}:failures"
