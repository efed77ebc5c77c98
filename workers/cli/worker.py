"""`crosslens worker`: processes that take jobs from a shared queue, on any machine."""

from __future__ import annotations

import sys

import click

from indexer.cli.options import common_options
from indexer.errors import UsageError
from indexer.settings import Settings
from workers.children import children
from workers.supervisor import Supervisor


@click.command()
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Each has its model.")
@common_options(collection=False)
def worker(processes: int, settings: Settings, as_json: bool) -> None:  # noqa: ARG001  it prints nothing
    """Work on the jobs of a shared queue until Ctrl-C.

    Needs CROSSLENS_REDIS_URL and CROSSLENS_QDRANT_URL; `crosslens serve` has workers of its own.
    """
    from indexer.logs import configure_logging  # noqa: PLC0415

    configure_logging(settings.log_level)
    for name, value in (("CROSSLENS_REDIS_URL", settings.redis_url), ("CROSSLENS_QDRANT_URL", settings.qdrant_url)):
        if value is None:
            raise UsageError(
                f"{name} is not set: a worker needs a queue and an index that other machines reach.",
                remedy="Set it; on one machine, `crosslens serve` starts workers of its own (CROSSLENS_WORKERS).",
            )
    sys.exit(Supervisor(children(settings, processes=processes)).run())
