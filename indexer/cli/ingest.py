"""`crosslens ingest`: folders, files, globs and captions into the index."""

from __future__ import annotations

import glob
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import click

from indexer.cli.options import EXIT_FAILURES, EXIT_INTERRUPTED, common_options, print_json, printable
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.models.encoder import Encoder
    from indexer.report import Report
    from indexer.store import Collection

_SHOWN_FAILURES = 20


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--model", help="The bundle that embeds a new collection: a name or a folder.  [bridge]")
@click.option("--prune", is_flag=True, help="Then remove what is no longer there from these folders' items.")
@click.option("--prune-all", is_flag=True, help="The same, also of folders that are gone or empty.")
@common_options()
def ingest(
    sources: tuple[str, ...], model: str | None, prune: bool, prune_all: bool, settings: Settings, as_json: bool
) -> None:
    """Index photos and texts: folders, files, globs, .txt files of captions, .jsonl files of items.

    A line of a .jsonl file is {"file" or "text", "payload", "id"}, the last two optional. What is indexed already is
    skipped, so the same command again goes on where it ended. Exit code 1: done, but some files could not be read.

    --prune is refused for a folder that is gone or empty, as it is while its disk is not mounted.
    """
    settings = settings.model_copy(update={"model": model} if model else {})
    report = run_ingest(sources, settings, prune="all" if prune_all else "guarded" if prune else None)
    if as_json:
        print_json(report.as_dict())
    else:
        print_report(report, settings)
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if report.failed:
        sys.exit(EXIT_FAILURES)


def run_ingest(
    sources: tuple[str, ...], settings: Settings, *, prune: Literal["guarded", "all"] | None = None
) -> Report:
    """Index sources into the settings' collection, with progress on a terminal; Ctrl-C ends it cleanly.

    With `prune`, what is gone below those that are folders is then removed; "all" does without the guard.

    Raises:
        PruneRefused: a folder is gone or empty, and the index holds items of it.
    """
    folders = [Path(source).expanduser() for source in sources if _is_path(source)] if prune else []
    if prune == "all":
        sources = tuple(source for source in sources if not _is_path(source) or Path(source).expanduser().exists())
    with open_collection(settings) as (collection, encoder):
        from indexer.pipeline import ingest as run  # noqa: PLC0415  heavy, and `open_collection` has loaded most of it
        from indexer.pruning import prune as remove_gone  # noqa: PLC0415
        from indexer.pruning import refuse_where_lost  # noqa: PLC0415

        if prune == "guarded":
            refuse_where_lost(folders, collection)  # before the work, not after it
        with progress_line() as progress, stopped_by_ctrl_c() as stop:
            report = run(
                sources, collection=collection, encoder=encoder, settings=settings, progress=progress, stop=stop
            )
            if folders and not stop.is_set():
                remove_gone(
                    folders,
                    collection=collection,
                    report=report,
                    settings=settings,
                    unguarded=prune == "all",
                    stop=stop,
                )
                report.interrupted = stop.is_set()
            return report


def _is_path(source: str) -> bool:
    """Whether a source names one place on this machine: no URL, and no pattern."""
    return "://" not in source and (not glob.has_magic(source) or Path(source).expanduser().exists())


@contextmanager
def open_collection(settings: Settings) -> Iterator[tuple[Collection, Encoder]]:
    """The settings' collection, made if it is not there, and the encoder for it."""
    from indexer.edge.client import attach  # noqa: PLC0415

    # The index process starts while the model loads.
    attached = attach(settings) if settings.qdrant_url is None else None
    from indexer.models.encoder import load_encoder  # noqa: PLC0415
    from indexer.store import open_store  # noqa: PLC0415

    with open_store(settings, attached) as store:
        encoder = load_encoder(settings, threads=1)  # the pipeline runs as many side by side as there are cores
        yield store.create(settings.collection, encoder.name, encoder.fingerprint, encoder.dimension), encoder


def print_report(report: Report, settings: Settings) -> None:
    """What was done, what was not and why, and the next step; on stderr, as nothing of it is data."""
    frames = f" ({report.frames} frames and pages)" if report.frames else ""
    line = f"{report.indexed} indexed{frames}, {report.skipped} already there, {report.failed} failed"
    if report.passed_over:
        line += f"; {report.passed_over} other files passed over"
    if report.removed:
        line += f"; {report.removed} removed"
    click.echo(f"{line}. {report.seconds:.1f} s, {report.items_per_second:.0f} items/s.", err=True)
    print_failures(report)
    for warning in report.as_dict()["warnings"]:
        click.echo(f"Note: {warning}", err=True)
    if report.interrupted:
        click.echo("Interrupted; the same command goes on from here.", err=True)
    elif report.indexed or report.skipped:
        named = "" if report.collection == "media" else f" --collection {report.collection}"
        data = "" if settings.data == Settings.model_fields["data"].default else f" --data {settings.data}"
        click.echo(f'Next: crosslens search "a dog on a beach"{named}{data}', err=True)


def print_failures(report: Report) -> None:
    """The first of the files that failed, and why, on stderr."""
    for failure in report.failures[:_SHOWN_FAILURES]:
        where = printable(failure.source)
        click.echo(f"  {failure.error.code:<16} {where}  {printable(failure.error.message)}", err=True)
    if report.failed > _SHOWN_FAILURES:
        click.echo(f"  and {report.failed - _SHOWN_FAILURES} more; --json gives all.", err=True)


@contextmanager
def progress_line() -> Iterator[Callable[[Report], None] | None]:
    """A progress line on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(report: Report) -> None:
            rate = f"{report.items_per_second:.0f}/s"
            done = f"{report.indexed} indexed, {report.skipped} skipped, {report.failed} failed, {rate}"
            bar.update(task, description=done)

        yield show


@contextmanager
def stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, or SIGTERM, sets; a second one ends the process as ever."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])
        if sys.stderr.isatty():
            click.echo("Finishing what is in work; Ctrl-C again to drop it.", err=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
