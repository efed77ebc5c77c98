"""What people said of an item, kept in its verdict beside what the policy found.

    crosslens.verdict           action, by, at: what is in force; categories, policy, version, reason: what was found
    crosslens.verdict.review    `Review`: what people said, and what is still open

A judge writes what was found and people write the rest, so that neither loses what the other wrote (`refreshed`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from indexer.errors import InvalidRequest
from indexer.items import RECORD_KEY
from indexer.moderation.policy import Action, Policy
from indexer.moderation.verdicts import BY_POLICY, Verdict

REVIEW = "review"
"""The key in the verdict."""
STATE_KEY = f"{RECORD_KEY}.verdict.{REVIEW}.state"
"""The payload field that says what is open, for an index."""
BY_PERSON = "person:"
"""Before the name of who decided."""
MOST_PROPOSALS = 8

NOT_YET = "not judged: the policy has not seen it yet"
CHANGED = "not judged: the policy has changed since it was"

_INFORCE = ("action", "by", "at", "policy", "version", "reason")


class State(StrEnum):
    """What is open with an item, the most pressing first."""

    APPEAL = "appeal"
    """Somebody asked for another look."""
    DISPUTED = "disputed"
    """Two people decided differently; a third settles it."""
    PROPOSED = "proposed"
    """One person decided; it needs another."""


class Decision(BaseModel):
    """What a person decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["approve", "reject", "recategorise", "withdraw"]
    """Show it; do not show it; say which categories it is of, so that the action follows; back to the policy's."""
    action: Literal["quarantine", "block"] | None = None
    """Of a rejected one; `block` unless it is given."""
    categories: Annotated[tuple[str, ...], Field(max_length=64)] | None = None
    """Which it is of: needed to recategorise, possible to reject; an approved one is of none."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.what != "reject" and self.action is not None:
            raise ValueError("only what is rejected has an action of its own")
        if self.what == "recategorise" and self.categories is None:
            raise ValueError("recategorise needs categories; an empty list says that it is of none")
        if self.what in ("approve", "withdraw") and self.categories is not None:
            raise ValueError(f"{self.what} has no categories")
        return self

    @property
    def outcome(self) -> tuple[str, str | None, tuple[str, ...] | None]:
        """Equal for two decisions that come to the same."""
        action = self.action or "block" if self.what == "reject" else None
        return self.what, action, None if self.categories is None else tuple(sorted(set(self.categories)))


class Proposal(BaseModel):
    """A decision that waits for a second person's."""

    model_config = ConfigDict(frozen=True)

    by: str
    """The person's name."""
    decision: Decision


class Review(BaseModel):
    """What people said of an item."""

    model_config = ConfigDict(frozen=True)

    number: int = 0
    """Of the trail's last entry about the item; 0 without one. Who decides gives the number that they saw."""
    categories: tuple[str, ...] | None = None
    """Which it is of, as a person decided; None where nobody said."""
    agreed: tuple[str, ...] = ()
    """Who decided what is in force; several where that took several."""
    proposed: tuple[Proposal, ...] = ()
    appeal: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def state(self) -> State | None:
        """What is open, if anything."""
        if self.appeal:
            return State.APPEAL
        if len({proposal.decision.outcome for proposal in self.proposed}) > 1:
            return State.DISPUTED
        return State.PROPOSED if self.proposed else None

    def proposal_of(self, who: str) -> Proposal | None:
        """What a person proposed."""
        return next((each for each in self.proposed if each.by == who), None)


def review_of(verdict: Mapping[str, Any] | None) -> Review:
    """What people said, by the verdict that an item's record has."""
    return Review.model_validate((verdict or {}).get(REVIEW) or {})


def with_review(verdict: Mapping[str, Any], review: Review) -> dict[str, Any]:
    """The verdict with another review."""
    said = review.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return {**verdict, REVIEW: said} if said else without(verdict, REVIEW)


def without(verdict: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The verdict without one of its keys."""
    return {name: value for name, value in verdict.items() if name != key}


def refreshed(stored: Mapping[str, Any] | None, judged: Verdict | dict[str, Any]) -> dict[str, Any]:
    """An item's verdict after it was judged again: a person's action stays, and what people said and asked."""
    verdict = judged.to_payload() if isinstance(judged, Verdict) else judged
    if stored is None:
        return verdict
    if is_persons(stored):
        verdict |= {name: stored[name] for name in ("action", "by", "at")}
    return {**verdict, REVIEW: stored[REVIEW]} if REVIEW in stored else verdict


def is_persons(verdict: Mapping[str, Any]) -> bool:
    """Whether a person decided what is in force."""
    return str(verdict["by"]).startswith(BY_PERSON)


def unjudged(policy: Policy, at: str) -> dict[str, Any]:
    """The verdict of an item that has none: it is held back until it is judged."""
    return {
        "action": Action.QUARANTINE.value,
        "categories": {},
        "policy": policy.name,
        "version": policy.version,
        "by": BY_POLICY,
        "at": at,
        "reason": NOT_YET,
    }


def fired(verdict: Mapping[str, Any]) -> list[str]:
    """The categories that the policy found it to be of."""
    return [name for name, finding in (verdict.get("categories") or {}).items() if finding["fired"]]


def policys_own(verdict: Mapping[str, Any], policy: Policy, at: str) -> dict[str, Any]:
    """The verdict as the policy in force would have it, from what was found; held back where another policy found it.

    What a rescan is going to say is not guessed.
    """
    own = {**verdict, "by": BY_POLICY, "at": at}
    if verdict["version"] != policy.version:
        return {**own, "action": Action.QUARANTINE.value, "reason": CHANGED}
    action = strictest(policy, fired(verdict))
    if verdict.get("reason") is not None:
        action = max(action, Action.QUARANTINE, key=lambda each: each.rank)
    return {**own, "action": action.value}


def strictest(policy: Policy, names: list[str] | tuple[str, ...]) -> Action:
    """What is done with an item that is of these categories.

    Raises:
        InvalidRequest: the policy has not got one of them.
    """
    actions = {category.name: category.action for category in policy.categories}
    if unknown := sorted(set(names) - set(actions)):
        raise InvalidRequest(
            f"The policy {policy.name!r} has no category {unknown[0]!r}.",
            remedy=f"It has {', '.join(sorted(actions))}.",
        )
    return max((actions[name] for name in names), key=lambda each: each.rank, default=Action.ALLOW)


def noted(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What the trail keeps of a verdict: what is in force, what it was found to be of, and what people said."""
    kept = {name: verdict[name] for name in _INFORCE if name in verdict}
    return {**kept, "of": fired(verdict), REVIEW: without(verdict.get(REVIEW) or {}, "number")}


def as_noted(verdict: Mapping[str, Any], part: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A verdict with what the trail kept of it put in force; what was found stays."""
    now = {name: value for name, value in verdict.items() if name != "reason" or name in part}
    now |= {name: part[name] for name in ("action", "by", "at", "reason") if name in part}
    review = Review.model_validate(part.get(REVIEW) or {})
    return with_review(now, review.model_copy(update={"number": number}))
