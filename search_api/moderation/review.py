"""`/v1/collections/{c}/moderation`: what waits for people, what they decide, and the trail of it; and appeals."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast
from urllib.parse import quote

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from indexer.errors import ItemNotFound
from indexer.items import Kind, check_collection_name, now, point_id
from indexer.moderation.review.decisions import MOST_ITEMS
from indexer.moderation.review.desk import Desk
from indexer.moderation.review.state import Decision, review_of
from indexer.moderation.review.waiting import MOST, Waiting
from indexer.moderation.trail import LONGEST_NOTE, Entry, Trail
from indexer.moderation.trail_export import Format, export
from search_api.access.keys import parse_moment
from search_api.bodies import json_body, validated
from search_api.moderation.asking import number, one_of
from search_api.request import Text
from search_api.services import services
from search_api.views import seen

blueprint = Blueprint("review", __name__, url_prefix="/v1/collections/<name>")

PAGE = 50
LAST = 10**11 - 1
"""No trail has so many entries."""
_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv"}

ItemId = Annotated[Text, Field(min_length=1, max_length=512)]
Note = Annotated[Text, Field(max_length=LONGEST_NOTE)]
Number = Annotated[int, Field(ge=0, le=LAST)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewDecisions(_Body):
    """The body of POST review: the same decision on each of some items."""

    ids: Annotated[list[ItemId], Field(min_length=1, max_length=MOST_ITEMS)]
    decision: Decision
    note: Note = ""
    seen: Annotated[dict[ItemId, Number], Field(max_length=MOST_ITEMS)] = {}
    """The items' numbers as the queue had them: one that has another by now is a conflict."""


class Undoing(_Body):
    """The body of POST undo: numbers of entries of the trail."""

    numbers: Annotated[list[Annotated[int, Field(ge=1, le=LAST)]], Field(min_length=1, max_length=MOST_ITEMS)]
    note: Note = ""


class NewAppeal(_Body):
    """The body of POST appeal."""

    note: Note = ""


@blueprint.get("/moderation/review")
def review_queue(name: str) -> Response:
    """What waits for a person, the most pressing first: appeals, disputes, second opinions, and what is uncertain.

    What the caller has proposed something for is left out.
    """
    limit, after = number("limit", PAGE, 1, MOST), request.args.get("after")
    desk = _desk(name)
    waiting, following = desk.waiting(limit=limit, after=after, but_of=_who())
    items = [_described(each, name) for each in waiting]
    return jsonify({"items": items, "next": following, "reviewers": desk.stored.reviewers})


@blueprint.post("/moderation/review")
def decide(name: str) -> Response:
    """Decide on up to 1,000 items, all or none: approve, reject, recategorise, or withdraw what people decided.

    An entry of the trail is answered for each, in the order of the ids. What another person decided is a conflict
    unless `seen` has the item's number. With two reviewers, the first decision is a proposal.
    """
    body = validated(NewDecisions, json_body())
    ids = [point_id(name, each) for each in body.ids]
    known = {point_id(name, each): at for each, at in body.seen.items()}
    entries = _desk(name).decide(ids, body.decision, who=_who(), note=body.note, seen=known)
    if body.decision.what == "withdraw":  # an earlier policy may have found what the one in force agrees with
        services().judge_again(name, ids)
    return _entries(entries)


@blueprint.post("/moderation/undo")
def undo_decisions(name: str) -> Response:
    """Undo decisions, by the numbers of their entries, all or none. An undo can be undone.

    An item on which somebody decided since is a conflict.
    """
    body = validated(Undoing, json_body())
    return _entries(_desk(name).undo(body.numbers, who=_who(), note=body.note))


@blueprint.post("/items/<item>/appeal")
def appeal(name: str, item: str) -> tuple[Response, int]:
    """Ask for another look at an item that the caller sees: 201. It comes first in the reviewers' queue.

    One that is under appeal already is a conflict.
    """
    body = validated(NewAppeal, json_body({}))
    item_id = point_id(check_collection_name(name), item)
    if seen(name).get(item_id) is None:
        raise ItemNotFound(f"The collection {name!r} has no item {item!r}.")
    entry = _desk(name).appeal(item_id, who=_who(), note=body.note)
    return jsonify({"id": item, "at": entry.at}), 201


@blueprint.get("/moderation/trail")
def read_trail(name: str) -> Response:
    """The audit trail, the oldest entry first: JSON lines, each with the hash of the one before, or CSV.

    `from` (included) and `to` (not included) are times, `after` is an entry's number.
    """
    form = cast(Format, one_of("format", ("jsonl", "csv")) or "jsonl")
    since, to, after = _moment("from"), _moment("to"), number("after", 0, 0, LAST)
    who, item = request.args.get("who"), request.args.get("item")
    collection = services().collection(check_collection_name(name))
    entries = Trail(services().settings.data, collection.name).entries(
        since=since, to=to, who=who, item=None if item is None else point_id(name, item), after=after
    )
    response = Response(export(entries, form), mimetype=_TYPES[form])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}-trail.{form}"'
    return response


def _desk(name: str) -> Desk:
    return Desk(services().collection(check_collection_name(name)), services().settings)


def _who() -> str:
    """Who asks, as the trail has it: two keys of one name are two people."""
    return f"{g.key.name} ({g.key.id})"


def _entries(entries: list[Entry]) -> Response:
    told = [entry.model_dump(mode="json", exclude={"undoes"} if entry.undoes is None else None) for entry in entries]
    return jsonify({"entries": told})


def _described(waiting: Waiting, name: str) -> dict[str, Any]:
    record, item_id = waiting.item.record, waiting.item.record.name or waiting.item.id
    picture = f"/v1/collections/{name}/items/{quote(item_id, safe='')}/thumbnail?view=moderator"
    told = {
        "id": item_id,
        "kind": record.kind,
        "source": record.locations[0].source if record.locations else item_id,
        "payload": waiting.item.payload,
        "thumbnail": None if record.kind is Kind.TEXT else picture,
        "why": waiting.why,
        "distance": round(waiting.distance, 3),
        "shown": waiting.reach,
        "number": review_of(record.verdict).number,
        "verdict": record.verdict,
    }
    return told if record.text is None else {**told, "text": record.text}


def _moment(name: str) -> datetime | None:
    text = request.args.get(name)
    return None if text is None else parse_moment(text.replace(" ", "+"), now=now(), ahead=False)
