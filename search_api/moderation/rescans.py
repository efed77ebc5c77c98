"""`/v1/collections/{c}/moderation`: judge what is stored, as a job, or without writing."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, g, jsonify

from indexer.errors import PolicyNotFound, TooBusy
from indexer.items import Kind, check_collection_name, now
from indexer.moderation.dry_run import MOST_ITEMS, MOST_NEAREST, CategoryRun, DryRun, Near, dry_run
from indexer.moderation.judging import ItemJudge
from indexer.moderation.opening import open_policy
from indexer.moderation.stored import StoredPolicy, is_moderated
from search_api.moderation.asking import number, policy_body
from search_api.services import services
from workers.judging import POLICY

blueprint = Blueprint("rescans", __name__, url_prefix="/v1/collections/<name>/moderation")

SAMPLE, NEAREST = 20_000, 12
SECONDS = 60.0
"""That a dry run may take once its policy is open."""
_running = threading.Lock()


@blueprint.post("/rescan")
def rescan(name: str) -> tuple[Response, int, dict[str, str]]:
    """Queue a job that judges every item by the policy in force, from what is stored: 202 with the job.

    It writes what changed alone, and what people decided stays. Pictures are decoded only for an image classifier that
    has not seen them.
    """
    collection = services().collection(check_collection_name(name))
    if not is_moderated(collection):
        raise PolicyNotFound(f"The collection {name!r} has no policy in force.", remedy="Put one in force first.")
    job = services().queue.submit(collection, [POLICY])
    return jsonify(job.as_dict()), 202, {"Location": f"/v1/jobs/{job.id}"}


@blueprint.post("/dry-run")
def try_policy(name: str) -> Response:
    """What a policy, which is the body, would change if it were in force; nothing is written.

    At most `limit` items are judged, and for no more than a minute; `complete` says whether that was everything. One
    dry run at a time.
    """
    limit, nearest = number("limit", SAMPLE, 1, MOST_ITEMS), number("nearest", NEAREST, 0, MOST_NEAREST)
    policy = policy_body()
    parts = services()
    collection = parts.collection(check_collection_name(name))
    judge, classifiers = open_policy(policy, parts.encoders.of(collection), parts.settings, collection)
    stored = StoredPolicy(policy, 0, now().isoformat(), g.key.name)
    if not _running.acquire(blocking=False):
        raise TooBusy("Another dry run is under way.", retry_after=5)
    try:
        run = dry_run(collection, ItemJudge(stored, judge, classifiers), limit=limit, nearest=nearest, seconds=SECONDS)
    finally:
        _running.release()
    return jsonify({"policy": policy.name, "version": policy.version, "items": collection.count(), **_told(run, name)})


def _told(run: DryRun, name: str) -> dict[str, Any]:
    actions: dict[str, dict[str, int]] = {}
    for (before, after), count in sorted(run.actions.items()):
        actions.setdefault(before, {})[after] = count
    return {
        "judged": run.judged,
        "complete": run.complete,
        "changed": run.changed,
        "held_back": run.held_back,
        "unscored": run.unscored,
        "actions": actions,
        "reviewed": run.reviewed.as_dict(),
        "categories": [_category(each, name) for each in run.categories.values()],
    }


def _category(run: CategoryRun, name: str) -> dict[str, Any]:
    return {
        "name": run.category.name,
        "action": run.category.action,
        "threshold": run.category.threshold,
        "fired": run.fired,
        "joined": run.joined,
        "left": run.left,
        "reviewed": run.reviewed.as_dict(),
        "nearest": [_near(each, name) for each in run.nearest],
    }


def _near(near: Near, name: str) -> dict[str, Any]:
    item = f"/v1/collections/{name}/items/{quote(near.id, safe='')}"
    return {
        "id": near.id,
        "probability": near.probability,
        "fired": near.fired,
        "before": near.before,
        "after": near.after,
        "thumbnail": None if near.kind is Kind.TEXT else f"{item}/thumbnail?view=moderator",
    }
