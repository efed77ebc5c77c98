"""A worker that reranks: takes lists, walks down them within their deadlines, and answers batch by batch.

It counts a deadline from when it takes a request, which by then has what Redis' own clock left of its life: two
machines' clocks need not agree. A request whose time is up is not there any more. Like the API's own requests, several
are in work at once, some always such as are in a hurry, and their batches take turns; none is sent again if the worker
dies, since its search is over soon.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
import structlog
from pydantic import ValidationError

from indexer.errors import CrosslensError, ModelError, NoReranker
from indexer.items import Modality
from indexer.rerank.comparing import Text
from indexer.rerank.rerankers import Rerankers
from indexer.rerank.walk import DeviceTurns, Turns, Walk
from indexer.settings import Settings
from indexer.stages import Stages
from workers.app import RERANK as QUEUE
from workers.jobs import Jobs
from workers.meters import RERANK, RERANK_QUEUE, Meters
from workers.rerank.messages import (
    HURRIED_MS,
    LIFE_SECONDS,
    MODALITIES,
    MOST_BYTES,
    MOST_SECONDS,
    MOST_WAITING,
    WORKERS,
    Answer,
    Model,
    Present,
    Request,
    answers_key,
    queue,
    request_key,
)
from workers.runtime import connect

if TYPE_CHECKING:
    from indexer.media.originals import Originals

AT_ONCE = 16
"""Requests in work; their batches take turns."""
HURRIED = 4
"""Those of them that are never such as have much time, which would keep everything until that is up."""
_BEAT_SECONDS = 1.0
_WAIT_SECONDS = 1.0
"""How long a request is waited for before it is looked whether the worker has to end."""
_REDIS_SECONDS = 5.0
_AGAIN_SECONDS = 30.0
"""After which a model that did not open is tried again."""
_PAUSE_SECONDS = 0.5
_END_SECONDS = 5.0
"""What requests in work have, once the worker has to end."""

# KEYS: request. ARGV: most bytes. A request that is too long is as gone as one whose time is up.
_TAKE = """
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return false end
local request = false
if redis.call('STRLEN', KEYS[1]) <= tonumber(ARGV[1]) then request = redis.call('GET', KEYS[1]) end
redis.call('DEL', KEYS[1])
return {left, request}
"""

# KEYS: answers. ARGV: answer, most that wait, their life in s. An API process that takes none is gone.
_ANSWER = """
if redis.call('RPUSH', KEYS[1], ARGV[1]) > tonumber(ARGV[2]) then redis.call('LPOP', KEYS[1]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""

# KEYS: workers. ARGV: life in s, what it says, what it said before.
_BEAT = """
if ARGV[3] ~= ARGV[2] then redis.call('ZREM', KEYS[1], ARGV[3]) end
redis.call('ZADD', KEYS[1], redis.call('TIME')[1] + ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""

_ID = re.compile(rb"[0-9a-f]{32}")

_log = structlog.get_logger("rerank")


class RerankWorker:
    """Reranks until `stopping` is set. `turns` are those on its devices unless given; `clock` is in seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        rerankers: Rerankers | None = None,
        turns: Turns | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.stopping = threading.Event()
        self._clock = clock
        self._originals: Originals | None = None
        self._rerankers = rerankers or Rerankers(settings, self._open_originals)
        client = connect(settings, tries=1, seconds=_REDIS_SECONDS)
        self._redis: Any = client
        self._jobs, self._meters = Jobs(client), Meters(client)
        self._take = client.register_script(_TAKE)
        self._answer = client.register_script(_ANSWER)
        self._beat = client.register_script(_BEAT)
        self._turns = turns
        self._turns_by_device = DeviceTurns()
        self._takes = itertools.count()
        self._stages = Stages()
        self._models: dict[Modality, Model | None] = dict.fromkeys(MODALITIES)
        self._not_before: dict[Modality, float] = {}
        self._said = ""

    def run(self) -> None:
        """Take requests until it has to end, with a sign of life every second."""
        threads = [
            threading.Thread(target=self.work, args=(number < HURRIED,), name=f"rerank-{number}", daemon=True)
            for number in range(AT_ONCE)
        ]
        for thread in threads:
            thread.start()
        _log.info("worker ready", name=self.name, queues=[QUEUE])
        while not self.stopping.is_set():
            self.beat()
            self.stopping.wait(_BEAT_SECONDS)
        ends = time.monotonic() + _END_SECONDS
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self.close()

    def beat(self) -> None:
        """Say which models are open here, once those that are installed meanwhile are; and what was measured."""
        for modality in MODALITIES:
            self._models[modality] = self._opened(modality)
        said = Present(name=self.name, **self._models).model_dump_json()
        try:
            self._beat(keys=[WORKERS], args=[LIFE_SECONDS, said, self._said])
            self._jobs.beat(self.name, {"queues": [QUEUE], "pid": os.getpid()}, self.settings.worker_seconds)
        except redis.RedisError as error:
            _log.warning("broker away", reason=str(error)[:200])
            return
        self._said = said
        measured, self._stages = self._stages, Stages()
        if measured.by_name:
            self._meters.add(measured)

    def take(self, seconds: float = 0.0, *, hurried: bool = False) -> bool:
        """Answer the next request; False if none comes within so many seconds (0: for ever), or it is none any more.

        `hurried`: only such a request is taken.

        Raises:
            RedisError: the queue does not answer.
        """
        element = self._redis.blpop(self._queues(hurried), timeout=seconds)
        if element is None or not _ID.fullmatch(element[1]):
            return False
        taken = self._take(keys=[request_key(element[1].decode())], args=[2 * MOST_BYTES])
        if taken is None or taken[1] is None:
            return False
        began = self._clock()
        try:
            request = Request.model_validate_json(taken[1])
        except ValidationError as error:
            _log.warning("no request", errors=error.error_count())
            return False
        if request.id != element[1].decode() or queue(request.modality, request.ms) != element[0].decode():
            return False
        self._stages.note(RERANK_QUEUE, max(0, request.ms - taken[0]) / 1000)
        left = min(taken[0], request.ms) / 1000
        self._respond(request, left - (self._clock() - began))
        return True

    def close(self) -> None:
        """Let go of the models; that it is there is not so any more."""
        with suppress(redis.RedisError):
            self._redis.zrem(WORKERS, self._said)
            self._jobs.farewell(self.name)
            self._meters.add(self._stages)
        self._rerankers.close()
        if self._originals is not None:
            self._originals.close()

    def work(self, hurried: bool = False) -> None:
        """Take requests, only such as are in a hurry or any, until it has to end."""
        while not self.stopping.is_set():
            if not self._open():
                self.stopping.wait(_PAUSE_SECONDS)
                continue
            try:
                self.take(_WAIT_SECONDS, hurried=hurried)
            except redis.RedisError as error:
                _log.warning("broker away", reason=str(error)[:200])
                self.stopping.wait(_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001  whatever a request was, the next one is another's
                _log.exception("request failed")

    def _open(self) -> list[Modality]:
        return [modality for modality, model in self._models.items() if model and model.state == "open"]

    def _queues(self, hurried: bool) -> list[str]:
        """Where requests are taken from. Redis looks in that order, so each time another one is the first."""
        times = (HURRIED_MS,) if hurried else (HURRIED_MS, MOST_SECONDS * 1000)
        queues = [queue(modality, ms) for ms in times for modality in self._open()]
        first = next(self._takes) % len(queues) if queues else 0
        return queues[first:] + queues[:first]

    def _respond(self, request: Request, seconds: float) -> None:
        """Compare a request's items with its texts, and say batch by batch what came of it."""
        ends = self._clock() + seconds
        said = 0
        try:
            comparer = self._rerankers.of(request.modality)
            turns = self._turns or self._turns_by_device.of(comparer.model)
            walk = Walk(ends - self._clock(), turns, self._clock)
            texts = [Text(each.text, each.weight) for each in request.texts]
            for batch in comparer.compare(texts, [item.stored() for item in request.items], walk):
                if batch.seconds:
                    self._stages.note(RERANK, batch.seconds, len(batch.found))
                self._say(request, Answer.of(request.id, batch))
                said += len(batch.found)
            if said < len(request.items):
                self._say(request, Answer(id=request.id, over=True))
        except redis.RedisError:
            raise
        except Exception as error:
            code = error.code if isinstance(error, CrosslensError) else "internal"
            self._say(request, Answer(id=request.id, over=True, error=code))
            if not isinstance(error, CrosslensError):
                raise
            _log.error("not reranked", modality=request.modality, code=code, reason=error.message)

    def _say(self, request: Request, answer: Answer) -> None:
        self._answer(
            keys=[answers_key(request.reply)], args=[answer.model_dump_json(), 16 * MOST_WAITING, MOST_SECONDS]
        )

    def _opened(self, modality: Modality) -> Model | None:
        """How it stands with the model for a modality, which is opened if it is installed; None if none is."""
        if self._clock() < self._not_before.get(modality, 0.0):
            return self._models[modality]
        try:
            name = self._rerankers.of(modality).model.name
        except NoReranker:
            return None
        except ModelError as error:
            return self._failed(modality, "", error)
        try:
            is_open = self._rerankers.is_open(modality, 0.0)
        except ModelError as error:
            return self._failed(modality, name, error)
        return Model(name=name, state="open" if is_open else "opening")

    def _failed(self, modality: Modality, name: str, error: ModelError) -> Model:
        _log.error("no model to rerank with", modality=modality, code=error.code, reason=error.message)
        self._not_before[modality] = self._clock() + _AGAIN_SECONDS
        return Model(name=name, state="failed")

    def _open_originals(self) -> Originals:
        from indexer.media.originals import Originals  # noqa: PLC0415  for who has pictures

        self._originals = self._originals or Originals.of(self.settings)
        return self._originals
