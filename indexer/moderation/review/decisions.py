"""Decisions of people on stored items: in bulk, written down before they take effect, and never over one another.

What is decided is first a line of the trail and then in the index; `pending.json` stands from before the one until
after the other, and whoever comes next ends what a crash left half done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from indexer.edge.files import sync_folder, write_atomically
from indexer.errors import InvalidRequest, ItemNotFound, ReviewConflict
from indexer.items import now
from indexer.moderation.policy import Action, Policy
from indexer.moderation.review.state import (
    BY_PERSON,
    CHANGED,
    MOST_PROPOSALS,
    Decision,
    Proposal,
    Review,
    as_noted,
    is_persons,
    noted,
    policys_own,
    review_of,
    strictest,
    unjudged,
    with_review,
    without,
)
from indexer.moderation.trail import Draft, Entry, Trail, What, stamp
from indexer.moderation.verdicts import BY_POLICY

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.points import Stored

MOST_ITEMS = 1000
"""Of one decision."""

_Verdict = dict[str, Any]


@dataclass(frozen=True)
class _Change:
    """What one entry does to one item."""

    item: Stored
    before: _Verdict
    after: _Verdict
    draft: Draft


def deciding(trail: Trail) -> AbstractContextManager[None]:
    """The time in which nobody else decides on the collection's items: for a rescan's batch, from reading to writing.

    Raises:
        TooBusy: another holds it for half a minute.
    """
    return trail.locked("review.lock")


class Reviews:
    """Where people decide on the items of one collection, by the policy in force.

    Usage:
        reviews = Reviews(collection, Trail(settings.data, collection.name), stored.policy, reviewers=stored.reviewers)
        made = reviews.decide(ids, Decision(what="reject"), who="alice", note="spam")
        reviews.undo([entry.number for entry in made], who="alice")
    """

    def __init__(
        self,
        collection: Collection,
        trail: Trail,
        policy: Policy,
        *,
        reviewers: Literal[1, 2] = 1,
        clock: Callable[[], datetime] = now,
    ) -> None:
        """`reviewers` is how many people have to decide the same before it counts."""
        self._collection = collection
        self._trail = trail
        self._policy = policy
        self._reviewers = reviewers
        self._clock = clock
        self._pending = trail.folder / "pending.json"

    def decide(
        self,
        ids: Sequence[str],
        decision: Decision,
        *,
        who: str,
        note: str = "",
        seen: Mapping[str, int] | None = None,
    ) -> list[Entry]:
        """Decide on items, all or none; an entry of the trail each, in the order of the ids.

        `seen` gives the items' numbers (`Review.number`) as the person saw them: an item that has another by now is a
        conflict. Of an item without one, another person's decision that is in force is.

        Raises:
            ItemNotFound, ReviewConflict: some items are not there, or were decided on; the details have their ids.
            InvalidRequest: too many, or a category that the policy has not got.
            TooBusy: somebody else decides for too long.
        """
        strictest(self._policy, decision.categories or ())

        def change(item: Stored, before: _Verdict, at: str) -> _Change:
            review = review_of(before)
            known = (seen or {}).get(item.id)
            if known is not None and known != review.number:
                raise _Conflict(f"changed since you saw it (its number is {review.number}, not {known})")
            if known is None and is_persons(before) and who not in (*review.agreed, _person(before)):
                raise _Conflict(f"was decided by {_person(before)}")
            after = self._decided(before, review, decision, who, at)
            return _Change(item, before, after, Draft(who, What(decision.what), item.id, note=note))

        return self._apply(ids, change)

    def _decided(self, before: _Verdict, review: Review, decision: Decision, who: str, at: str) -> _Verdict:
        """The verdict after a decision; with two reviewers that may be a proposal."""
        own = review.proposal_of(who)
        if decision.what == "withdraw":
            if own is not None and own.decision.what != "withdraw":
                return with_review(before, review.model_copy(update={"proposed": _others(review, who)}))
            if not is_persons(before):
                raise _Conflict("was decided by nobody")
        others = _others(review, who)
        agreeing = [each.by for each in others if each.decision.outcome == decision.outcome]
        if len(agreeing) + 1 < self._reviewers:
            proposals = (*others, Proposal(by=who, decision=decision))[-MOST_PROPOSALS:]
            return with_review(before, review.model_copy(update={"proposed": proposals}))
        if decision.what == "withdraw":
            return with_review(policys_own(before, self._policy, at), Review())
        action, categories = self._meant(decision)
        made = {**before, "action": action, "by": BY_PERSON + who, "at": at}
        return with_review(made, Review(categories=categories, agreed=(*agreeing, who)))

    def _meant(self, decision: Decision) -> tuple[str, tuple[str, ...] | None]:
        """The action, and which categories the person says that it is of."""
        match decision.what:
            case "approve":
                return Action.ALLOW.value, ()
            case "reject":
                return decision.action or Action.BLOCK.value, decision.categories
            case _:
                categories = decision.outcome[2] or ()
                return strictest(self._policy, categories).value, categories

    def undo(self, numbers: Sequence[int], *, who: str, note: str = "") -> list[Entry]:
        """Undo entries of the trail, all or none: the items are again as before them, but for what was found since.

        An undo can be undone. With two reviewers, each undoes only what is their own.

        Raises:
            TrailEntryNotFound: there is no such entry.
            InvalidRequest: it is not about an item, or two of them are about the same.
            ItemNotFound, ReviewConflict: some items are not there, or somebody decided since.
        """
        if not numbers:
            return []
        entries = {entry.item: entry for entry in self._trail.numbered(list(dict.fromkeys(numbers)))}
        if None in entries or len(entries) < len(set(numbers)):
            raise InvalidRequest(
                "Only decisions on items can be undone, and one of an item at a time.",
                remedy="Undo the last entry about an item first.",
            )

        def change(item: Stored, before: _Verdict, _at: str) -> _Change:
            entry = entries[item.id]
            if review_of(before).number != entry.number:
                raise _Conflict(f"was decided on again after number {entry.number}")
            if self._reviewers > 1 and entry.who != who:
                raise _Conflict(f"was decided by {entry.who}, who alone can undo that")
            after = self._restored(before, entry.before or {})
            return _Change(item, before, after, Draft(who, What.UNDO, item.id, note=note, undoes=entry.number))

        return self._apply([str(item) for item in entries], change)

    def _restored(self, verdict: _Verdict, part: Mapping[str, Any]) -> _Verdict:
        """The verdict as the trail has it, by what is found of the item now."""
        reason = verdict.get("reason")
        if reason == CHANGED:  # came with the decision that is undone, not with what was found
            reason = part.get("reason")
        found = without(verdict, "reason") | ({} if reason is None else {"reason": reason})
        restored = as_noted(found, {**part, "reason": reason} if reason is not None else without(part, "reason"), 0)
        if part["by"] != BY_POLICY or part["version"] == verdict["version"] != self._policy.version:
            return restored
        # It may have been judged again since, by other lists too: what was found last counts.
        return policys_own(restored, self._policy, part["at"])

    def appeal(self, item_id: str, *, who: str, note: str) -> Entry:
        """Ask for another look at an item: it comes first in the queue, whoever decided on it.

        Raises:
            ItemNotFound: it is not there.
            ReviewConflict: it was asked for already, and nobody has decided yet.
        """

        def change(item: Stored, before: _Verdict, _at: str) -> _Change:
            review = review_of(before)
            if review.appeal:
                raise _Conflict("is under appeal already")
            after = with_review(before, review.model_copy(update={"appeal": True}))
            return _Change(item, before, after, Draft(who, What.APPEAL, item.id, note=note))

        return self._apply([item_id], change)[0]

    def settle(self) -> None:
        """End what a crash, or an index that did not answer, left half done; every decision does so first."""
        with deciding(self._trail):
            self._settle()

    def _apply(self, ids: Sequence[str], change: Callable[[Stored, _Verdict, str], _Change]) -> list[Entry]:
        """Make a change to each item, write all down, and then into the index."""
        ids = list(dict.fromkeys(ids))
        if len(ids) > MOST_ITEMS:
            raise InvalidRequest(f"A decision can be on no more than {MOST_ITEMS:,} items.", remedy="Divide them.")
        with deciding(self._trail):
            self._settle()
            items = self._collection.get_many(ids)
            if missing := [each for each in ids if each not in items]:
                raise ItemNotFound(f"There is no item {missing[0]}; nothing was decided.", items=missing)
            at = stamp(self._clock())
            changes, conflicts = [], dict[str, str]()
            for each in ids:
                before = items[each].record.verdict or unjudged(self._policy, at)
                try:
                    changes.append(change(items[each], before, at))
                except _Conflict as conflict:
                    conflicts[each] = str(conflict)
            if conflicts:
                first, why = next(iter(conflicts.items()))
                raise ReviewConflict(f"The item {first} {why}; nothing was decided.", conflicts=list(conflicts))
            drafts = [replace(each.draft, before=noted(each.before), after=noted(each.after)) for each in changes]
            write_atomically(self._pending, {"after": self._trail.head.number})
            entries = self._trail.append(drafts)
            self._write(
                [(each.item, _numbered(each.after, entry.number)) for each, entry in zip(changes, entries, strict=True)]
            )
            self._done()
        return entries

    def _settle(self) -> None:
        try:
            after = int(json.loads(self._pending.read_bytes())["after"])
        except FileNotFoundError:
            return
        late = takewhile(lambda entry: entry.number > after, self._trail.latest())
        last: dict[str, Entry] = {}
        for entry in late:
            if entry.item is not None and entry.after is not None:
                last.setdefault(entry.item, entry)
        items = self._collection.get_many(list(last))
        found = [(item, item.record.verdict or unjudged(self._policy, last[each].at)) for each, item in items.items()]
        self._write(
            [
                (item, as_noted(verdict, last[item.id].after or {}, last[item.id].number))
                for item, verdict in found
                if review_of(verdict).number < last[item.id].number
            ]
        )
        self._done()

    def _write(self, verdicts: Sequence[tuple[Stored, _Verdict]]) -> None:
        self._collection.note({item.id: {"verdict": verdict} for item, verdict in verdicts})

    def _done(self) -> None:
        self._pending.unlink(missing_ok=True)
        sync_folder(self._pending.parent)


class _Conflict(Exception):
    """Why an item cannot be decided on."""


def _numbered(verdict: _Verdict, number: int) -> _Verdict:
    return with_review(verdict, review_of(verdict).model_copy(update={"number": number}))


def _others(review: Review, who: str) -> tuple[Proposal, ...]:
    return tuple(each for each in review.proposed if each.by != who)


def _person(verdict: _Verdict) -> str:
    return str(verdict["by"]).removeprefix(BY_PERSON)
