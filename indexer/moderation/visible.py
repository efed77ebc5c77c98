"""What of a collection whoever is no moderator may see.

With a policy in force an item is there for them if its verdict shows it. One without a verdict is not: it fails closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.items import Record
from indexer.moderation.policy import Action
from indexer.moderation.stored import is_moderated

if TYPE_CHECKING:
    from indexer.store.collection import Collection

SHOWN = (Action.ALLOW, Action.FLAG, Action.BLUR)


def visible(collection: Collection) -> Collection:
    """The collection as if only what may be shown were there; as it is where no policy is in force."""
    if not is_moderated(collection):
        return collection
    return collection.showing([action.value for action in SHOWN])


def is_shown(record: Record, collection: Collection) -> bool:
    """Whether an item of a collection may be shown."""
    return not is_moderated(collection) or (not record.withheld and (record.verdict or {}).get("action") in SHOWN)


def is_blurred(record: Record) -> bool:
    """Whether an item is shown blurred."""
    return record.verdict is not None and record.verdict.get("action") == Action.BLUR
