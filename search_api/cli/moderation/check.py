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
_SENT_AT_ONCE = 8
"""Things in a request; each may be a large picture."""
_LONGEST = 60
"""Characters of a text in the table."""


@click.command()
@click.argument("things", metavar="PATH|URL|TEXT...", nargs=-1, required=True)
@click.option("--policy", "named", metavar="FILE|NAME", help="Judge by this policy.  [the collection's]")
@click.option("--url", envvar="CROSSLENS_URL", help="Ask this server instead of the data folder.")
@click.option("--key", envvar="CROSSLENS_KEY", help="The key that the server asks for.")
@common_options()
def check(
    things: tuple[str, ...], named: str | None, url: str | None, key: str | None, settings: Settings, as_json: bool
) -> None:
    """Judge pictures and texts as if they were uploaded, and store nothing.

    What is a file is read, what begins with http:// or https:// is fetched, and anything else is a text. Without
    --policy, the collection's judges, or the starting policies together where it has none.

    \b
    crosslens moderate check photo.jpg "a text" --policy neutral
    """
    judged = _judged_there(things, named, url, key, settings) if url else _judged_here(things, named, settings)
    results = judged["results"]
    failed = sum("error" in each for each in results)
    if as_json:
        print_json({**judged, "failed": failed})
    else:
        print_rows(("what", "action", "categories"), [_row(each) for each in results])
    if failed:
        raise click.exceptions.Exit(EXIT_FAILURES)


def _judged_here(things: Sequence[str], named: str | None, settings: Settings) -> dict[str, Any]:
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
    return {"results": results, "policy": policy.name, "version": policy.version}


def _judged_there(
    things: Sequence[str], named: str | None, url: str, key: str | None, settings: Settings
) -> dict[str, Any]:
    """By a server: with its policies and its model; files are read here.

    Raises:
        ApiError: the server refuses, or does not answer.
    """
    from indexer.flow import batched  # noqa: PLC0415
    from search_api.client import Crosslens  # noqa: PLC0415

    chosen = "collection" in settings.model_fields_set
    given: dict[str, Any] = {"collection": settings.collection if chosen else None}
    if named is not None:
        given["policy"] = named if not Path(named).is_file() else policy_named(named).model_dump(mode="json")
    judged: dict[str, Any] = {"results": []}
    with Crosslens(url, key) as client:
        for some in batched(things, _SENT_AT_ONCE):
            read: list[str | bytes | MediaError] = [_content(thing, settings.max_bytes) for thing in some]
            sent = [
                {"text": content} if isinstance(content, str) and not _is_url(content) else {"image": content}
                for content in read
                if not isinstance(content, MediaError)
            ]
            answer = client.moderate(sent, **given).model_dump(mode="json", exclude_unset=True) if sent else {}
            told = iter(answer.get("results", ()))
            for thing, content in zip(some, read, strict=True):
                judged["results"].append(
                    _told(thing, content) if isinstance(content, MediaError) else _as_here(thing, next(told))
                )
            judged |= {name: answer[name] for name in ("policy", "version") if name in answer}
    return judged


def _as_here(thing: str, told: dict[str, Any]) -> dict[str, Any]:
    """What a server says of a thing, as this machine would say it."""
    if "error" in told:
        return {"what": thing, "error": told["error"]}
    categories = {
        each["name"]: {"probability": each["probability"], "fired": each["fired"]} for each in told["categories"]
    }
    return {"what": thing, **told, "categories": categories}


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
    read: list[Thing] = [_content(each, services.settings.max_bytes) for each in things]
    urls = {row: each for row, each in enumerate(things) if _is_url(each)}
    for row, content in zip(urls, services.fetch_all(list(urls.values())) if urls else (), strict=True):
        read[row] = content
    return read


def _content(thing: str, max_bytes: int) -> str | bytes | MediaError:
    """A file's content, or why it cannot be read; texts and URLs as they are."""
    from indexer.media.decode import read_file  # noqa: PLC0415

    if _is_url(thing) or not _is_path(thing):
        return thing
    try:
        return read_file(Path(thing), max_bytes=max_bytes)
    except MediaError as error:
        return error


def _is_url(thing: str) -> bool:
    return thing.startswith(("http://", "https://"))


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
