"""`crosslens moderate check`: what a policy would do with files, URLs and texts, without storing them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import EXIT_FAILURES, common_options, print_json
from indexer.errors import CrosslensError, MediaError, UsageError
from search_api.cli.moderation.opened import opened_if_there, policy_named, print_rows

if TYPE_CHECKING:
    from indexer.moderation.judging import ItemJudge
    from indexer.settings import Settings
    from indexer.store.collection import Collection
    from search_api.batched import BatchedEncoder
    from search_api.moderation.loose import Thing
    from search_api.services import Services

_AT_ONCE = 64
_LONGEST = 60
"""Characters of a text in the table."""


@click.command()
@click.argument("things", metavar="PATH|URL|TEXT...", nargs=-1, required=True)
@click.option("--policy", "named", metavar="FILE|NAME", help="Judge by this policy.  [the collection's]")
@common_options()
def check(things: tuple[str, ...], named: str | None, settings: Settings, as_json: bool) -> None:
    """Judge pictures and texts as if they were uploaded, and store nothing.

    What is a file is read, what begins with http:// or https:// is fetched, and anything else is a text. Without
    --policy, the collection's judges, or the starting policies together where it has none.

    \b
    crosslens moderate check photo.jpg "a text" --policy neutral
    """
    from indexer.flow import batched  # noqa: PLC0415
    from search_api.moderation.loose import judge_loose  # noqa: PLC0415

    with opened_if_there(settings) as (services, collection):
        judge, encoder = _judge(named, services, collection)
        found: list[dict[str, Any] | CrosslensError] = []
        for some in batched(things, _AT_ONCE):
            read = _read(some, services)
            found += judge_loose(read, judge, encoder, max_pixels=settings.max_pixels)
    policy = judge.stored.policy
    results = [_told(thing, each) for thing, each in zip(things, found, strict=True)]
    failed = sum("error" in each for each in results)
    if as_json:
        print_json({"results": results, "policy": policy.name, "version": policy.version, "failed": failed})
    else:
        print_rows(("what", "action", "categories"), [_row(each) for each in results])
    if failed:
        raise click.exceptions.Exit(EXIT_FAILURES)


def _judge(named: str | None, services: Services, collection: Collection | None) -> tuple[ItemJudge, BatchedEncoder]:
    from indexer.items import now  # noqa: PLC0415
    from indexer.moderation.judging import ItemJudge  # noqa: PLC0415
    from indexer.moderation.opening import open_policy  # noqa: PLC0415
    from indexer.moderation.starting import joined, starting_policies, starting_policy  # noqa: PLC0415
    from indexer.moderation.stored import StoredPolicy, policy_of  # noqa: PLC0415
    from search_api.moderation.moderate import EXAMPLES  # noqa: PLC0415

    encoder = services.encoders.of(collection) if collection else services.encoders.named(services.settings.model)
    stored = policy_of(collection) if collection is not None and named is None else None
    if stored is None:
        names = [each for each in starting_policies() if each not in EXAMPLES and not starting_policy(each).lists]
        policy = policy_named(named) if named is not None else joined("starting", names)
        stored = StoredPolicy(policy, 0, now().isoformat(), "nobody")
    judge, classifiers = open_policy(stored.policy, encoder, services.settings, collection)
    return ItemJudge(stored, judge, classifiers), encoder


def _read(things: Sequence[str], services: Services) -> list[Thing]:
    """What is behind each; files and URLs that cannot be had are errors."""
    from indexer.media.decode import read_file  # noqa: PLC0415

    read: list[Thing] = list(things)
    urls = {row: each for row, each in enumerate(things) if each.startswith(("http://", "https://"))}
    for row, content in zip(urls, services.fetch_all(list(urls.values())) if urls else (), strict=True):
        read[row] = content
    for row, each in enumerate(things):
        if row in urls or not _is_path(each):
            continue
        try:
            read[row] = read_file(Path(each), max_bytes=services.settings.max_bytes)
        except MediaError as error:
            read[row] = error
    return read


def _is_path(text: str) -> bool:
    """Whether it is a file.

    Raises:
        UsageError: it is none, and looks like the path of one.
    """
    try:
        if Path(text).is_file():
            return True
    except (OSError, ValueError):  # longer than any path, or with a zero byte
        return False
    if len(text.split()) == 1 and os.sep in text:
        raise UsageError(f"There is no file {text[:200]!r}.", remedy="Check the path; a text has more than one word.")
    return False


def _told(thing: str, found: dict[str, Any] | CrosslensError) -> dict[str, Any]:
    if isinstance(found, CrosslensError):
        return {"what": thing, "error": found.as_dict()}
    told = {"what": thing, "action": found["action"], "categories": found["categories"]}
    return told if found.get("reason") is None else {**told, "reason": found["reason"]}


def _row(result: dict[str, Any]) -> tuple[str, str, str]:
    what = result["what"] if len(result["what"]) <= _LONGEST else f"{result['what'][:_LONGEST]}..."
    if "error" in result:
        return what, "failed", result["error"]["message"]
    ordered = sorted(result["categories"].items(), key=lambda pair: -pair[1]["probability"])
    said = ", ".join(f"{name} {each['probability']:.2f}{'*' * each['fired']}" for name, each in ordered)
    return what, result["action"], result.get("reason") or said
