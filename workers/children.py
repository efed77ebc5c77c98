"""The processes of the queue, as a supervisor starts them."""

from __future__ import annotations

import sys

from indexer.settings import Settings
from workers.supervisor import Child


def children(settings: Settings, *, processes: int | None = None) -> list[Child]:
    """The broker, where there is no other; a planner; and `processes` that embed, `settings.workers` by default."""
    count = settings.workers if processes is None else processes
    if count == 0:
        return []
    data = ["--data", str(settings.data.absolute())]
    broker = (
        [] if settings.redis_url else [Child("broker", [sys.executable, "-m", "workers.broker", *data], outlives=True)]
    )
    process = [sys.executable, "-m", "workers.process", *data, "--queues"]
    embedders = [Child(f"worker-{number}", [*process, "embed"]) for number in range(1, count + 1)]
    return [*broker, Child("planner", [*process, "plan"]), *embedders]
