"""What each route needs of a key. A route that is not here keeps the app from starting.

The table is by method and rule, as `app.url_map` has them; HEAD is as GET, and OPTIONS needs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from flask import Flask
from werkzeug.routing import Rule

from search_api.access.keys import Role


class Scope(Enum):
    """What of the request has to be within the key's collections."""

    NOTHING = "nothing"
    COLLECTION = "collection"
    """The collection in the path, `<name>`."""
    JOB = "job"
    """The collection of the job in the path, `<job_id>`; that of another is not found."""
    LISTED = "listed"
    """What the answer lists: the rest is left out."""
    EVERYTHING = "everything"
    """The key must be for all collections."""


class Body(Enum):
    """What of the body counts against a key's quotas."""

    UPLOAD = "upload"
    """Its bytes, and the items in it."""
    SOURCES = "sources"
    """The sources in it. Only a key for all collections may name others than http(s) URLs: workers read folders and
    stores with the server's rights, among them what other tenants uploaded."""


@dataclass(frozen=True)
class Need:
    """What a route needs."""

    role: Role
    scope: Scope = Scope.NOTHING
    without_key: Literal["nobody", "local", "anybody"] = "nobody"
    """Who is answered without a key: nobody, this machine, anybody."""
    body: Body | None = None
    readiness: bool = False
    """It says whether the server can answer; without a key, and from elsewhere, not why; and not without the keys."""
    listed: tuple[str, str] = ("", "")
    """With `Scope.LISTED`: the answer's member that lists, and which member of each one names its collection."""


READ, WRITE, MODERATE, ADMIN = Role.READ, Role.WRITE, Role.MODERATE, Role.ADMIN

NEEDS: Mapping[str, Need] = {
    "GET /healthz": Need(READ, without_key="anybody"),
    "GET /readyz": Need(READ, without_key="anybody", readiness=True),
    # Who may without a key is a setting.
    "GET /metrics": Need(READ, Scope.EVERYTHING),
    "GET /openapi.json": Need(READ, without_key="anybody"),
    "GET /docs": Need(READ, without_key="anybody"),
    # The page and its modules hold no data: what they show they ask for, with a key where one is demanded.
    "GET /": Need(READ, without_key="anybody"),
    "GET /static/<asset>": Need(READ, without_key="anybody"),
    "GET /v1/collections": Need(READ, Scope.LISTED, listed=("collections", "name")),
    "GET /v1/collections/<name>": Need(READ, Scope.COLLECTION),
    "PUT /v1/collections/<name>": Need(WRITE, Scope.COLLECTION),
    "DELETE /v1/collections/<name>": Need(ADMIN, Scope.COLLECTION),
    "POST /v1/collections/<name>/items": Need(WRITE, Scope.COLLECTION, body=Body.UPLOAD),
    "GET /v1/collections/<name>/items/<item>": Need(READ, Scope.COLLECTION),
    "PATCH /v1/collections/<name>/items/<item>": Need(WRITE, Scope.COLLECTION),
    "DELETE /v1/collections/<name>/items/<item>": Need(WRITE, Scope.COLLECTION),
    "GET /v1/collections/<name>/items/<item>/media": Need(READ, Scope.COLLECTION),
    "GET /v1/collections/<name>/items/<item>/thumbnail": Need(READ, Scope.COLLECTION),
    "POST /v1/collections/<name>/search": Need(READ, Scope.COLLECTION),
    "POST /v1/collections/<name>/search/batch": Need(READ, Scope.COLLECTION),
    "POST /v1/collections/<name>/facets": Need(READ, Scope.COLLECTION),
    "POST /v1/collections/<name>/duplicates": Need(READ, Scope.COLLECTION),
    "POST /v1/collections/<name>/classify": Need(READ, Scope.COLLECTION),
    "GET /v1/collections/<name>/labels": Need(READ, Scope.COLLECTION),
    "GET /v1/collections/<name>/labels/<label_set_name>": Need(READ, Scope.COLLECTION),
    "PUT /v1/collections/<name>/labels/<label_set_name>": Need(WRITE, Scope.COLLECTION),
    "DELETE /v1/collections/<name>/labels/<label_set_name>": Need(WRITE, Scope.COLLECTION),
    "POST /v1/collections/<name>/labels/<label_set_name>/apply": Need(WRITE, Scope.COLLECTION),
    "POST /v1/collections/<name>/ingest": Need(WRITE, Scope.COLLECTION, body=Body.SOURCES),
    "GET /v1/policies": Need(READ),
    "GET /v1/policies/<policy_name>": Need(READ),
    # With read alone, nobody learns of a policy in force how to slip past it.
    "GET /v1/collections/<name>/policy": Need(MODERATE, Scope.COLLECTION),
    "PUT /v1/collections/<name>/policy": Need(MODERATE, Scope.COLLECTION),
    "DELETE /v1/collections/<name>/policy": Need(MODERATE, Scope.COLLECTION),
    "GET /v1/collections/<name>/policies": Need(MODERATE, Scope.COLLECTION),
    "GET /v1/collections/<name>/policies/<policy_number>": Need(MODERATE, Scope.COLLECTION),
    "POST /v1/collections/<name>/policies/<policy_number>/restore": Need(MODERATE, Scope.COLLECTION),
    "POST /v1/collections/<name>/moderation/dry-run": Need(MODERATE, Scope.COLLECTION),
    "POST /v1/collections/<name>/moderation/rescan": Need(MODERATE, Scope.COLLECTION),
    "GET /v1/collections/<name>/moderation/review": Need(MODERATE, Scope.COLLECTION),
    "POST /v1/collections/<name>/moderation/review": Need(MODERATE, Scope.COLLECTION),
    "POST /v1/collections/<name>/moderation/undo": Need(MODERATE, Scope.COLLECTION),
    "GET /v1/collections/<name>/moderation/trail": Need(MODERATE, Scope.COLLECTION),
    "POST /v1/collections/<name>/moderation/fit": Need(MODERATE, Scope.COLLECTION),
    # Of an item that they see.
    "POST /v1/collections/<name>/items/<item>/appeal": Need(READ, Scope.COLLECTION),
    "GET /v1/collections/<name>/hash-lists": Need(MODERATE, Scope.COLLECTION),
    "GET /v1/collections/<name>/hash-lists/<list_name>": Need(MODERATE, Scope.COLLECTION),
    "PUT /v1/collections/<name>/hash-lists/<list_name>": Need(MODERATE, Scope.COLLECTION),
    "DELETE /v1/collections/<name>/hash-lists/<list_name>": Need(MODERATE, Scope.COLLECTION),
    # The collection that its body may name is looked at by the route.
    "POST /v1/moderate": Need(MODERATE),
    "GET /v1/jobs": Need(READ, Scope.LISTED, listed=("jobs", "collection")),
    "GET /v1/jobs/<job_id>": Need(READ, Scope.JOB),
    "GET /v1/jobs/<job_id>/failures": Need(READ, Scope.JOB),
    "GET /v1/jobs/<job_id>/events": Need(READ, Scope.JOB),
    "POST /v1/jobs/<job_id>/retry": Need(WRITE, Scope.JOB),
    "POST /v1/jobs/<job_id>/cancel": Need(WRITE, Scope.JOB),
    # A key for some collections that could make keys could make itself one for all.
    "GET /v1/keys": Need(ADMIN, Scope.EVERYTHING),
    "GET /v1/key": Need(READ),
    "POST /v1/keys": Need(ADMIN, Scope.EVERYTHING),
    "DELETE /v1/keys/<key_id>": Need(ADMIN, Scope.EVERYTHING),
    "GET /v1/audit": Need(ADMIN, Scope.EVERYTHING),
}


class UndeclaredRoute(RuntimeError):
    """A route without a row in `NEEDS`: a defect, found before anybody is served."""


def routes(app: Flask) -> list[str]:
    """Every route of an app, as the table names it."""
    return sorted(
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )


def check_routes(app: Flask, needs: Mapping[str, Need] = NEEDS) -> None:
    """Hold every route of an app against the table.

    Raises:
        UndeclaredRoute: nobody said what one of them needs, or its rule lacks what its scope looks at.
    """
    places = {Scope.COLLECTION: "<name>", Scope.JOB: "<job_id>"}
    for route in routes(app):
        if route not in needs:
            raise UndeclaredRoute(f"search_api/access/needs.py does not say what `{route}` needs.")
        place = places.get(needs[route].scope, "")
        if place not in route:
            raise UndeclaredRoute(f"`{route}` has no {place}, by which search_api/access/needs.py scopes it.")


def need_of(rule: Rule | None, method: str, needs: Mapping[str, Need] = NEEDS) -> Need | None:
    """What a request needs; None for a preflight and for what no route answers."""
    if rule is None or method == "OPTIONS":
        return None
    return needs[f"{'GET' if method == 'HEAD' else method} {rule.rule}"]
