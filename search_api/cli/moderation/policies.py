"""`crosslens moderate policies` and `policy`: the policies that ship, and the one that is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from indexer.cli.options import EXIT_REFUSED, common_options, print_json, printable
from indexer.errors import PolicyInvalid, UsageError
from search_api.cli.moderation.opened import no_policy, opened, policy_named, print_rows, who_option, yaml_of

if TYPE_CHECKING:
    from indexer.moderation.stored import Reviewers, StoredPolicy
    from indexer.settings import Settings
    from indexer.store.collection import Collection


@click.group(invoke_without_command=True)
@common_options(collection=False)
@click.pass_context
def policies(context: click.Context, settings: Settings, as_json: bool) -> None:  # noqa: ARG001  as every command has it
    """List the policies that ship.

    \b
    crosslens moderate policies
    crosslens moderate policies show neutral > policy.yaml
    """
    if context.invoked_subcommand is not None:
        return
    from indexer.moderation.starting import starting_policies, starting_policy  # noqa: PLC0415

    found = [starting_policy(name) for name in starting_policies()]
    if as_json:
        about = [
            {
                "name": each.name,
                "version": each.version,
                "description": each.description,
                "categories": [category.name for category in each.categories],
                "hash_lists": each.lists,
                "classifiers": each.models,
            }
            for each in found
        ]
        print_json({"policies": about})
        return
    rows = [(each.name, ", ".join(category.name for category in each.categories), each.description) for each in found]
    print_rows(("policy", "categories", "about"), rows)


@policies.command(name="show")
@click.argument("name")
@common_options(collection=False)
def show_starting(name: str, settings: Settings, as_json: bool) -> None:  # noqa: ARG001  as every command has it
    """Show one of them, as a file to copy and change.

    \b
    crosslens moderate policies show neutral > policy.yaml
    """
    from indexer.moderation.starting import policy_text, starting_policy  # noqa: PLC0415

    text = policy_text(name)
    if as_json:
        print_json({"text": text, "policy": starting_policy(name).model_dump(mode="json", exclude_defaults=True)})
    else:
        click.echo(text, nl=False)


@click.group()
def policy() -> None:
    """The policy that is in force in a collection.

    \b
    crosslens moderate policy set policy.yaml --reviewers 2
    """


@policy.command()
@common_options()
def show(settings: Settings, as_json: bool) -> None:
    """Show the policy in force, as a file.

    \b
    crosslens moderate policy show > policy.yaml
    """
    from indexer.moderation.stored import policy_of  # noqa: PLC0415

    with opened(settings) as (_, collection):
        stored = policy_of(collection)
        if stored is None:
            raise no_policy(collection)
    if as_json:
        print_json(stored.as_dict())
        return
    click.echo(
        f"# Number {stored.number}, version {stored.policy.version}, since {printable(stored.at)}, by "
        f"{printable(stored.by)}; {stored.reviewers} {'reviewer' if stored.reviewers == 1 else 'reviewers'}, queries "
        f"{'judged' if stored.queries else 'not judged'}."
    )
    click.echo(yaml_of(stored.policy), nl=False)


@policy.command(name="set")
@click.argument("given", metavar="FILE|NAME")
@click.option("--reviewers", type=click.Choice(["1", "2"]), help="How many people have to decide the same.")
@click.option("--queries/--no-queries", default=None, help="Judge what visitors search with, too.")
@who_option
@common_options()
def set_policy(
    given: str, reviewers: str | None, queries: bool | None, who: str, settings: Settings, as_json: bool
) -> None:
    """Put a policy in force: a file, or one that ships.

    One with mistakes is refused, with the line of each, and the one in force stays. What is stored is judged by a
    rescan, and is not shown before it was judged once.

    \b
    crosslens moderate policy set neutral && crosslens moderate rescan
    """
    from indexer.moderation.opening import open_policy  # noqa: PLC0415
    from indexer.moderation.stored import policy_of, put_policy  # noqa: PLC0415

    try:
        wanted = policy_named(given)
    except PolicyInvalid as error:
        if as_json or not error.details.get("mistakes"):
            raise
        for each in error.details["mistakes"]:
            where = f"{given}:{each['line']}:{each['column']}"
            said = f"{each['where'] or 'the file'} {each['problem']}. {each['remedy']}"
            click.echo(f"{printable(where)}: {printable(said)}", err=True)
        click.echo("The policy in force stays.", err=True)
        raise click.exceptions.Exit(EXIT_REFUSED) from error
    with opened(settings) as (services, collection):
        open_policy(wanted, services.encoders.of(collection), settings, collection)
        before = policy_of(collection)
        count = int(reviewers) if reviewers else before.reviewers if before else 1
        after = put_policy(
            services.store, collection, wanted, by=who, reviewers=cast("Reviewers", count),
            queries=queries if queries is not None else before is not None and before.queries,
        )  # fmt: skip
        if after != before:
            _note(settings, collection, who, before, after)
    if as_json:
        print_json(after.as_dict())
        return
    click.echo(f"In force: {printable(wanted.name)}, number {after.number}, version {wanted.version}.")
    if before is None or before.policy.version != wanted.version:
        click.echo("Next: crosslens moderate rescan", err=True)


@policy.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@who_option
@common_options()
def drop(yes: bool, who: str, settings: Settings, as_json: bool) -> None:
    """Put no policy in force: everything is shown. Verdicts stay with their items.

    \b
    crosslens moderate policy drop --yes
    """
    from indexer.moderation.stored import drop_policy, policy_of  # noqa: PLC0415

    with opened(settings) as (services, collection):
        before = policy_of(collection)
        if before is None:
            raise no_policy(collection)
        if not (yes or _is_sure(f"Show everything in {printable(collection.name)}, whatever its verdict?")):
            raise UsageError("The policy stays in force.", remedy="Answer y, or give --yes.")
        drop_policy(services.store, collection)
        _note(settings, collection, who, before, None)
    if as_json:
        print_json({"dropped": before.number})
    else:
        click.echo(f"No policy is in force in {printable(collection.name)}.")


def _note(
    settings: Settings, collection: Collection, who: str, before: StoredPolicy | None, after: StoredPolicy | None
) -> None:
    from indexer.moderation.trail import Draft, Trail, What  # noqa: PLC0415

    about = [stored.about() if stored else None for stored in (before, after)]
    Trail(settings.data, collection.name).append([Draft(who, What.POLICY, before=about[0], after=about[1])])


def _is_sure(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # nobody is there to answer
        click.echo(err=True)
        return False
