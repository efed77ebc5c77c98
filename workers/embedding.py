"""A shard through the pipeline: in full batches, and, after its worker died, in ever smaller parts."""

from __future__ import annotations

from typing import Any

import structlog

from indexer import tracing
from indexer.errors import (
    CollectionNotFound,
    CrosslensError,
    IndexUnavailable,
    LabelSetNotFound,
    MediaStoreUnavailable,
    ModelError,
    ModelMismatch,
    Quarantined,
)
from indexer.pipeline import ingest_found
from indexer.report import Report
from indexer.stages import Stages
from indexer.store.collection import Collection
from workers.classifying import SET, label_items
from workers.job import OVER, Job
from workers.judging import JUDGED, judge_items
from workers.meters import QUEUE
from workers.planning import Interrupted
from workers.references import from_reference
from workers.runtime import Runtime
from workers.shard import Outcome, ShardState, Span

_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between tries while the index or the media store is away; the last one again and again."""

_log = structlog.get_logger("worker")


def run_shard(runtime: Runtime, job_id: str, number: int, *, waited: float | None = None) -> None:
    """Index a shard's items and add its counts to the job's; nothing if it was done before.

    `waited` is for how many seconds it was queued.

    Raises:
        Interrupted: the worker ends meanwhile; what is left of the shard is for the next delivery.
    """
    jobs = runtime.jobs
    items = jobs.shard(job_id, number)
    job = jobs.get(job_id)
    if items is None or job.state in OVER:
        return
    with (
        tracing.joined(job.trace),
        tracing.span("shard", kind="consumer", job=job_id, shard=number, items=len(items)),
    ):
        if waited is not None:
            tracing.note(waited_seconds=waited)
        state = _work_off(runtime, job, number, items)
        measured = Stages()
        if waited is not None:
            measured.note(QUEUE, waited, len(items))
        if jobs.finish_shard(job_id, number, state):
            counts = {"indexed": state.indexed, "skipped": state.skipped, "failed": len(state.failures)}
            runtime.meters.add(measured, counts)


def _work_off(runtime: Runtime, job: Job, number: int, items: list[dict[str, Any]]) -> ShardState:
    """What became of a shard, all of it being done.

    Raises:
        Interrupted: the worker ends meanwhile.
    """
    jobs, job_id = runtime.jobs, job.id
    jobs.claim(job_id, number, runtime.name)
    state = jobs.load_state(job_id, number) or ShardState.fresh(len(items))
    poison = state.recover(runtime.settings.quarantine_after)
    if poison is not None:
        _log.warning("item quarantined", job=job_id, source=items[poison]["source"])
        state.finish(Outcome(failures=[_failure(items[poison], Quarantined.of(runtime.settings.quarantine_after))]))
    while span := state.begin():
        jobs.save_state(job_id, number, state)
        try:
            state.finish(_patiently(runtime, job, number, items, span))
        except Interrupted:
            state.put_back()
        if runtime.stopping.is_set() and state.pending:
            jobs.save_state(job_id, number, state)
            raise Interrupted
    return state


def _patiently(runtime: Runtime, job: Job, number: int, items: list[dict[str, Any]], span: Span) -> Outcome:
    """The outcome of a part, waited for while the index or the media store is away."""
    part = items[span.begin : span.end]
    for tries in range(1_000_000):
        collection = None
        try:
            collection = runtime.store.get(job.collection)
            outcome = _index(runtime, collection, part, f"{job.id}/{number}")
        except (IndexUnavailable, MediaStoreUnavailable) as error:
            what = "index" if isinstance(error, IndexUnavailable) else "media store"
            runtime.jobs.note(job.id, f"Waiting for the {what}: {error.message}")
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            _log.warning(f"{what} away", job=job.id, again_in=pause, reason=error.message)
            if runtime.stopping.wait(pause):
                raise Interrupted from error
        except (CollectionNotFound, LabelSetNotFound, ModelError) as error:
            if isinstance(error, ModelMismatch) and _was_replaced(runtime, collection):
                continue  # once more, with the new model
            return Outcome(failures=[_failure(item, error) for item in part])
        else:
            if tries:
                runtime.jobs.note(job.id, "")
            return outcome
    raise Interrupted


def _was_replaced(runtime: Runtime, collection: Collection | None) -> bool:
    """Whether a collection has changed its model since it was looked up."""
    return collection is not None and runtime.store.get(collection.name).physical != collection.physical


def _index(runtime: Runtime, collection: Collection, part: list[dict[str, Any]], name: str) -> Outcome:
    if JUDGED in part[0]:
        return judge_items(runtime, collection, part, name)
    if SET in part[0]:
        return label_items(runtime, collection, part)
    encoder = runtime.encoder_of(collection)
    report = Report(collection=collection.name, model=encoder.name, part=name)
    try:
        ingest_found(
            map(from_reference, part), collection=collection, encoder=encoder, settings=runtime.settings, report=report
        )
    finally:
        runtime.meters.add(report.stages)
    by_source = {item["source"]: item for item in part}
    failures = [{**failure.as_dict(), "item": by_source.get(failure.source)} for failure in report.failures]
    return Outcome(report.indexed, report.skipped, report.truncated, failures)


def _failure(item: dict[str, Any], error: CrosslensError) -> dict[str, Any]:
    return {"source": item["source"], **error.as_dict(), "item": item}
