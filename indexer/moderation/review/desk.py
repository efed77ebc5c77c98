"""The desk at which people review a collection: what waits, what they decide, and all that follows from it.

Over `Reviews` it sees to the files of frames and pages, which are shown or withheld as a whole, and to the webhook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from indexer.errors import PolicyNotFound
from indexer.moderation.judging import ItemJudge
from indexer.moderation.notices import open_webhooks, tell
from indexer.moderation.review.decisions import Reviews
from indexer.moderation.review.impressions import Impressions
from indexer.moderation.review.waiting import Waiting, queue
from indexer.moderation.stored import policy_of
from indexer.moderation.trail import Entry, Trail

if TYPE_CHECKING:
    from indexer.moderation.review.state import Decision
    from indexer.settings import Settings
    from indexer.store.collection import Collection


class Desk:
    """The desk of one collection, by the policy in force as its metadata has it.

    Usage:
        desk = Desk(store.get("media"), settings)
        waiting, cursor = desk.waiting(limit=50)
        made = desk.decide([each.item.id for each in waiting], Decision(what="approve"), who="alice")
        desk.undo([entry.number for entry in made], who="alice")

    Raises:
        PolicyNotFound: no policy is in force.
        UrlRefused, UsageError: the settings' webhook is none.
    """

    def __init__(self, collection: Collection, settings: Settings) -> None:
        stored = policy_of(collection)
        if stored is None:
            raise PolicyNotFound(
                f"The collection {collection.name!r} has no policy in force.", remedy="Put one in force first."
            )
        self.stored = stored
        self.trail = Trail(settings.data, collection.name)
        self._collection = collection
        self._reviews = Reviews(collection, self.trail, stored.policy, reviewers=stored.reviewers)
        self._webhooks = open_webhooks(settings)
        self._impressions = Impressions(settings.data)

    def waiting(
        self, *, limit: int, after: str | None = None, but_of: str | None = None
    ) -> tuple[list[Waiting], str | None]:
        """A page of what waits and the next page's cursor; raises as `queue`."""
        reach = partial(self._impressions.of, self._collection.name)
        return queue(self._collection, self.stored.policy, limit=limit, after=after, reach=reach, but_of=but_of)

    def decide(
        self,
        ids: Sequence[str],
        decision: Decision,
        *,
        who: str,
        note: str = "",
        seen: Mapping[str, int] | None = None,
    ) -> list[Entry]:
        """Decide on items, all or none; raises as `Reviews.decide`."""
        return self._followed(self._reviews.decide(ids, decision, who=who, note=note, seen=seen))

    def undo(self, numbers: Sequence[int], *, who: str, note: str = "") -> list[Entry]:
        """Undo entries of the trail, all or none; raises as `Reviews.undo`."""
        return self._followed(self._reviews.undo(numbers, who=who, note=note))

    def appeal(self, item_id: str, *, who: str, note: str) -> Entry:
        """Ask for another look at an item; raises as `Reviews.appeal`."""
        return self._reviews.appeal(item_id, who=who, note=note)

    def _followed(self, entries: list[Entry]) -> list[Entry]:
        """See to what follows from entries; a proposal that waits for a second person has changed nothing yet."""
        changed = [str(entry.item) for entry in entries if _in_force(entry.before) != _in_force(entry.after)]
        if changed:
            items = self._collection.get_many(changed)
            ItemJudge(self.stored, None).settle(self._collection, (item.record.parent for item in items.values()))
            verdicts = {item.id: item.record.verdict for item in items.values() if item.record.verdict is not None}
            tell(self._webhooks, self._collection.name, verdicts)
        return entries


def _in_force(part: Mapping[str, object] | None) -> tuple[object, ...]:
    return tuple((part or {}).get(name) for name in ("action", "by", "at"))
