"""`crosslens jobs`: hand sources to the queue, and see what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from indexer.cli.options import EXIT_FAILURES, common_options, print_json, printable
from indexer.settings import Settings

if TYPE_CHECKING:
    from workers.jobs import Job
    from workers.submit import Queue

_LOOK_SECONDS = 0.25
_PAGE = 1000

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


@click.group()
def jobs() -> None:
    """Jobs of the queue that `crosslens serve`, or CROSSLENS_REDIS_URL, has."""


@jobs.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--model", help="The bundle that embeds a new collection.  [bridge]")
@click.option("--wait", is_flag=True, help="Follow the job until it is over.")
@common_options()
def submit(sources: tuple[str, ...], model: str | None, wait: bool, settings: Settings, as_json: bool) -> None:
    """Queue folders, files, globs and text files to be indexed."""
    from indexer.media.originals import UPLOAD  # noqa: PLC0415
    from indexer.models.encoder import load_encoder  # noqa: PLC0415
    from indexer.store import open_store  # noqa: PLC0415

    encoder = load_encoder(settings, model)
    # Workers have another working directory, or are other machines.
    absolute = [
        source if "://" in source or source.startswith(UPLOAD) else str(Path(source).expanduser().absolute())
        for source in sources
    ]
    with open_store(settings) as store:
        collection = store.create(settings.collection, encoder.name, encoder.fingerprint, encoder.dimension)
        job = _queue(settings).submit(collection, absolute)
        if wait:  # and keep the index meanwhile
            job = _follow(settings, job)
    _show(job, as_json=as_json)


@jobs.command(name="list")
@click.option("--limit", type=click.IntRange(1, _PAGE), default=20, show_default=True)
@common_options(collection=False)
def list_jobs(limit: int, settings: Settings, as_json: bool) -> None:
    """List the newest jobs."""
    found = _asked(settings, lambda queue: queue.jobs.newest(limit))
    if as_json:
        print_json({"jobs": [job.as_dict() for job in found]})
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        Column("job", no_wrap=True), "collection", "state", "total", "indexed", "skipped", "failed", "created", box=None
    )
    for job in found:
        created = datetime.fromtimestamp(job.created).astimezone().strftime("%Y-%m-%d %H:%M")
        counts = (f"{job.total}/{job.planned}", job.indexed, job.skipped, job.failed)
        table.add_row(*(Text(str(cell)) for cell in (job.id, job.collection, job.state, *counts, created)))
    Console().print(table)


@jobs.command()
@click.argument("job_id")
@common_options(collection=False)
def show(job_id: str, settings: Settings, as_json: bool) -> None:
    """Show one job."""
    _show(_asked(settings, lambda queue: queue.jobs.get(job_id)), as_json=as_json)


@jobs.command()
@click.argument("job_id")
@common_options(collection=False)
def watch(job_id: str, settings: Settings, as_json: bool) -> None:
    """Follow a job until it is over."""
    job = _asked(settings, lambda queue: queue.jobs.get(job_id))
    _show(_follow(settings, job), as_json=as_json)


@jobs.command()
@click.argument("job_id")
@common_options(collection=False)
def failures(job_id: str, settings: Settings, as_json: bool) -> None:
    """List what failed in a job, with reasons."""
    job = _asked(settings, lambda queue: queue.jobs.get(job_id))
    found = _asked(settings, lambda queue: list(queue.jobs.all_failures(job.id)))
    if as_json:
        rows = [{name: value for name, value in each.items() if name != "item"} for each in found]
        print_json({"job": job.id, "failed": job.failed, "failures": rows})
        return
    for each in found:
        click.echo(f"{printable(each['source'])}: {printable(each['message'])} [{each['code']}]")
    if found:
        click.echo(f"Next: mend them, then crosslens jobs retry {job.id}", err=True)


@jobs.command()
@click.argument("job_id")
@common_options(collection=False)
def retry(job_id: str, settings: Settings, as_json: bool) -> None:
    """Queue what failed in a job once more."""
    _show(_asked(settings, lambda queue: queue.retry(job_id)), as_json=as_json)


@jobs.command()
@click.argument("job_id")
@common_options(collection=False)
def cancel(job_id: str, settings: Settings, as_json: bool) -> None:
    """End a job that is not over; what is indexed stays."""
    _asked(settings, lambda queue: queue.jobs.cancel(job_id))
    _show(_asked(settings, lambda queue: queue.jobs.get(job_id)), as_json=as_json)


def _queue(settings: Settings) -> Queue:
    from workers.submit import Queue  # noqa: PLC0415

    return Queue(settings)


def _asked(settings: Settings, ask: Callable[[Queue], Answer]) -> Answer:
    """What the queue answers; an error of ours where nothing does."""
    from workers.submit import available  # noqa: PLC0415

    with available(settings):
        return ask(_queue(settings))


def _follow(settings: Settings, job: Job) -> Job:
    """A progress bar on a terminal, until the job is over."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from workers.jobs import OVER  # noqa: PLC0415
    from workers.submit import available  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with available(settings), progress as bar:
        task = bar.add_task(job.state, total=None)
        queue = _queue(settings)
        while job.state not in OVER:
            time.sleep(_LOOK_SECONDS)
            job = queue.jobs.get(job.id)
            bar.update(task, description=job.note or job.state, completed=job.total, total=job.planned or None)
    return job


def _show(job: Job, *, as_json: bool) -> None:
    from workers.jobs import State  # noqa: PLC0415

    document: dict[str, Any] = job.as_dict()
    if as_json:
        print_json(document)
    else:
        click.echo(
            f"{job.id}: {job.state}, {job.indexed} indexed, {job.skipped} skipped, {job.failed} failed of "
            f"{job.planned} planned; {document['items_per_second']:.0f}/s"
        )
        if job.note:
            click.echo(printable(job.note))
        if job.error:
            click.echo(printable(f"{job.error['message']} {job.error['remedy']}"), err=True)
        if job.failed:
            click.echo(f"Next: crosslens jobs failures {job.id}", err=True)
    if job.failed or job.state is State.FAILED:
        raise click.exceptions.Exit(EXIT_FAILURES)
