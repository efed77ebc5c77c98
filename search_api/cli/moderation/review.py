"""`crosslens moderate review`, `decide`, `undo` and `trail`: what waits for people, and what they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import EXIT_FAILURES, common_options, print_json, printable
from indexer.errors import UsageError
from search_api.cli.moderation.opened import opened, print_rows, who_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer.moderation.review.state import Decision
    from indexer.moderation.trail import Entry
    from indexer.settings import Settings

_note_option = click.option("--note", default="", help="Why, for the trail.")


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many.")
@click.option("--after", metavar="CURSOR", help="Go on from here: `next` of the JSON before.")
@common_options()
def review(limit: int, after: str | None, settings: Settings, as_json: bool) -> None:
    """List what waits for a person, the most pressing first.

    \b
    crosslens moderate review --limit 10
    """
    from indexer.moderation.review.desk import Desk  # noqa: PLC0415
    from indexer.moderation.review.state import fired  # noqa: PLC0415

    with opened(settings) as (_, collection):
        waiting, following = Desk(collection, settings).waiting(limit=limit, after=after)
    found: list[dict[str, Any]] = [
        {
            "id": each.item.record.name or each.item.id,
            "kind": each.item.record.kind,
            "source": each.item.record.locations[0].source if each.item.record.locations else "",
            "why": each.why,
            "distance": round(each.distance, 3),
            "shown": each.reach,
            "number": each.review.number,
            "verdict": each.item.record.verdict,
            "payload": each.item.payload,
        }
        for each in waiting
    ]
    if as_json:
        print_json({"items": found, "next": following})
        return
    rows = [
        (
            each["id"],
            each["why"],
            f"{each['distance']:.2f}",
            str(each["shown"]),
            ", ".join(fired(each["verdict"] or {})),
            each["source"],
        )
        for each in found
    ]
    print_rows(("item", "why", "distance", "shown", "categories", "source"), rows)
    if following is not None:
        click.echo(f"There are more: crosslens moderate review --after {following}", err=True)


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.argument("what", type=click.Choice(["approve", "reject", "recategorise", "withdraw"]))
@click.option("--category", "categories", multiple=True, help="It is of this category; may be repeated.")
@click.option("--none", "of_none", is_flag=True, help="With recategorise: it is of no category.")
@click.option("--action", type=click.Choice(["quarantine", "block"]), help="Of what is rejected.  [block]")
@click.option("--over", is_flag=True, help="Also over what others decided.")
@_note_option
@who_option
@common_options()
def decide(
    ids: tuple[str, ...], what: str, categories: tuple[str, ...], of_none: bool, action: str | None, over: bool,
    note: str, who: str, settings: Settings, as_json: bool,
) -> None:  # fmt: skip
    """Decide on items, all or none: they are as decided until that is withdrawn.

    \b
    crosslens moderate decide photo-1 photo-2 reject --category animals --note "a real cat"
    """
    if of_none and categories:
        raise click.UsageError("--none and --category contradict each other.")
    from indexer.items import point_id  # noqa: PLC0415
    from indexer.moderation.review.desk import Desk  # noqa: PLC0415
    from indexer.moderation.review.state import review_of  # noqa: PLC0415

    decision = _decision({"what": what, "action": action, "categories": categories if categories or of_none else None})
    with opened(settings) as (services, collection):
        wanted = [point_id(collection.name, each) for each in ids]
        seen = None
        if over:
            items = collection.get_many(wanted).values()
            seen = {item.id: review_of(item.record.verdict).number for item in items}
        entries = Desk(collection, settings).decide(wanted, decision, who=who, note=note, seen=seen)
        if what == "withdraw":  # an earlier policy may have found what the one in force agrees with
            services.judge_again(collection.name, wanted)
    _print_entries(entries, as_json=as_json)


def _decision(given: dict[str, Any]) -> Decision:
    from pydantic import ValidationError  # noqa: PLC0415

    from indexer.moderation.review.state import Decision  # noqa: PLC0415

    try:
        return Decision.model_validate(given)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{said}.", remedy="See crosslens moderate decide --help.") from error


@click.command()
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True, type=click.IntRange(min=1))
@_note_option
@who_option
@common_options()
def undo(numbers: tuple[int, ...], note: str, who: str, settings: Settings, as_json: bool) -> None:
    """Undo decisions, by the numbers that the trail and `decide` give, all or none.

    \b
    crosslens moderate undo 17 18
    """
    from indexer.moderation.review.desk import Desk  # noqa: PLC0415

    with opened(settings) as (_, collection):
        entries = Desk(collection, settings).undo(numbers, who=who, note=note)
    _print_entries(entries, as_json=as_json)


@click.command()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for a spreadsheet.")
@click.option("--by", help="Only what this person did.")
@click.option("--item", help="Only what was done with this item.")
@click.option("--check", is_flag=True, help="Say whether any entry was altered or is missing, and print none.")
@common_options()
def trail(as_csv: bool, by: str | None, item: str | None, check: bool, settings: Settings, as_json: bool) -> None:
    """Print the audit trail, the oldest entry first: JSON lines, each with the hash of the one before.

    \b
    crosslens moderate trail --csv > trail.csv
    crosslens moderate trail --check
    """
    from indexer.items import point_id  # noqa: PLC0415
    from indexer.moderation.trail import Trail  # noqa: PLC0415
    from indexer.moderation.trail_export import export  # noqa: PLC0415

    kept = Trail(settings.data, settings.collection)
    if check:
        fault = kept.check()
        if as_json:
            print_json({"head": vars(kept.head), "fault": vars(fault) if fault else None})
        else:
            click.echo(f"Entry {fault.number}: {printable(fault.problem)}" if fault else "All is as it was written.")
        if fault:
            raise click.exceptions.Exit(EXIT_FAILURES)
        return
    entries = kept.entries(who=by, item=None if item is None else point_id(settings.collection, item))
    if as_json:
        print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
        return
    for piece in export(entries, "csv" if as_csv else "jsonl"):
        click.echo(piece, nl=False)


def _print_entries(entries: Sequence[Entry], *, as_json: bool) -> None:
    if as_json:
        print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
        return
    rows = [
        (str(entry.number), entry.what, str(entry.item), str((entry.before or {}).get("action")),
         str((entry.after or {}).get("action")))
        for entry in entries
    ]  # fmt: skip
    print_rows(("number", "what", "item", "before", "after"), rows)
