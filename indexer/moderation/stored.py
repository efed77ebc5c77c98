"""The policy of a collection, kept in its metadata with its former versions."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from indexer.errors import PolicyInvalid, PolicyNotFound
from indexer.items import now
from indexer.moderation.policy import Policy
from indexer.store.fields import POLICY_KEY

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.store import Store

CURRENT, HISTORY = POLICY_KEY, f"{POLICY_KEY}.history"
"""Keys of the metadata: the policy in force, and those before it."""
MOST_BYTES = 512 * 2**10
"""Of a policy as JSON: a collection's metadata comes along whenever it is looked up."""
MOST_VERSIONS = 20
_HISTORY_BYTES = 2**20

Reviewers = Literal[1, 2]


@dataclass(frozen=True)
class StoredPolicy:
    """A policy as a collection keeps it."""

    policy: Policy
    number: int
    """1 at first, one more at every change."""
    at: str
    """Since when; RFC 3339."""
    by: str
    """Who put it in force."""
    reviewers: Reviewers = 1
    """How many people have to decide the same before it counts."""
    queries: bool = False
    """Whether what visitors search with is judged, too."""

    def about(self) -> dict[str, Any]:
        """Which it is, without what is in it."""
        return {
            "name": self.policy.name,
            "number": self.number,
            "version": self.policy.version,
            "at": self.at,
            "by": self.by,
            "reviewers": self.reviewers,
            "queries": self.queries,
        }

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON."""
        return {**self.about(), "policy": self.policy.model_dump(mode="json", exclude_defaults=True)}


def policy_of(collection: Collection) -> StoredPolicy | None:
    """The policy in force, as it was when the collection was looked up; None without one."""
    kept = collection.metadata.get(CURRENT)
    return _read(kept) if kept else None


def is_moderated(collection: Collection) -> bool:
    """Whether a policy is in force."""
    return bool(collection.metadata.get(CURRENT))


def judges_queries(collection: Collection) -> bool:
    """Whether a policy is in force that judges what visitors search with."""
    return bool((collection.metadata.get(CURRENT) or {}).get("queries"))


def former_policies(collection: Collection) -> Iterator[StoredPolicy]:
    """Those before, the latest first."""
    for packed in reversed(collection.metadata.get(HISTORY) or []):
        yield _read(json.loads(zlib.decompress(base64.b64decode(packed))))


def policy_numbered(collection: Collection, number: int) -> StoredPolicy:
    """The one in force or a former one.

    Raises:
        PolicyNotFound: there is none of that number, or it is too long ago.
    """
    current = policy_of(collection)
    for each in ([current] if current else []), former_policies(collection):
        for kept in each:
            if kept.number == number:
                return kept
    raise PolicyNotFound(
        f"The collection {collection.name!r} has no policy number {number}.",
        remedy=f"The last {MOST_VERSIONS} are kept; list them.",
    )


def put_policy(
    store: Store, collection: Collection, policy: Policy, *, by: str, reviewers: Reviewers = 1, queries: bool = False
) -> StoredPolicy:
    """Put a policy in force; the one that is there already as it is stays. What is stored is judged by a rescan.

    Raises:
        PolicyInvalid: it is too large to be kept with the collection.
    """
    before = policy_of(collection)
    if before is not None and (before.policy, before.reviewers, before.queries) == (policy, reviewers, queries):
        return before
    latest = next((each.number for each in former_policies(collection)), 0)
    number = max(before.number if before else 0, latest) + 1
    kept = StoredPolicy(policy, number, now().isoformat(), by, reviewers, queries)
    document = kept.as_dict()
    if len(json.dumps(document)) > MOST_BYTES:
        raise PolicyInvalid(f"A policy can have no more than {MOST_BYTES // 1024} KiB.", remedy="Divide its lists.")
    # The history first: should the second write not come, the policy in force stands in both, and that is no harm.
    _remember(store, collection, before)
    store.annotate(collection.name, CURRENT, document)
    return kept


def drop_policy(store: Store, collection: Collection) -> None:
    """Put no policy in force: everything is shown, whatever its verdict. Verdicts stay with their items.

    The copy that rescans read goes.

    Raises:
        PolicyNotFound: none is in force.
    """
    before = policy_of(collection)
    if before is None:
        raise PolicyNotFound(f"The collection {collection.name!r} has no policy.", remedy="Put one in force first.")
    _remember(store, collection, before)
    store.annotate(collection.name, CURRENT, None)
    collection.in_columns(drop=True)


def _remember(store: Store, collection: Collection, kept: StoredPolicy | None) -> None:
    if kept is None:
        return
    history = list(collection.metadata.get(HISTORY) or [])
    history.append(base64.b64encode(zlib.compress(json.dumps(kept.as_dict()).encode())).decode())
    history = history[-MOST_VERSIONS:]
    while sum(map(len, history)) > _HISTORY_BYTES:
        history.pop(0)
    store.annotate(collection.name, HISTORY, history)


def _read(kept: dict[str, Any]) -> StoredPolicy:
    policy = Policy.model_validate(kept["policy"])
    return StoredPolicy(
        policy, kept["number"], kept["at"], kept["by"], kept.get("reviewers", 1), kept.get("queries", False)
    )
