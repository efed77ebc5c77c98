"""A worker process: `python -m workers.process --queues plan|embed|rerank`, kept alive by a supervisor.

One that reranks answers searches and nothing else (`workers.rerank.worker`). The others do one task at a time in the
main thread (Celery's solo pool): the pipeline has threads of its own, nothing is forked once a model is loaded, and
SIGTERM ends it after the shard in work.
"""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from indexer import tracing
from indexer.lifeline import follow_parent
from indexer.logs import configure_logging
from indexer.settings import Settings

if TYPE_CHECKING:
    from workers.rerank.worker import RerankWorker
    from workers.runtime import Runtime

_log = structlog.get_logger("worker")


@click.command()
@click.option("--queues", type=click.Choice(["plan", "embed", "rerank"]), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
@click.option("--follow/--no-follow", default=True, help="End with the parent process.")
def main(queues: str, data: Path, follow: bool) -> None:
    """Work until SIGTERM."""
    settings = Settings(data=data)
    configure_logging(settings.log_level)
    if follow:
        follow_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    if queues == "rerank":
        from workers.rerank.worker import RerankWorker  # noqa: PLC0415  after the parent is watched

        rerank(RerankWorker(settings))
        return
    from workers.runtime import Runtime  # noqa: PLC0415

    tracing.start("crosslens-worker")
    try:
        with Runtime(settings) as runtime:
            work(runtime, queues)
    finally:
        tracing.stop()


def rerank(worker: RerankWorker) -> None:
    """Answer searches until the process is told to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stopping.set())
    worker.run()


def work(runtime: Runtime, queues: str) -> None:
    """Take tasks from the queues until the process is told to end."""
    from celery.platforms import SecurityWarning  # noqa: PLC0415
    from celery.signals import worker_shutting_down  # noqa: PLC0415

    from workers.app import EMBED_CPU, EMBED_GPU, PLAN  # noqa: PLC0415
    from workers.tasks import register  # noqa: PLC0415
    from workers.upkeep import Upkeep  # noqa: PLC0415

    # It warns of root because of pickled messages; ours are JSON, and nothing else is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    gpu = queues == "embed" and _has_gpu(runtime.settings)
    names = [PLAN] if queues == "plan" else [EMBED_CPU, EMBED_GPU] if gpu else [EMBED_CPU]
    register(runtime)
    worker_shutting_down.connect(lambda **_: runtime.stopping.set(), weak=False)
    upkeep = Upkeep(runtime, {"queues": names, "gpu": gpu, "pid": os.getpid()})
    upkeep.start()
    worker = runtime.celery.Worker(
        pool="solo", queues=names, hostname=runtime.name, loglevel="WARNING", without_gossip=True,
        without_mingle=True, without_heartbeat=True, quiet=True,
    )  # fmt: skip
    _log.info("worker ready", name=runtime.name, queues=names)
    try:
        worker.start()
    finally:
        upkeep.stop()


def _has_gpu(settings: Settings) -> bool:
    import onnxruntime  # noqa: PLC0415

    from indexer.models.devices import choose  # noqa: PLC0415

    return choose(settings.device, onnxruntime.get_available_providers())[0][0].is_gpu


if __name__ == "__main__":
    main()
