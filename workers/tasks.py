"""The Celery tasks: thin, since everything that matters is written down elsewhere."""

from __future__ import annotations

import structlog
from celery.exceptions import Reject

from workers.app import PLAN_JOB, RUN_SHARD
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

    @app.task(name=RUN_SHARD)  # type: ignore[untyped-decorator]
    def run(job_id: str, number: int) -> None:
        try:
            run_shard(runtime, job_id, number)
        except Interrupted as error:
            raise Reject(str(error), requeue=True) from error
        except Exception:
            # A defect, or a broker that went away. What was in work counts as if its worker had died: it is divided
            # at the next delivery, so that one item of a kind that nobody foresaw holds up no other.
            runtime.abandoned.append((job_id, number))
            raise
