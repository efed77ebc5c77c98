"""Signs of life, and what the dead left: their shards are sent again within seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

import redis
import structlog

from workers.app import QUEUES
from workers.job import State
from workers.jobs import PLANNING
from workers.planning import queue_plan, queue_shard
from workers.runtime import Runtime

_BEATS = 5
"""Signs of life in the time after which a worker counts as dead."""
LOST_SECONDS = 20.0
"""What is neither queued nor in work for so long was lost with its message: a broker whose last second of writes was
not on disk, or one that somebody emptied."""

_log = structlog.get_logger("worker")


class Upkeep:
    """A thread of a worker: beats, and sweeps if no other worker just did."""

    def __init__(self, runtime: Runtime, about: dict[str, Any]) -> None:
        self._runtime = runtime
        self._about = about
        self._seconds = runtime.settings.worker_seconds
        self._stop = threading.Event()
        self._idle_since: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin, with a first sign of life."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End; the worker is known to be gone."""
        self._stop.set()
        self._thread.join(10)
        try:
            self._runtime.jobs.farewell(self._runtime.name)
        except redis.RedisError as error:
            _log.info("no farewell", reason=str(error))

    def _run(self) -> None:
        while not self._stop.wait(self._seconds / _BEATS):
            try:
                self._beat()
                self._send_abandoned()
                if self._runtime.jobs.lock("sweep", 0.9 * self._seconds / _BEATS):
                    self.sweep()
            except redis.RedisError as error:
                _log.warning("broker away", reason=str(error)[:200])

    def _beat(self) -> None:
        self._runtime.jobs.beat(self._runtime.name, self._about, self._seconds)

    def sweep(self) -> None:
        """Send again what dead workers had, and what was planned or queued and is nowhere."""
        jobs = self._runtime.jobs
        claims = jobs.claims()
        for (job_id, number), worker in claims.items():
            if not jobs.lives(worker) and jobs.release(job_id, number, worker):
                _log.warning("taken from a dead worker", job=job_id, shard=number, worker=worker)
                self._send(job_id, number)
        if jobs.queued(*QUEUES):
            self._idle_since.clear()
            return
        claimed = {job_id for job_id, _ in claims}
        for job in jobs.unfinished():
            if job.id in claimed:
                self._idle_since.pop(job.id, None)
            elif time.monotonic() - self._idle_since.setdefault(job.id, time.monotonic()) > LOST_SECONDS:
                del self._idle_since[job.id]
                _log.warning("job taken up again", job=job.id, state=job.state.value)
                lost = jobs.open_shards(job.id) if job.state is State.RUNNING else [PLANNING]
                for number in lost:
                    self._send(job.id, number)

    def _send_abandoned(self) -> None:
        while self._runtime.abandoned:
            job_id, number = self._runtime.abandoned[0]
            if self._runtime.jobs.release(job_id, number, self._runtime.name):
                self._send(job_id, number)
            self._runtime.abandoned.pop(0)

    def _send(self, job_id: str, number: int) -> None:
        if number == PLANNING:
            queue_plan(self._runtime, job_id)
        else:
            queue_shard(self._runtime, job_id, number)
