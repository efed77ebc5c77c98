"""`/v1/policies`: the policies that ship, to be copied, tried and changed."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from indexer.moderation.policy import Policy
from indexer.moderation.starting import policy_text, starting_policies, starting_policy

blueprint = Blueprint("policies", __name__, url_prefix="/v1/policies")


@blueprint.get("")
def list_starting_policies() -> Response:
    """The policies that ship, by name, each with how far to trust its categories."""
    return jsonify({"policies": [_about(starting_policy(name)) for name in starting_policies()]})


@blueprint.get("/<policy_name>")
def get_starting_policy(policy_name: str) -> Response:
    """One of them: its file, as a person would copy it, and what is in it."""
    policy = starting_policy(policy_name)
    document = policy.model_dump(mode="json", exclude_defaults=True)
    return jsonify({**_about(policy), "text": policy_text(policy_name), "policy": document})


def _about(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "version": policy.version,
        "description": policy.description,
        "categories": [
            {
                "name": category.name,
                "action": category.action,
                "threshold": category.threshold,
                "description": category.description,
                "trust": category.trust,
                "detectors": [detector.type for detector in category.detectors],
            }
            for category in policy.categories
        ],
        "hash_lists": policy.lists,
        "classifiers": policy.models,
    }
