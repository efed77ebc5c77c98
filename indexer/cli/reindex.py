"""`crosslens reindex`: another model for a collection, beside the one that is in use, then in its place."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.ingest import stopped_by_ctrl_c
from indexer.cli.options import EXIT_FAILURES, EXIT_INTERRUPTED, common_options, print_json, printable
from indexer.errors import InvalidRequest
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.models.encoder import Encoder
    from indexer.reindex.carry import Carried, Carrier
    from indexer.reindex.moving import Move
    from indexer.store import Store

_CATCH_UPS = 10
"""Further passes while others write; what is left is for the next run, or for the switch."""
_SHOWN = 20


def _share(_context: click.Context, _option: click.Parameter, value: str) -> float:
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter("must be a percentage, such as 0.5%")
    return share


@click.command()
@click.option("--model", help="The bundle to go to: a name or a folder. Unset, the one that is prepared already.")
@click.option("--switch", "do_switch", is_flag=True, help="Then let the collection's name lead to the new model.")
@click.option(
    "--allow-missing", default="0%", metavar="N%", callback=_share, help="Items that may be missing then.  [0%]"
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Queries and what they should find, as for `crosslens eval`.",
)
@click.option(
    "--rollback", "do_rollback", is_flag=True, help="Go back to the model of before, with what was written since."
)
@click.option("--finish", "do_finish", is_flag=True, help="Remove the collection of the model of before.")
@click.option("--status", "show_status", is_flag=True, help="Say what there is.")
@common_options()
def reindex(
    model: str | None,
    do_switch: bool,
    allow_missing: float,
    pairs: Path | None,
    do_rollback: bool,
    do_finish: bool,
    show_status: bool,
    settings: Settings,
    as_json: bool,
) -> None:
    """Change a collection's model while it is searched and written to.

    Everything is embedded again from the originals into a second collection; ids, records and payloads stay. The same
    command again goes on where it ended, and brings over what has changed since. Then both are compared. --switch makes
    the last differences up while writers wait a moment, and turns the name over; searches never wait. Exit code 1:
    done, but some originals are gone: they are listed, and hinder a switch unless --allow-missing lets them.
    """
    if sum((do_switch, do_rollback, do_finish, show_status)) > 1:
        raise InvalidRequest("Only one of --switch, --rollback, --finish and --status can be done at a time.")
    from indexer.reindex import finish, statuses  # noqa: PLC0415  heavy
    from indexer.store import open_store  # noqa: PLC0415

    with open_store(settings) as store:
        if show_status:
            _print_statuses(statuses(store, settings.collection), as_json)
        elif do_finish:
            gone = finish(store, settings.collection)
            _say({"removed": gone}, f"Removed: {', '.join(gone) or 'nothing'}.", as_json)
        elif do_rollback:
            _roll_back(store, settings, allow_missing, as_json)
        else:
            _go_on(store, settings, model, pairs, allow_missing if do_switch else None, as_json)


def _go_on(
    store: Store, settings: Settings, model: str | None, pairs: Path | None, switch_at: float | None, as_json: bool
) -> None:
    from indexer.media.originals import Originals  # noqa: PLC0415
    from indexer.reindex import Carrier, prepare, switch  # noqa: PLC0415
    from indexer.reindex.moving import check_served, failures_file, write_failures  # noqa: PLC0415

    encoder = _encoder(store, settings, model)
    move = prepare(store, settings.collection, encoder)
    if switch_at is not None:
        check_served(settings, move.target)  # before the work, not after it
    originals = Originals.of(settings)
    carrier = Carrier(move.source, move.target, encoder, settings, originals)
    document: dict[str, Any] = {"collection": move.source.name, "from": move.source.model, "to": move.target.model}
    try:
        with stopped_by_ctrl_c() as stop:
            done = _fill(move, carrier, stop)
        document |= {"embedded": done.embedded, "rewritten": done.rewritten, "removed": done.removed}
        if not stop.is_set():
            document["comparison"] = _compared(move, encoder, settings, pairs)
            move.note(state="ready", comparison=document["comparison"])
            if switch_at is not None:
                last = switch(move, carrier, allow_missing=switch_at)
                document |= {"switched": True, "under_the_lock": last.changes}
    finally:
        originals.close()
        write_failures(failures_file(settings, move.target), carrier.failures)
        move.note(items=move.target.count(), missing=len(carrier.failures))
    document |= {"interrupted": stop.is_set(), "missing": len(carrier.failures)}
    document["failures"] = [{"id": each, **failure.as_dict()} for each, failure in carrier.failures.items()]
    if as_json:
        print_json(document)
    else:
        _print(document, failures_file(settings, move.target))
    if stop.is_set():
        sys.exit(EXIT_INTERRUPTED)
    if carrier.failures:
        sys.exit(EXIT_FAILURES)


def _encoder(store: Store, settings: Settings, model: str | None) -> Encoder:
    """The new model's; of what is prepared already when none is named."""
    from indexer.models.encoder import load_encoder, load_encoder_of  # noqa: PLC0415
    from indexer.reindex import find_move  # noqa: PLC0415

    settings = settings.model_copy(update={"threads": 1})  # the stages run as many side by side as there are cores
    if model is not None:
        return load_encoder(settings, model)
    target = find_move(store, settings.collection).target
    return load_encoder_of(settings, target.model, target.fingerprint)


def _fill(move: Move, carrier: Carrier, stop: threading.Event) -> Carried:
    """Passes until one of them changes little; gives the sum of what they did."""
    from indexer.reindex import Carried  # noqa: PLC0415
    from indexer.reindex.moving import inherit  # noqa: PLC0415

    total = Carried()
    with _progress(move.source.count()) as progress:
        for _ in range(_CATCH_UPS):
            inherit(move)
            last = carrier.carry(progress=progress, stop=stop)
            total.embedded += last.embedded
            total.rewritten += last.rewritten
            total.removed += last.removed
            move.note(items=move.target.count(), missing=len(carrier.failures))
            if stop.is_set() or last.changes <= last.compared // 1000:
                break
    return total


def _compared(move: Move, encoder: Encoder, settings: Settings, pairs: Path | None) -> dict[str, Any]:
    from indexer.models.encoder import load_encoder_of  # noqa: PLC0415
    from indexer.reindex.compare import compare, recall  # noqa: PLC0415

    comparison = compare(move.source, move.target)
    if pairs is not None:
        old = load_encoder_of(settings, move.source.model, move.source.fingerprint)
        comparison["old"]["recall"] = recall(pairs, move.source, old, settings)
        comparison["new"]["recall"] = recall(pairs, move.target, encoder, settings)
    return comparison


def _roll_back(store: Store, settings: Settings, allow_missing: float, as_json: bool) -> None:
    from indexer.media.originals import Originals  # noqa: PLC0415
    from indexer.models.encoder import load_encoder_of  # noqa: PLC0415
    from indexer.reindex import Carrier, roll_back  # noqa: PLC0415
    from indexer.reindex.moving import Move, failures_file, previous, read_failures  # noqa: PLC0415

    back = previous(store, settings.collection)
    threads = settings.model_copy(update={"threads": 1})
    encoder = load_encoder_of(threads, back.target.model, back.target.fingerprint)
    # What could not be brought over then is in the old collection alone; it must not be taken for removed since.
    path = failures_file(settings, back.source)
    known = path.exists() or not Move(store, back.target, back.source).state.get("missing")
    keep = frozenset(each["id"] for each in read_failures(path)) if known else None
    originals = Originals.of(settings)
    try:
        carrier = Carrier(back.source, back.target, encoder, settings, originals, keep=keep)
        done = roll_back(back, carrier, allow_missing=allow_missing)
    finally:
        originals.close()
    document = {"collection": back.source.name, "model": back.target.model, "missing": len(carrier.failures)}
    _say(document, f"{back.source.name} is {back.target.model}'s again; {done.compared} items compared.", as_json)


def _say(document: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(sentence, err=True)


def _print(document: dict[str, Any], listed: Path) -> None:
    counts = f"{document['embedded']} embedded, {document['rewritten']} rewritten, {document['removed']} removed"
    click.echo(f"{document['collection']}, from {document['from']} to {document['to']}: {counts}.", err=True)
    for failure in document["failures"][:_SHOWN]:
        click.echo(f"  {failure['code']:<16} {printable(failure['source'])}", err=True)
    if document["missing"]:
        click.echo(f"{document['missing']} items are missing; all are listed in {listed}.", err=True)
    if comparison := document.get("comparison"):
        old, new = comparison["old"], comparison["new"]
        click.echo(
            f"Items: {old['count']} and {new['count']}. ms a search: {old['search_ms']} and {new['search_ms']}.",
            err=True,
        )
        click.echo(
            f"Of the nearest ten of {comparison['sample']} items both have {comparison['overlap_at_10']}.", err=True
        )
        for which in (old, new):
            for direction, metrics in which.get("recall", {}).items():
                found = ", ".join(f"{name} {value['value']:.3f}" for name, value in metrics.items())
                click.echo(f"{which['model']}, {direction}: {found}", err=True)
    if document["interrupted"]:
        click.echo("Interrupted; the same command goes on from here.", err=True)
    elif document.get("switched"):
        click.echo("Switched. Next: crosslens reindex --finish removes the old one, --rollback goes back.", err=True)
    else:
        click.echo("Next: the same with --switch.", err=True)


def _print_statuses(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"collections": found})
        return
    for each in found:
        move = each["move"] or {}
        state = "current" if each["current"] else move.get("state", "replaced")
        click.echo(f"{each['physical']}  {each['model']} ({each['fingerprint']})  {each['count']} items  {state}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Carried], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def show(done: Carried) -> None:
            bar.update(task, description=f"{done.embedded} embedded", completed=done.compared)

        yield show
