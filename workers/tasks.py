"""The Celery tasks: thin, since everything that matters is written down elsewhere."""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery.exceptions import Reject

from workers.app import PLAN_JOB, RUN_SHARD, SENT
from workers.embedding import run_shard
from workers.jobs import PLANNING
from workers.planning import Interrupted, plan
from workers.runtime import Runtime

_log = structlog.get_logger("worker")


def register(runtime: Runtime) -> None:
    """Register the tasks with a worker's app."""
    app = runtime.celery

    @app.task(name=PLAN_JOB)  # type: ignore[untyped-decorator]
    def plan_job(job_id: str) -> None:
        try:
            plan(runtime, job_id)
        except Interrupted as error:
            raise Reject(str(error), requeue=True) from error
        except Exception:
            runtime.abandoned.append((job_id, PLANNING))
            raise

    @app.task(name=RUN_SHARD, bind=True)  # type: ignore[untyped-decorator]
    def run(task: Any, job_id: str, number: int) -> None:
        try:
            run_shard(runtime, job_id, number, waited=_waited(task.request.get(SENT)))
        except Interrupted as error:
            raise Reject(str(error), requeue=True) from error
        except Exception:
            # A defect, or a broker that went away. What was in work counts as if its worker had died: it is divided
            # at the next delivery, so that one item of a kind that nobody foresaw holds up no other.
            runtime.abandoned.append((job_id, number))
            raise


def _waited(sent: Any) -> float | None:
    """Seconds in the queue, as far as two machines' clocks agree; None for messages that do not say."""
    return max(0.0, time.time() - sent) if isinstance(sent, float | int) else None
