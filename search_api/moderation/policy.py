"""`/v1/collections/{c}/policy` and `/policies`: the policy that is in force, and those before it.

A policy takes effect at once: what is stored is not shown until it has a verdict, and has the verdicts that it had
until a rescan has judged it again.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from flask import Blueprint, Response, g, jsonify, request

from indexer.errors import PolicyChanged, PolicyNotFound
from indexer.items import check_collection_name
from indexer.moderation.opening import open_policy
from indexer.moderation.policy import Policy
from indexer.moderation.stored import (
    Reviewers,
    StoredPolicy,
    drop_policy,
    former_policies,
    policy_numbered,
    policy_of,
    put_policy,
)
from indexer.moderation.trail import Draft, Trail, What
from indexer.store.collection import Collection
from search_api.moderation.asking import asked_rescan, one_of, policy_body, switch
from search_api.services import services

blueprint = Blueprint("policy", __name__, url_prefix="/v1/collections/<name>")

_changing = threading.Lock()
"""Between looking which policy is in force and putting another there."""


@blueprint.get("/policy")
def get_policy(name: str) -> Response:
    """The policy in force, with its number and version. Its number is the `ETag`."""
    stored = policy_of(_collection(name))
    if stored is None:
        raise _none_in_force(name)
    return _answered({**stored.as_dict(), "in_force": True}, stored.number)


@blueprint.put("/policy")
def put_policy_of(name: str) -> tuple[Response, int]:
    """Put a policy in force: 201 when there was none, 200 otherwise; the same again is no change.

    As YAML (`application/yaml`) or JSON. One with any mistake, or with a hash list or an image classifier that is not
    here, is refused, and the one in force stays. What is stored is judged by a job, `rescan`, where there is a queue.
    What is not said of `reviewers` and `queries` stays as it is in force.
    """
    policy = policy_body()
    reviewers = one_of("reviewers", ("1", "2"))
    return _put(name, lambda _: (policy, cast(Reviewers, int(reviewers)) if reviewers else None, switch("queries")))


@blueprint.delete("/policy")
def delete_policy(name: str) -> tuple[str, int]:
    """Put no policy in force: everything is shown. It stays among the former ones, and verdicts with their items."""
    with _changing:
        collection = _collection(name)
        before = policy_of(collection)
        if before is None:
            raise _none_in_force(name)
        _check_number(before)
        drop_policy(services().store, collection)
        services().forget_engines(name)
        _note(collection, before, None)
    return "", 204


@blueprint.get("/policies")
def list_policies(name: str) -> Response:
    """The policy in force and those before it, the latest first, without what is in them."""
    collection = _collection(name)
    current = policy_of(collection)
    listed = [{**current.about(), "in_force": True}] if current else []
    listed += [{**each.about(), "in_force": False} for each in former_policies(collection)]
    return jsonify({"policies": listed})


@blueprint.get("/policies/<policy_number>")
def get_policy_numbered(name: str, policy_number: str) -> Response:
    """One of them, by its number."""
    collection = _collection(name)
    stored = policy_numbered(collection, _number(policy_number))
    current = policy_of(collection)
    in_force = current is not None and current.number == stored.number
    return _answered({**stored.as_dict(), "in_force": in_force}, stored.number)


@blueprint.post("/policies/<policy_number>/restore")
def restore_policy(name: str, policy_number: str) -> tuple[Response, int]:
    """Put a former policy in force again, under a new number; as PUT answers."""

    def former(collection: Collection) -> tuple[Policy, Reviewers, bool]:
        stored = policy_numbered(collection, _number(policy_number))
        return stored.policy, stored.reviewers, stored.queries

    return _put(name, former)


def _put(name: str, wanted: Any) -> tuple[Response, int]:
    """Put in force what `wanted` gives of the collection: a policy, reviewers, queries; None keeps what is there."""
    parts = services()
    with _changing:
        collection = _collection(name)
        before = policy_of(collection)
        _check_number(before)
        policy, reviewers, queries = wanted(collection)
        open_policy(policy, parts.encoders.of(collection), parts.settings, collection)
        after = put_policy(
            parts.store,
            collection,
            policy,
            by=g.key.name,
            reviewers=reviewers or (before.reviewers if before else 1),
            queries=queries if queries is not None else before is not None and before.queries,
        )
        parts.forget_engines(name)
        if after != before:
            _note(collection, before, after)
    judged_the_same = before is not None and before.policy.version == policy.version
    rescan = {"rescan": None, "warnings": []} if judged_the_same else asked_rescan(collection)
    answer = _answered({**after.as_dict(), "in_force": True, **rescan}, after.number)
    return answer, 201 if before is None else 200


def _note(collection: Collection, before: StoredPolicy | None, after: StoredPolicy | None) -> None:
    """Write into the collection's audit trail which policy took which one's place."""
    draft = Draft(
        g.key.name, What.POLICY, before=before.about() if before else None, after=after.about() if after else None
    )
    Trail(services().settings.data, collection.name).append([draft])


def _check_number(stored: StoredPolicy | None) -> None:
    """Hold the policy in force against If-Match.

    Raises:
        PolicyChanged: it is another one.
    """
    if "If-Match" not in request.headers:
        return
    if stored is None or not request.if_match.contains(str(stored.number)):
        there = f"number {stored.number}" if stored else "none"
        raise PolicyChanged(f"The policy in force is {there}, not {request.headers['If-Match'][:40]!r}.")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PolicyNotFound(f"{text[:40]!r} is no policy's number.", remedy="List the policies of the collection.")
    return int(text)


def _answered(document: dict[str, Any], number: int) -> Response:
    response = jsonify(document)
    response.set_etag(str(number))
    return response


def _none_in_force(name: str) -> PolicyNotFound:
    return PolicyNotFound(f"The collection {name!r} has no policy in force.", remedy="Put one in force first.")


def _collection(name: str) -> Collection:
    return services().collection(check_collection_name(name))
