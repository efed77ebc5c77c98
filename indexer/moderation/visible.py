"""What of a collection whoever is no moderator may see.

With a policy in force an item is there for them if its verdict shows it. One without a verdict is not: it fails closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.items import Record
from indexer.moderation.policy import Action
from indexer.moderation.stored import is_moderated
from indexer.store.fields import ACTION_KEY

if TYPE_CHECKING:
    from indexer.store.collection import Collection

SHOWN = (Action.ALLOW, Action.FLAG, Action.BLUR)


def visible(collection: Collection) -> Collection:
    """The collection as if only what may be shown were there; as it is where no policy is in force."""
    if not is_moderated(collection):
        return collection
    from qdrant_client import models  # noqa: PLC0415  for who has a policy

    shown = models.MatchAny(any=[action.value for action in SHOWN])
    return collection.only(models.Filter(must=[models.FieldCondition(key=ACTION_KEY, match=shown)]))


def is_shown(record: Record, collection: Collection) -> bool:
    """Whether an item of a collection may be shown."""
    return not is_moderated(collection) or (record.verdict or {}).get("action") in SHOWN


def is_blurred(record: Record) -> bool:
    """Whether an item is shown blurred."""
    return record.verdict is not None and record.verdict.get("action") == Action.BLUR
