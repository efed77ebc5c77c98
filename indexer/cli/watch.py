"""`crosslens watch`: folders into the index, and kept there as they are."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.cli.ingest import open_collection, print_failures, progress_line, stopped_by_ctrl_c
from indexer.cli.options import common_options, printable
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.report import Report


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option("--model", help="The bundle that embeds a new collection: a name or a folder.  [bridge]")
@click.option("--prune/--keep", default=True, help="Remove what is deleted from the index, or keep it.  [prune]")
@click.option(
    "--walk-every",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=3600.0,
    help="Look at everything again so often; network drives need it, and have it every minute.  [3600]",
)
@common_options()
def watch(
    folders: tuple[Path, ...], model: str | None, prune: bool, walk_every: float, settings: Settings, as_json: bool
) -> None:
    """Index folders as ingest does, then follow what changes in them until Ctrl-C.

    New and changed files are indexed once nobody writes to them; what is deleted or moved away is removed, what is
    renamed keeps its item. A folder that vanishes as a whole may be a disk that is not mounted: nothing of it is
    removed, and it is waited for. With --json, each batch is one JSON document on a line of its own, as ingest's.
    """
    settings = settings.model_copy(update={"model": model} if model else {})
    with open_collection(settings) as (collection, encoder):
        from indexer.watch import watch as follow  # noqa: PLC0415  heavy, and `open_collection` has loaded most of it

        # The first batch or notice ends the first walk's progress line.
        with stopped_by_ctrl_c() as stop, ExitStack() as line:
            progress = line.enter_context(progress_line())

            is_first = True

            def on_batch(report: Report) -> None:
                nonlocal is_first
                line.close()
                if as_json:
                    click.echo(json.dumps(report.as_dict(), ensure_ascii=False))
                    return
                _print_batch(report)
                if is_first and not stop.is_set():
                    which = "1 folder" if len(folders) == 1 else f"{len(folders)} folders"
                    click.echo(f"Following {which}; Ctrl-C ends it.", err=True)
                is_first = False

            def on_notice(sentence: str) -> None:
                line.close()
                click.echo(printable(sentence), err=True)

            follow(
                folders,
                collection=collection,
                encoder=encoder,
                settings=settings,
                keep=not prune,
                every=walk_every,
                on_batch=on_batch,
                on_notice=on_notice,
                progress=progress,
                stop=stop,
            )


def _print_batch(report: Report) -> None:
    """What a batch did, in a line; its failures below."""
    line = f"{report.indexed} indexed, {report.removed} removed"
    if report.skipped:
        line += f", {report.skipped} already there"
    if report.failed:
        line += f", {report.failed} failed"
    click.echo(line, err=True)
    print_failures(report)
