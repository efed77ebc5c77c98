"""`crosslens ingest`: folders, files, globs and captions into the index."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from indexer.cli.options import EXIT_FAILURES, EXIT_INTERRUPTED, common_options, print_json, printable
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.report import Report

_SHOWN_FAILURES = 20


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--model", help="The bundle that embeds a new collection: a name or a folder.  [bridge]")
@common_options()
def ingest(sources: tuple[str, ...], model: str | None, settings: Settings, as_json: bool) -> None:
    """Index photos and texts: folders, files, globs, .txt files of captions, .jsonl files of items.

    A line of a .jsonl file is {"file" or "text", "payload", "id"}, the last two optional. What is indexed already is
    skipped, so the same command again goes on where it ended. Exit code 1: done, but some files could not be read.
    """
    report = run_ingest(sources, settings.model_copy(update={"model": model} if model else {}))
    if as_json:
        print_json(report.as_dict())
    else:
        print_report(report, settings)
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if report.failed:
        sys.exit(EXIT_FAILURES)


def run_ingest(sources: tuple[str, ...], settings: Settings) -> Report:
    """Index sources into the settings' collection, with progress on a terminal; Ctrl-C ends it cleanly."""
    from indexer.edge.client import attach  # noqa: PLC0415

    # The index process starts while the model loads.
    attached = attach(settings) if settings.qdrant_url is None else None
    from indexer.models.encoder import load_encoder  # noqa: PLC0415
    from indexer.pipeline import ingest as run  # noqa: PLC0415
    from indexer.store import open_store  # noqa: PLC0415

    with open_store(settings, attached) as store:
        encoder = load_encoder(settings, threads=1)  # the pipeline runs as many side by side as there are cores
        collection = store.create(settings.collection, encoder.name, encoder.fingerprint, encoder.dimension)
        with _progress() as progress, _stopped_by_ctrl_c() as stop:
            return run(sources, collection=collection, encoder=encoder, settings=settings, progress=progress, stop=stop)


def print_report(report: Report, settings: Settings) -> None:
    """What was done, what was not and why, and the next step; on stderr, as nothing of it is data."""
    line = f"{report.indexed} indexed, {report.skipped} already there, {report.failed} failed"
    if report.passed_over:
        line += f"; {report.passed_over} other files passed over"
    click.echo(f"{line}. {report.seconds:.1f} s, {report.items_per_second:.0f} items/s.", err=True)
    for failure in report.failures[:_SHOWN_FAILURES]:
        where = printable(failure.source)
        click.echo(f"  {failure.error.code:<16} {where}  {printable(failure.error.message)}", err=True)
    if report.failed > _SHOWN_FAILURES:
        click.echo(f"  and {report.failed - _SHOWN_FAILURES} more; --json gives all.", err=True)
    for warning in report.as_dict()["warnings"]:
        click.echo(f"Note: {warning}", err=True)
    if report.interrupted:
        click.echo("Interrupted; the same command goes on from here.", err=True)
    elif report.indexed or report.skipped:
        named = "" if report.collection == "media" else f" --collection {report.collection}"
        data = "" if settings.data == Settings.model_fields["data"].default else f" --data {settings.data}"
        click.echo(f'Next: crosslens search "a dog on a beach"{named}{data}', err=True)


@contextmanager
def _progress() -> Iterator[Callable[[Report], None] | None]:
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
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
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
