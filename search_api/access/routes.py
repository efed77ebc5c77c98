"""`/v1/keys`, `/v1/key` and `/v1/audit`: make, see and revoke keys, and read what was done with them.

All of it is for admins, but that a key may be asked what it is for.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from indexer.errors import InvalidRequest
from search_api.access.audit import MOST_ENTRIES
from search_api.access.guard import guard
from search_api.access.keys import Allowance, Collections, Name, Roles, new_key, parse_expiry, parse_moment
from search_api.bodies import json_body, validated

blueprint = Blueprint("access", __name__, url_prefix="/v1")


class NewKey(BaseModel):
    """The body of POST keys."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    roles: Roles
    collections: Collections = ()
    """Names, or beginnings of names with a `*`; none: all collections."""
    expires: Annotated[str, Field(max_length=64)] | None = None
    """When: RFC 3339, or a span such as `90d`; never when unset."""
    limits: Allowance = Allowance()


@blueprint.get("/keys")
def list_keys() -> Response:
    """Every key, the oldest first, without secrets."""
    book = guard().book
    keys = sorted(book.keys(age=0).values(), key=lambda key: key.created)
    return jsonify({"keys": [key.as_dict(book.now()) for key in keys]})


@blueprint.post("/keys")
def create_key() -> tuple[Response, int, dict[str, str]]:
    """Make a key: 201. The member `key` is the key itself, which is shown this once."""
    body = validated(NewKey, json_body())
    book = guard().book
    now = book.now()
    key, token = new_key(
        body.name, body.roles, now=now, collections=body.collections, expires=parse_expiry(body.expires, now=now),
        allowance=body.limits,
    )  # fmt: skip
    book.store.add(key)
    book.changed()
    return jsonify({"key": str(token), **key.as_dict(now)}), 201, {"Location": f"/v1/keys/{key.id}"}


@blueprint.get("/key")
def read_own_key() -> Response:
    """The key that this request came with, without its secret; where none is demanded, what this machine may do."""
    return jsonify(g.key.as_dict(guard().book.now()))


@blueprint.delete("/keys/<key_id>")
def revoke_key(key_id: str) -> tuple[str, int]:
    """Revoke a key: at once here, in other processes within two seconds. It stays in the list."""
    book = guard().book
    now = book.now()
    book.store.change(key_id, lambda key: key.revoke(now))
    book.changed()
    return "", 204


@blueprint.get("/audit")
def read_audit() -> Response:
    """Changes and refusals, newest first: `from` (included) and `to` (not included) are times, `key` is a key's id.

    `next` is the `to` that gives what is older; null when there is nothing more.
    """
    asked = request.args
    now = guard().book.now()
    since, to = (_moment(asked.get(name), now) for name in ("from", "to"))
    limit = asked.get("limit", "100")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= MOST_ENTRIES:
        raise InvalidRequest(f"limit: {limit[:40]!r} is no number from 1 to {MOST_ENTRIES}.", field="limit")
    page = guard().audit.read(since=since, to=to, key=asked.get("key"), limit=int(limit))
    return jsonify({"entries": page.entries, "next": page.next})


def _moment(text: str | None, now: datetime) -> datetime | None:
    return None if text is None else parse_moment(text.replace(" ", "+"), now=now, ahead=False)
