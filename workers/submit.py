"""Jobs handed in: checked, noted, and queued to be planned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from indexer import tracing
from indexer.errors import BrokerUnavailable, TooBusy
from indexer.settings import Settings
from indexer.store.collection import Collection
from workers.app import EMBED_CPU, EMBED_GPU, PLAN, PLAN_JOB, create_celery, send
from workers.broker import redis_url
from workers.job import Job
from workers.jobs import Jobs
from workers.meters import Meters
from workers.planning import FAILURES_OF
from workers.runtime import connect

RETRY_AFTER_SECONDS = 30
_TRIES = 2


class Queue:
    """The queue as its callers see it: hand in, look, cancel. Thread-safe.

    Every method raises `BrokerUnavailable` when nothing answers, after trying for a moment.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._celery: Celery = create_celery(settings)
        client = connect(settings, tries=_TRIES)
        self.jobs = Jobs(client)
        self.meters = Meters(client)

    def submit(self, collection: Collection, sources: list[str]) -> Job:
        """Queue sources to be indexed into a collection.

        Raises:
            TooBusy: too much is unfinished or queued.
        """
        with available(self._settings):
            self._refuse_if_busy()
            return self._queued(collection.name, collection.model, sources)

    def retry(self, job_id: str) -> Job:
        """A new job of what failed in a job.

        Raises:
            JobNotFound: there is no such job.
            TooBusy: too much is unfinished or queued.
        """
        with available(self._settings):
            self._refuse_if_busy()
            old = self.jobs.get(job_id)
            return self._queued(old.collection, old.model, [FAILURES_OF + old.id])

    def _queued(self, collection: str, model: str, sources: list[str]) -> Job:
        with tracing.span("submit", kind="producer"):
            job = self.jobs.create(collection, model, sources)
            tracing.note(job=job.id)
            send(self._celery, PLAN_JOB, job.id, queue=PLAN)
            return job

    def _refuse_if_busy(self) -> None:
        unfinished, queued = len(self.jobs.unfinished()), self.jobs.queued(EMBED_CPU, EMBED_GPU)
        if unfinished >= self._settings.job_limit or queued >= 2 * self._settings.queue_limit:
            raise TooBusy(
                f"{unfinished} jobs are unfinished and {queued} shards wait.", retry_after=RETRY_AFTER_SECONDS
            )


@contextmanager
def available(settings: Settings) -> Iterator[None]:
    """Turn what Redis' client raises when nothing answers into an error of ours.

    Raises:
        BrokerUnavailable: nothing answers, or it cannot write.
    """
    try:
        yield
    except (redis.RedisError, OperationalError, OSError) as error:
        raise BrokerUnavailable(f"The queue at {redis_url(settings)} does not answer: {error}.") from error
