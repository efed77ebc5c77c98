"""`/v1/collections/{c}/hash-lists`: lists of hashes that policies name, in the forms that teams exchange them in."""

from __future__ import annotations

import re
import threading
from typing import Any, cast

from flask import Blueprint, Response, g, jsonify, request

from indexer.errors import InvalidRequest
from indexer.items import check_collection_name
from indexer.moderation.hash_lists import Kind, as_csv, as_json, read_hash_list
from indexer.moderation.lists import delete_hash_list, hash_list, hash_lists, put_hash_list
from indexer.moderation.stored import policy_of
from indexer.store.collection import Collection
from search_api.moderation.asking import asked_rescan, one_of, switch
from search_api.problems import WrongContentType
from search_api.services import services

blueprint = Blueprint("hash_lists", __name__, url_prefix="/v1/collections/<name>/hash-lists")

TYPES = ("text/csv", "text/plain", "application/json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_writing = threading.Lock()
"""Between reading a list that is added to and writing it."""


@blueprint.get("")
def list_hash_lists(name: str) -> Response:
    """The hash lists of a collection, by name."""
    return jsonify({"lists": [kept.as_dict() for kept in hash_lists(_collection(name)).values()]})


@blueprint.get("/<list_name>")
def get_hash_list(name: str, list_name: str) -> Response:
    """A list's hashes: CSV with the header `hash,type`, or JSON as ThreatExchange has it."""
    form = one_of("format", ("csv", "json")) or "csv"
    collection = _collection(name)
    hashes = hash_list(collection, list_name, services().settings)
    text, mimetype = (as_csv(hashes), "text/csv") if form == "csv" else (as_json(hashes), "application/json")
    response = Response(text, mimetype=mimetype)
    response.set_etag(hash_lists(collection)[list_name].sha256)
    response.headers["Content-Disposition"] = f'attachment; filename="{list_name}.{form}"'
    return response


@blueprint.put("/<list_name>")
def put_hash_list_of(name: str, list_name: str) -> tuple[Response, int]:
    """Keep a list of hashes, in place of one of that name: 201 when it is new, 200 otherwise.

    As CSV, plain text or JSON, as matchers and ThreatExchange write them. A line that does not parse refuses all. With
    `join=true` it is added to what is there. Where the policy in force names the list, `rescan` is the job that judges
    what is stored.
    """
    if request.mimetype not in TYPES:
        raise WrongContentType(
            f"The body is {request.mimetype or 'of no type'}.", remedy=f"Send one of {', '.join(TYPES)}."
        )
    if not _NAME.fullmatch(list_name):
        raise InvalidRequest(f"{list_name[:64]!r} cannot name a list: 1 to 64 letters, digits, '-' and '_' can.")
    join, kind = switch("join"), one_of("kind", ("sha256", "pdq"))
    collection = _collection(name)
    imported = read_hash_list(request.get_data(cache=False), kind=cast("Kind | None", kind))
    with _writing:
        collection = _collection(name)
        there = list_name in hash_lists(collection)
        hashes = imported.hashes
        if join and there:
            hashes = hash_list(collection, list_name, services().settings).joined(hashes)
        kept = put_hash_list(
            services().store, collection, list_name, hashes, by=g.key.name, settings=services().settings
        )
    services().forget_engines(name)
    told = {
        **kept.as_dict(),
        "taken": len(imported.hashes),
        "twice": imported.twice,
        "other_kinds": imported.other_kinds,
        "flat": imported.flat,
        **_rescanned(collection, list_name),
    }
    return jsonify(told), 200 if there else 201


@blueprint.delete("/<list_name>")
def delete_hash_list_of(name: str, list_name: str) -> tuple[str, int]:
    """Forget a list. A policy that names it cannot judge what it would have found, which is then held back."""
    delete_hash_list(services().store, _collection(name), list_name)
    services().forget_engines(name)
    return "", 204


def _rescanned(collection: Collection, list_name: str) -> dict[str, Any]:
    stored = policy_of(collection)
    if stored is None or list_name not in stored.policy.lists:
        return {"rescan": None, "warnings": []}
    return asked_rescan(collection)


def _collection(name: str) -> Collection:
    return services().collection(check_collection_name(name))
