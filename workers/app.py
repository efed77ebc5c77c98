"""The Celery app: the same tasks and settings embedded and on many machines.

Celery carries short messages, "plan this job" and "run this shard"; what a shard holds, who works on it and what came
of it is in Redis, where SIGKILL cannot reach it (`workers.jobs`).
"""

from __future__ import annotations

import time

from celery import Celery

from indexer.settings import Settings
from workers.broker import broker_url

PLAN = "plan"
EMBED_CPU = "embed.cpu"
EMBED_GPU = "embed.gpu"
QUEUES = (PLAN, EMBED_CPU, EMBED_GPU)
RERANK = "rerank"
"""What a worker that reranks says it works on: a queue, but none of Celery's (`workers.rerank.messages`)."""

PLAN_JOB = "crosslens.plan"
RUN_SHARD = "crosslens.shard"

SENT = "crosslens_sent"
"""A message's header: when it was queued, in seconds since 1970."""


def create_celery(settings: Settings) -> Celery:
    """The app of these settings; connects when it is first used."""
    app = Celery("crosslens", broker=broker_url(settings), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=PLAN,
        # A message is acknowledged after its work, and one worker holds one at a time.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # Redelivery by the broker is the last resort: `workers.upkeep` sends a dead worker's shards again in seconds.
        broker_transport_options={"visibility_timeout": 3600, "socket_keepalive": True, "retry_on_timeout": True},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
    )
    return app


def send(app: Celery, task: str, *arguments: str | int, queue: str) -> None:
    """Queue a task; tried again while the broker is away."""
    policy = {"max_retries": 8, "interval_start": 0.1, "interval_step": 0.5, "interval_max": 5}
    headers = {SENT: time.time()}
    app.send_task(task, args=arguments, queue=queue, retry=True, retry_policy=policy, headers=headers)
