"""`crosslens backup` and `crosslens restore`: the whole data folder into a folder or .zip, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.cli.options import common_options, print_json, printable
from indexer.errors import SourceNotFound
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.backup import Saved


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@common_options(collection=False)
def backup(target: Path, settings: Settings, as_json: bool) -> None:
    """Save the data folder to TARGET, a new folder or a new .zip, while it is served.

    Collections with vectors and payloads, uploads and copies, jobs and keys, bundles and the audit log. All that was
    acknowledged before is in it. Photos that were ingested from folders are not: save those as ever.
    """
    if settings.qdrant_url is None and not (settings.index_folder / "collections").is_dir():
        raise SourceNotFound(f"The folder {settings.data} holds no index.", remedy="Name a data folder with --data.")
    from indexer.backup import save  # noqa: PLC0415  heavy
    from indexer.store import open_store  # noqa: PLC0415

    with open_store(settings) as store, _progress() as progress:
        done = save(store, settings, target, progress=progress)
    _say(done, f"Saved to {target}", as_json)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@common_options(collection=False)
def restore(source: Path, settings: Settings, as_json: bool) -> None:
    """Bring a backup into a new or empty data folder, once all of it was read and checked."""
    from indexer.backup import restore as bring  # noqa: PLC0415  heavy

    with _progress() as progress:
        done = bring(source, settings, progress=progress)
    _say(done, f"Restored into {settings.data}", as_json)


def _say(done: Saved, what: str, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "collections": done.collections,
                "media": done.media,
                "files": done.files,
                "bytes": done.bytes,
                "notes": done.notes,
            }
        )
        return
    counts = ", ".join(f"{name} with {count} items" for name, count in done.collections.items()) or "no collection"
    click.echo(f"{what}: {counts}; {done.media} uploads and copies, {done.files} other files.", err=True)
    for note in done.notes:
        click.echo(f"Note: {printable(note)}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
