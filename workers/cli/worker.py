"""`crosslens worker`: processes that take jobs from a shared queue, or rerank for searches, on any machine."""

from __future__ import annotations

import sys

import click

from indexer.cli.options import common_options
from indexer.errors import UsageError
from indexer.settings import Settings
from workers.children import children, rerankers
from workers.supervisor import Supervisor


@click.command()
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Each has its model.")
@click.option("--rerank", is_flag=True, help="Rerank for searches (CROSSLENS_RERANK_IN=worker), and take no jobs.")
@common_options(collection=False)
def worker(processes: int, rerank: bool, settings: Settings, as_json: bool) -> None:  # noqa: ARG001  it prints nothing
    """Work on the jobs of a shared queue, or with --rerank for searches, until Ctrl-C.

    Needs CROSSLENS_REDIS_URL and, but for --rerank, CROSSLENS_QDRANT_URL; `crosslens serve` has workers of its own.
    """
    from indexer.logs import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level)
    needed = {"CROSSLENS_REDIS_URL": settings.redis_url}
    if not rerank:
        needed["CROSSLENS_QDRANT_URL"] = settings.qdrant_url
    for name, value in needed.items():
        if value is None:
            raise UsageError(
                f"{name} is not set: a worker needs a queue, and for jobs an index, that other machines reach.",
                remedy="Set it; on one machine, `crosslens serve` starts workers of its own (CROSSLENS_WORKERS).",
            )
    working = rerankers(settings, processes=processes) if rerank else children(settings, processes=processes)
    sys.exit(Supervisor(working).run())
