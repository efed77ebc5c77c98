"""What the resources of moderation read from requests alike: policies as bodies, switches, and rescans they ask for."""

from __future__ import annotations

from typing import Any

from flask import request

from indexer.errors import BrokerUnavailable, InvalidRequest, PolicyInvalid, TooBusy
from indexer.moderation.documents import MOST_BYTES
from indexer.moderation.policy import Policy
from indexer.moderation.policy_file import parse_policy
from indexer.store.collection import Collection
from search_api.problems import WrongContentType
from search_api.services import services
from workers.judging import POLICY

YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
_NO_QUEUE = "There is no queue here: what is stored keeps its verdicts, and what has none stays hidden."


def policy_body() -> Policy:
    """The body as a policy, JSON or YAML by its content type.

    Raises:
        WrongContentType: it is neither.
        PolicyInvalid: with all of its mistakes, each with its line.
        RequestEntityTooLarge: it is larger than any policy.
    """
    request.max_content_length = MOST_BYTES
    if not request.is_json and request.mimetype not in YAML_TYPES:
        raise WrongContentType(
            f"The body is {request.mimetype or 'of no type'}, neither application/json nor application/yaml.",
            remedy="Send the policy as application/yaml or application/json.",
        )
    try:
        text = request.get_data(cache=False).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"The policy is not UTF-8 at byte {error.start}.", remedy="Send it in UTF-8.") from error
    return parse_policy(text, form="json" if request.is_json else "yaml")


def switch(name: str) -> bool | None:
    """A query parameter that is true or false; None where it is not given.

    Raises:
        InvalidRequest: it is something else.
    """
    given = request.args.get(name)
    if given not in {None, "true", "false"}:
        raise InvalidRequest(f"{name}: must be true or false.", field=name)
    return None if given is None else given == "true"


def number(name: str, default: int, least: int, most: int) -> int:
    """A query parameter that is a whole number within bounds.

    Raises:
        InvalidRequest: it is none.
    """
    given = request.args.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) <= 15) or not least <= int(given) <= most:
        raise InvalidRequest(f"{name}: must be a number from {least:,} to {most:,}.", field=name)
    return int(given)


def one_of(name: str, choices: tuple[str, ...]) -> str | None:
    """A query parameter that is one of some words; None where it is not given.

    Raises:
        InvalidRequest: it is something else.
    """
    given = request.args.get(name)
    if given is not None and given not in choices:
        raise InvalidRequest(f"{name}: must be one of {', '.join(choices)}.", field=name)
    return given


def asked_rescan(collection: Collection) -> dict[str, Any]:
    """`rescan` and `warnings` of an answer: the job that judges what is stored, or why there is none.

    What was changed stays changed where the queue is away: a rescan can be asked for later.
    """
    if not services().settings.has_queue:
        return {"rescan": None, "warnings": [_NO_QUEUE]}
    try:
        job = services().queue.submit(collection, [POLICY])
    except (BrokerUnavailable, TooBusy) as error:
        return {"rescan": None, "warnings": [f"No rescan was queued: {error.message} Ask for one later."]}
    return {"rescan": job.as_dict(), "warnings": []}
