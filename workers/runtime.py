"""What a worker process works with: settings, queue, jobs, index, models; each opened once, after any fork."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from indexer.classify.classifier import LabelCache
from indexer.models.encoder import Encoder, load_encoder_of
from indexer.settings import Settings
from indexer.store import open_store
from indexer.store.collection import Collection
from indexer.store.store import Store
from workers.app import create_celery
from workers.broker import redis_url
from workers.jobs import Jobs
from workers.meters import Meters

_TRIES = 10


def connect(settings: Settings, *, tries: int = _TRIES, seconds: float = 30) -> redis.Redis:
    """A client of the queue's Redis, which has so many seconds for an answer.

    A call is tried again while nothing answers; by default for half a minute.
    """
    retry = Retry(ExponentialBackoff(cap=5, base=0.05), tries)
    errors: list[type[Exception]] = [redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError]
    return redis.Redis.from_url(redis_url(settings), retry=retry, retry_on_error=errors, socket_timeout=seconds)


class Runtime:
    """Opened by a worker process, for all of its life. Close it, or use it as a context."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        """The worker's own."""
        self.celery = create_celery(settings)
        client = connect(settings)
        self.jobs = Jobs(client)
        self.meters = Meters(client)
        self.stopping = threading.Event()
        """Set when the process has to end: what waits stops waiting."""
        self.abandoned: list[tuple[str, int]] = []
        """What a task ended with an error of ours: jobs and shards to be sent again."""
        self.label_vectors = LabelCache()
        self._open = ExitStack()
        self._store: Store | None = None
        self._encoders: dict[str, Encoder] = {}

    @property
    def store(self) -> Store:
        """The index."""
        if self._store is None:
            self._store = self._open.enter_context(open_store(self.settings))
        return self._store

    def encoder_of(self, collection: Collection) -> Encoder:
        """The encoder that a collection was filled with; one is in memory, shared by all that the worker does.

        Raises:
            ModelMismatch: its bundle is not installed here.
        """
        if collection.fingerprint not in self._encoders:
            self._encoders.clear()
            self._encoders[collection.fingerprint] = load_encoder_of(
                # The pipeline runs as many side by side as there are cores.
                self.settings.model_copy(update={"threads": 1}),
                collection.model,
                collection.fingerprint,
            )
        return self._encoders[collection.fingerprint]

    def close(self) -> None:
        """Let go of the index."""
        self._open.close()
        self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
