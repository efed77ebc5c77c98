"""`crosslens jobs`: hand sources to the queue, and see what becomes of them.

With `--url` a server is asked instead of the queue; the same is printed. Both answer with documents, as the HTTP API
has them. This package knows nothing of the client: whoever asks servers is registered in the entry-point group
`crosslens.remote`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from indexer.cli.options import EXIT_FAILURES, common_options, print_json, printable
from indexer.settings import Settings

if TYPE_CHECKING:
    from workers.submit import Queue

_LOOK_SECONDS = 0.25
_PAGE = 1000

_OVER = frozenset({"done", "failed", "cancelled"})

Document = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])


class Asked(Protocol):
    """Who knows of jobs. Each is a document, as in `Job.as_dict`."""

    def list(self, limit: int) -> list[Document]:
        """The newest, the newest first."""

    def get(self, job_id: str) -> Document:
        """One job."""

    def failures(self, job_id: str) -> Iterable[Document]:
        """What failed in a job."""

    def retry(self, job_id: str) -> Document:
        """A new job of what failed in one."""

    def cancel(self, job_id: str) -> Document:
        """End a job; it as it is then."""


def _server_options(command: Command) -> Command:
    key = click.option("--key", envvar="CROSSLENS_KEY", help="The key that the server asks for.")
    url = click.option("--url", envvar="CROSSLENS_URL", help="Ask this server instead of the queue.")
    return url(key(command))


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
        job: Document = _queue(settings).submit(collection, absolute).as_dict()
        if wait:  # and keep the index meanwhile
            with _asked(settings) as asked:
                job = _follow(asked, job)
    _show(job, as_json=as_json)


@jobs.command(name="list")
@click.option("--limit", type=click.IntRange(1, _PAGE), default=20, show_default=True)
@_server_options
@common_options(collection=False)
def list_jobs(limit: int, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """List the newest jobs."""
    with _asked(settings, url, key) as asked:
        found = asked.list(limit)
    if as_json:
        print_json({"jobs": found})
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        Column("job", no_wrap=True), "collection", "state", "total", "indexed", "skipped", "failed", "created", box=None
    )
    for job in found:
        created = datetime.fromtimestamp(job["created"]).astimezone().strftime("%Y-%m-%d %H:%M")
        counts = (f"{job['total']}/{job['planned']}", job["indexed"], job["skipped"], job["failed"])
        cells = (job["job"], job["collection"], job["state"], *counts, created)
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    Console().print(table)


@jobs.command()
@click.argument("job_id")
@_server_options
@common_options(collection=False)
def show(job_id: str, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """Show one job."""
    with _asked(settings, url, key) as asked:
        job = asked.get(job_id)
    _show(job, as_json=as_json)


@jobs.command()
@click.argument("job_id")
@_server_options
@common_options(collection=False)
def watch(job_id: str, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """Follow a job until it is over."""
    with _asked(settings, url, key) as asked:
        job = _follow(asked, asked.get(job_id))
    _show(job, as_json=as_json)


@jobs.command()
@click.argument("job_id")
@_server_options
@common_options(collection=False)
def failures(job_id: str, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """List what failed in a job, with reasons."""
    with _asked(settings, url, key) as asked:
        job, found = asked.get(job_id), list(asked.failures(job_id))
    if as_json:
        print_json({"job": job["job"], "failed": job["failed"], "failures": found})
        return
    for each in found:
        click.echo(f"{printable(each['source'])}: {printable(each['message'])} [{printable(each['code'])}]")
    if found:
        click.echo(f"Next: mend them, then crosslens jobs retry {printable(job['job'])}", err=True)


@jobs.command()
@click.argument("job_id")
@_server_options
@common_options(collection=False)
def retry(job_id: str, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """Queue what failed in a job once more."""
    with _asked(settings, url, key) as asked:
        job = asked.retry(job_id)
    _show(job, as_json=as_json)


@jobs.command()
@click.argument("job_id")
@_server_options
@common_options(collection=False)
def cancel(job_id: str, url: str | None, key: str | None, settings: Settings, as_json: bool) -> None:
    """End a job that is not over; what is indexed stays."""
    with _asked(settings, url, key) as asked:
        job = asked.cancel(job_id)
    _show(job, as_json=as_json)


def _queue(settings: Settings) -> Queue:
    from workers.submit import Queue  # noqa: PLC0415

    return Queue(settings)


class _Queued:
    """The jobs of the queue that the settings name."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def list(self, limit: int) -> list[Document]:
        return [job.as_dict() for job in self._queue.jobs.newest(limit)]

    def get(self, job_id: str) -> Document:
        return self._queue.jobs.get(job_id).as_dict()

    def failures(self, job_id: str) -> Iterator[Document]:
        for each in self._queue.jobs.all_failures(job_id):
            yield {name: value for name, value in each.items() if name != "item"}

    def retry(self, job_id: str) -> Document:
        return self._queue.retry(job_id).as_dict()

    def cancel(self, job_id: str) -> Document:
        self._queue.jobs.cancel(job_id)
        return self.get(job_id)


@contextmanager
def _asked(settings: Settings, url: str | None = None, key: str | None = None) -> Iterator[Asked]:
    """Who is asked: a server, or the queue; an error of ours where nothing answers."""
    if url is not None:
        (remote,) = entry_points(group="crosslens.remote", name="jobs")
        server: AbstractContextManager[Asked] = remote.load()(url, key)
        with server as asked:
            yield asked
        return
    from workers.submit import available  # noqa: PLC0415

    with available(settings):
        yield _Queued(_queue(settings))


def _follow(asked: Asked, job: Document) -> Document:
    """A progress bar on a terminal, until the job is over."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with progress as bar:
        task = bar.add_task(job["state"], total=None)
        while job["state"] not in _OVER:
            time.sleep(_LOOK_SECONDS)
            job = asked.get(job["job"])
            bar.update(
                task, description=job["note"] or job["state"], completed=job["total"], total=job["planned"] or None
            )
    return job


def _show(job: Document, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        name = printable(job["job"])
        click.echo(
            f"{name}: {printable(job['state'])}, {job['indexed']} indexed, {job['skipped']} skipped, "
            f"{job['failed']} failed of {job['planned']} planned; {job['items_per_second']:.0f}/s"
        )
        if job["note"]:
            click.echo(printable(job["note"]))
        if job["error"]:
            click.echo(printable(f"{job['error']['message']} {job['error']['remedy']}"), err=True)
        if job["failed"]:
            click.echo(f"Next: crosslens jobs failures {name}", err=True)
    if job["failed"] or job["state"] == "failed":
        raise click.exceptions.Exit(EXIT_FAILURES)
