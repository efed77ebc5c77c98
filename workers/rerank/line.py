"""An API process' line to the workers that rerank: two threads speak with Redis, so that no search ever waits for it.

One hands requests over; the other takes the answers, and looks every second who is there. What a search itself does is
in memory, and its deadline holds also where a name does not resolve, a host swallows packets, or Redis stands still.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import redis
import structlog
from pydantic import ValidationError

from indexer.errors import RerankerAway
from indexer.items import Modality
from indexer.rerank.comparing import Text
from indexer.settings import Settings
from indexer.store.points import Stored
from workers.rerank.messages import (
    MOST_BYTES,
    MOST_SECONDS,
    MOST_WAITING,
    WORKERS,
    Answer,
    Present,
    answers_key,
    finished,
    queue,
    request_key,
    written,
)
from workers.runtime import connect

_LOOK_SECONDS = 1.0
_STALE_SECONDS = 3.0
"""After which it is not known any more who is there: Redis stands still, or this machine does."""
_REDIS_SECONDS = 3.0
"""How long one answer of Redis is waited for."""
_PAUSE_SECONDS = 0.5
"""Between attempts, while it is away."""
_ON_THE_WAY_MS = 5
"""What is left for the last answer's way back."""

# KEYS: queue, request. ARGV: id, request, its life in ms, most that wait, the queue's life in s.
_PUSH = """
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

# KEYS: workers.
_PRESENT = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1])
return redis.call('ZRANGE', KEYS[1], 0, 99)
"""

_log = structlog.get_logger("rerank")


class Inbox(Protocol):
    """Where a search's answers arrive."""

    def put(self, item: Answer | RerankerAway) -> None:
        """An answer, or that none will come."""

    def get(self, block: bool, timeout: float) -> Answer | RerankerAway:
        """The next; raises `queue.Empty` after so many seconds."""


@dataclass(frozen=True)
class _Request:
    id: str
    modality: Modality
    begun: str
    ends: float
    inbox: Inbox


@dataclass(frozen=True)
class _Known:
    """Who was there when it was last looked, or why that is not known."""

    workers: tuple[Present, ...]
    at: float
    away: str = ""


class Asked:
    """A request on its way, and the answers to it."""

    def __init__(self, count: int, inbox: Inbox) -> None:
        self.count = count
        """How many of the items were sent, from the first."""
        self._inbox = inbox

    def next(self, seconds: float) -> Answer | None:
        """The next answer; None if none comes in time.

        Raises:
            RerankerAway: none will come.
        """
        try:
            answer = self._inbox.get(True, max(0.0, seconds))
        except Empty:
            return None
        if isinstance(answer, RerankerAway):
            raise answer
        return answer


class Line:
    """Opened at the first use; close it after. Thread-safe.

    Usage:
        line = Line(settings)
        with line.ask("image", texts, items, ends=time.monotonic() + 0.3) as asked:
            answer = asked.next(0.3)
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        inbox: Callable[[], Inbox] = SimpleQueue,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._inbox = inbox
        self._reply = secrets.token_hex(16)
        self._waiting: dict[str, Inbox] = {}
        self._out: SimpleQueue[_Request | None] = SimpleQueue()
        self._known: _Known | None = None
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def workers(self, seconds: float = 0.0) -> tuple[Present, ...]:
        """Who is there, as of a moment ago; after the first call that is waited for, so many seconds at most.

        Raises:
            RerankerAway: nobody is, or it is not known.
        """
        self._open()
        with self._news:
            self._news.wait_for(lambda: self._known is not None, max(0.0, seconds))
            known = self._known
        if known is None or known.away or self._clock() - known.at > _STALE_SECONDS:
            raise RerankerAway("The queue of the workers that rerank does not answer.")
        if not known.workers:
            raise RerankerAway("No worker that reranks is there.")
        return known.workers

    @contextmanager
    def ask(self, modality: Modality, texts: Sequence[Text], items: Sequence[Stored], ends: float) -> Iterator[Asked]:
        """Send a list, the best first, to be compared with texts until then, by the clock."""
        self._open()
        request_id = secrets.token_hex(16)
        begun, count = written(request_id, self._reply, modality, texts, items)
        inbox = self._waiting[request_id] = self._inbox()
        try:
            self._out.put(_Request(request_id, modality, begun, ends, inbox))
            yield Asked(count, inbox)
        finally:
            del self._waiting[request_id]

    def close(self) -> None:
        """End the threads, as soon as Redis answers them."""
        self._stop.set()
        self._out.put(None)

    def _open(self) -> None:
        with self._news:
            if self._threads:
                return
            for name, run in (("rerank-send", self._send_all), ("rerank-listen", self._listen)):
                thread = threading.Thread(target=run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _send_all(self) -> None:
        client = connect(self._settings, tries=0, seconds=_REDIS_SECONDS)
        push = client.register_script(_PUSH)
        while (request := self._out.get()) is not None:
            try:
                self._send(push, request)
            except (redis.RedisError, OSError) as error:
                _log.warning("not sent to be reranked", reason=str(error)[:200])
                request.inbox.put(RerankerAway("The queue of the workers that rerank does not answer."))
        client.close()

    def _send(self, push: Any, request: _Request) -> None:
        left = min(int((request.ends - self._clock()) * 1000) - _ON_THE_WAY_MS, MOST_SECONDS * 1000)
        if left <= 0:
            return  # whoever waits for it knows
        keys = [queue(request.modality, left), request_key(request.id)]
        if not push(keys=keys, args=[request.id, finished(request.begun, left), left, MOST_WAITING, MOST_SECONDS]):
            request.inbox.put(RerankerAway("The workers that rerank have too much to do."))

    def _listen(self) -> None:
        client: Any = connect(self._settings, tries=0, seconds=_REDIS_SECONDS)
        present = client.register_script(_PRESENT)
        looked: float | None = None
        while not self._stop.is_set():
            try:
                if looked is None or time.monotonic() - looked >= _LOOK_SECONDS:
                    self._note(tuple(_present(present(keys=[WORKERS]))))
                    looked = time.monotonic()
                element = client.blpop([answers_key(self._reply)], timeout=_LOOK_SECONDS)
            except (redis.RedisError, OSError) as error:
                self._note((), away=str(error)[:200])
                looked = None
                self._stop.wait(_PAUSE_SECONDS)
                continue
            if element is not None:
                self._deliver(element[1])
        with suppress(redis.RedisError, OSError):
            client.delete(answers_key(self._reply))
            client.close()

    def _note(self, workers: tuple[Present, ...], away: str = "") -> None:
        with self._news:
            if away and (self._known is None or not self._known.away):
                _log.warning("queue of reranking away", reason=away)
            self._known = _Known(workers, self._clock(), away)
            self._news.notify_all()

    def _deliver(self, data: bytes) -> None:
        if len(data) > MOST_BYTES:
            return
        try:
            answer = Answer.model_validate_json(data)
        except ValidationError:
            _log.warning("no answer of a reranker", bytes=len(data))
            return
        inbox = self._waiting.get(answer.id)
        if inbox is not None:  # else its search is over
            inbox.put(answer)


def _present(members: Sequence[bytes]) -> Iterator[Present]:
    for member in members:
        with suppress(ValidationError):
            yield Present.model_validate_json(member)
