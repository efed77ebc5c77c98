"""A job into shards: sources walked lazily, shards queued as they fill, never more than the queue should hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import structlog

from indexer import tracing
from indexer.errors import CrosslensError
from indexer.media.discover import Candidate, discover
from indexer.media.originals import UPLOAD
from workers.app import EMBED_CPU, EMBED_GPU, PLAN, PLAN_JOB, RUN_SHARD, send
from workers.classifying import LABELS_OF, items_to_label
from workers.job import OVER, Job, State
from workers.jobs import PLANNING
from workers.judging import POLICY, items_to_judge
from workers.references import to_reference
from workers.runtime import Runtime

_FIRST = 32
"""Items of the first shard: a worker should have something to do at once."""
_WAIT_SECONDS = 0.2

FAILURES_OF = "failures:"
"""A source that is another job's id behind it: what failed there, once more."""

_log = structlog.get_logger("worker")


class _Counts:
    """What walking counts beside the items."""

    passed_over = 0


def plan(runtime: Runtime, job_id: str) -> None:
    """Plan a job, from where an earlier delivery ended."""
    job = runtime.jobs.get(job_id)
    if job.state not in {State.QUEUED, State.PLANNING}:
        return
    with tracing.joined(job.trace), tracing.span("plan", kind="consumer", job=job_id):
        _plan(runtime, job)


def _plan(runtime: Runtime, job: Job) -> None:
    jobs, job_id = runtime.jobs, job.id
    jobs.claim(job_id, PLANNING, runtime.name)
    trace = json.dumps(tracing.carrier() or job.trace)  # in the job, where also a shard that is sent again finds it
    jobs.set_state(job_id, State.PLANNING, started=job.started or time.time(), trace=trace)
    counts = _Counts()
    settings = runtime.settings

    def walk() -> Iterator[dict[str, Any]]:
        counts.passed_over = 0
        if job.sources[0].startswith(FAILURES_OF):
            return _failed_items(runtime, job.sources[0].removeprefix(FAILURES_OF))
        if job.sources[0] == POLICY:
            return items_to_judge(runtime, job.collection)
        if job.sources[0].startswith(LABELS_OF):
            return items_to_label(runtime, job.collection, job.sources[0].removeprefix(LABELS_OF))
        uploads = [Candidate(source) for source in job.sources if source.startswith(UPLOAD)]
        others = [source for source in job.sources if not source.startswith(UPLOAD)]
        found = discover(others, report=counts, beneath=settings.data, settings=settings)
        return map(to_reference, chain(uploads, found))

    try:
        for number, shard in _shards(runtime, job_id, walk):
            if not _await_room(runtime, job_id):
                return
            if jobs.add_shard(job_id, number, shard):
                queue_shard(runtime, job_id, number)
                jobs.pass_over(job_id, counts.passed_over)
    except CrosslensError as error:
        _log.warning("job not planned", job=job_id, code=error.code, detail=error.message)
        jobs.set_state(job_id, State.FAILED, finished=time.time(), error=json.dumps(error.as_dict()), note="")
        return
    jobs.pass_over(job_id, counts.passed_over)
    jobs.finish_planning(job_id)
    jobs.release(job_id, PLANNING, runtime.name)


def queue_plan(runtime: Runtime, job_id: str) -> None:
    """Send a job to be planned."""
    send(runtime.celery, PLAN_JOB, job_id, queue=PLAN)


def queue_shard(runtime: Runtime, job_id: str, number: int) -> None:
    """Send a shard to the workers; to those with a GPU where one lives."""
    gpu = any(about.get("gpu") for about in runtime.jobs.workers().values())
    send(runtime.celery, RUN_SHARD, job_id, number, queue=EMBED_GPU if gpu else EMBED_CPU)


def _shards(
    runtime: Runtime, job_id: str, walk: Callable[[], Iterator[dict[str, Any]]]
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Shards with their numbers; those that an earlier delivery planned are left out."""
    number, last = runtime.jobs.planned_so_far(job_id)
    shard: list[dict[str, Any]] = []
    for reference in _behind(last, walk):
        shard.append(reference)
        if "items" in reference or len(shard) >= (_FIRST if number == 0 else runtime.settings.shard_size):
            yield number, shard
            number, shard = number + 1, []
    if shard:
        yield number, shard


def _behind(last: str, walk: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """What comes behind the last item that was planned.

    Is that one gone since, then everything comes once more: nothing is lost, and what is indexed is skipped.
    """
    references = walk()
    if last and not any(reference["source"] == last for reference in references):
        references = walk()
    return references


def _failed_items(runtime: Runtime, job_id: str) -> Iterator[dict[str, Any]]:
    return (failure["item"] for failure in runtime.jobs.all_failures(job_id) if "item" in failure)


def _await_room(runtime: Runtime, job_id: str) -> bool:
    """Wait while enough is queued; False if the job is over or the worker ends meanwhile."""
    while True:
        if runtime.jobs.get(job_id).state in OVER:
            return False
        if runtime.stopping.is_set():
            raise Interrupted
        if runtime.jobs.queued(EMBED_CPU, EMBED_GPU) < runtime.settings.queue_limit:
            return True
        runtime.stopping.wait(_WAIT_SECONDS)


class Interrupted(Exception):
    """The worker ends; what it was at is to be delivered again."""
