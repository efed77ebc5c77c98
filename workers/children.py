"""The processes of the queue, as a supervisor starts them."""

from __future__ import annotations

import sys

from indexer.errors import UsageError
from indexer.settings import Settings
from workers.supervisor import Child


def children(settings: Settings, *, processes: int | None = None) -> list[Child]:
    """The broker, where there is no other; a planner; and `processes` that embed, `settings.workers` by default.

    Beside a broker of its own also one that reranks, where that is the workers'.

    Raises:
        UsageError: it is, and there is no queue.
    """
    count = settings.workers if processes is None else processes
    if count == 0:
        if settings.rerank_in == "worker" and not settings.has_queue:
            raise UsageError(
                "CROSSLENS_RERANK_IN=worker needs a queue, and there is none.",
                remedy="Set CROSSLENS_WORKERS to 1 or more, or CROSSLENS_REDIS_URL.",
            )
        return []
    data = ["--data", str(settings.data.absolute())]
    broker = (
        [] if settings.redis_url else [Child("broker", [sys.executable, "-m", "workers.broker", *data], outlives=True)]
    )
    process = [sys.executable, "-m", "workers.process", *data, "--queues"]
    embedders = [Child(f"worker-{number}", [*process, "embed"]) for number in range(1, count + 1)]
    own_rerankers = rerankers(settings) if broker and settings.rerank_in == "worker" else []
    return [*broker, Child("planner", [*process, "plan"]), *embedders, *own_rerankers]


def rerankers(settings: Settings, *, processes: int = 1) -> list[Child]:
    """Processes that rerank, each with its models."""
    command = [sys.executable, "-m", "workers.process", "--data", str(settings.data.absolute()), "--queues", "rerank"]
    return [Child(f"reranker-{number}", command) for number in range(1, processes + 1)]
