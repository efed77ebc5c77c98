"""`crosslens migrate`: collections from a data folder to a Qdrant server, back, or from one of a kind to another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import EXIT_FAILURES, load_settings, print_json, printable
from indexer.errors import CollectionNotFound, InvalidRequest, SourceNotFound
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.store.migrate import Migrated

_SHOWN_DIFFERENCES = 10


@click.command()
@click.option("--from", "source", metavar="DIR|URL", required=True, help="A data folder, or a Qdrant server's URL.")
@click.option("--to", "target", metavar="DIR|URL", required=True, help="Another one; a new folder is made.")
@click.option("--collection", "names", metavar="NAME", multiple=True, help="A collection; may be repeated  [all]")
@click.option("--batch", type=click.IntRange(1, 10_000), default=256, help="Points at a time  [256]")
@click.option("--overwrite", is_flag=True, help="Write points again that the target has; else they are skipped.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; progress goes to stderr.")
def migrate(source: str, target: str, names: tuple[str, ...], batch: int, overwrite: bool, as_json: bool) -> None:
    """Copy collections, with vectors and payloads, between a data folder and a Qdrant server.

    The same command again goes on where it ended: what the target has is skipped. In the end the counts and a sample of
    100 points are compared; exit code 1: something differs. Write to neither meanwhile. The source is left as it
    is, and so are originals and uploads. A server's key is CROSSLENS_QDRANT_API_KEY.
    """
    settings = load_settings()
    here, there = _settings_of(source, settings), _settings_of(target, settings)
    if _place(here) == _place(there):
        raise InvalidRequest("--from and --to are the same place.", remedy="Name two places.")
    if here.qdrant_url is None and not (here.index_folder / "collections").is_dir():
        raise SourceNotFound(f"The folder {source} holds no index.", remedy="Name a data folder, as --data does.")
    started = time.monotonic()
    done = _run(here, there, names, batch, overwrite)
    if as_json:
        print_json(_as_dict(source, target, done, time.monotonic() - started))
    else:
        _print(done, time.monotonic() - started)
    if not all(each.verified for each in done):
        sys.exit(EXIT_FAILURES)


def _settings_of(place: str, settings: Settings) -> Settings:
    """The settings with that place for the index: an http(s) URL is a server, anything else a data folder."""
    if place.startswith(("http://", "https://")):
        return settings.model_copy(update={"qdrant_url": place})
    if "://" in place:
        raise InvalidRequest(f"{place} is no address of a Qdrant server.", remedy="Name an http:// or https:// URL.")
    return settings.model_copy(update={"data": Path(place), "qdrant_url": None})


def _place(settings: Settings) -> str | Path:
    return settings.qdrant_url.rstrip("/") if settings.qdrant_url else settings.data.resolve()


def _run(here: Settings, there: Settings, names: Sequence[str], batch: int, overwrite: bool) -> list[Migrated]:
    from indexer.store import open_store  # noqa: PLC0415
    from indexer.store.migrate import migrate as run  # noqa: PLC0415

    try:
        with open_store(here) as source:
            # Before the target is opened, so that no folder is made for nothing.
            collections = [source.get(name) for name in dict.fromkeys(names)] if names else source.list()
            if not collections:
                raise CollectionNotFound("There is no collection to copy.")
            with open_store(there) as target, _progress() as progress:
                return run(collections, target, batch=batch, overwrite=overwrite, progress=progress)
    except KeyboardInterrupt:
        click.echo("Interrupted; the same command goes on from here.", err=True)
        raise


def _as_dict(source: str, target: str, done: Sequence[Migrated], seconds: float) -> dict[str, Any]:
    return {
        "from": source,
        "to": target,
        "collections": [
            {
                "name": each.name,
                "points": each.points,
                "copied": each.copied,
                "skipped": each.skipped,
                "compared": each.compared,
                "verified": each.verified,
                "differences": each.differences,
            }
            for each in done
        ],
        "verified": all(each.verified for each in done),
        "seconds": round(seconds, 2),
    }


def _print(done: Sequence[Migrated], seconds: float) -> None:
    """What was copied and whether it is as in the source; on stderr, as nothing of it is data."""
    for each in done:
        counts = f"{each.name}: {each.copied} copied, {each.skipped} already there"
        if each.verified:
            click.echo(f"{counts}. Verified: counts, and {each.compared} vectors and payloads.", err=True)
            continue
        click.echo(f"{counts}. {click.style('It differs from the source:', fg='red', bold=True)}", err=True)
        for difference in each.differences[:_SHOWN_DIFFERENCES]:
            click.echo(f"  {printable(difference)}", err=True)
        if len(each.differences) > _SHOWN_DIFFERENCES:
            click.echo(f"  and {len(each.differences) - _SHOWN_DIFFERENCES} more; --json gives all.", err=True)
    click.echo(f"{seconds:.1f} s.", err=True)
    if not all(each.verified for each in done):
        click.echo(
            "Next: the same command with --overwrite, while nothing writes to either; where the target holds more than "
            "the source, remove the collection there first.",
            err=True,
        )


@contextmanager
def _progress() -> Iterator[Callable[[Migrated], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: Migrated) -> None:
            bar.update(task, description=done.name, completed=done.copied + done.skipped, total=done.points)

        yield show
