"""A real Valkey and real worker processes over a fresh data folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from indexer.models.encoder import load_encoder
from indexer.settings import Settings
from tests.bundles import picture
from tests.waiting import until
from workers.app import PLAN, PLAN_JOB, create_celery, send
from workers.broker import redis_url, server_command
from workers.job import OVER, Job
from workers.jobs import Jobs
from workers.runtime import Runtime


@dataclass
class Cluster:
    """A broker and workers, as processes."""

    settings: Settings
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    broker: "subprocess.Popen[bytes] | None" = None

    def start_broker(self) -> None:
        self.broker = subprocess.Popen(server_command(self.settings))
        client = redis.Redis.from_url(redis_url(self.settings))

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        until(answers)

    def start_worker(self, queues: str = "embed", **environment: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "workers.process", "--queues", queues, "--data", str(self.settings.data)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | environment)
        self.processes.append(process)
        return process

    @property
    def jobs(self) -> Jobs:
        return Jobs(redis.Redis.from_url(redis_url(self.settings)))

    def submit(self, *sources: Path, collection: str = "media") -> Job:
        encoder = load_encoder(self.settings)
        with Runtime(self.settings) as runtime:
            runtime.store.create(collection, encoder.name, encoder.fingerprint, encoder.dimension)
        job = self.jobs.create(collection, encoder.name, [str(source) for source in sources])
        self.plan(job)
        return job

    def plan(self, job: Job) -> None:
        send(create_celery(self.settings), PLAN_JOB, job.id, queue=PLAN)

    def wait(self, job: Job, seconds: float = 90.0) -> Job:
        until(lambda: self.jobs.get(job.id).state in OVER, seconds)
        return self.jobs.get(job.id)

    def count(self, collection: str = "media") -> int:
        with Runtime(self.settings) as runtime:
            return runtime.store.get(collection).count()

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        if self.broker is not None:
            self.broker.kill()
            self.broker.wait()


@pytest.fixture
def cluster(settings: Settings) -> Iterator[Cluster]:
    there = Cluster(settings)
    there.start_broker()
    yield there
    there.stop()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 300 small photos, all different."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(300):
        colour = ("red", "green", "blue")[number % 3]
        (folder / f"{number:03}.png").write_bytes(picture(colour, mark=number))
    return folder
