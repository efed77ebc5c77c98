"""What reviewing answers: the queue, entries of the trail, appeals, and what was learned."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from indexer.items import Kind
from search_api.openapi.answers import Absent, Answer, Count, Payload, Probability, Seconds


class Waiting(Answer):
    """An item that waits for a person."""

    id: str
    kind: Kind
    source: str
    payload: Payload
    text: str | Absent = None
    thumbnail: str | None
    """Where it is; null for texts."""
    why: Literal["appeal", "disputed", "proposed", "not judged", "quarantine", "flag", "blur", "block"]
    """Why it waits."""
    distance: Annotated[float, Field(ge=0)]
    """In log-odds, from its probability to the threshold of the category where that is least."""
    shown: Count
    """How often visitors were shown it, a few seconds ago."""
    number: Count
    """Of the trail's last entry about it; who decides sends it along in `seen`."""
    verdict: dict[str, Any] | None
    """What was found and what people said; null where it was not judged yet."""


class ReviewQueue(Answer):
    """What waits, the most pressing first."""

    items: list[Waiting]
    next: str | None
    """Ask with `after` set to this for what follows."""
    reviewers: Literal[1, 2]
    """How many people have to decide the same before it counts."""


class TrailEntry(Answer):
    """A line of the audit trail."""

    number: Annotated[int, Field(ge=1)]
    at: datetime
    who: str
    what: Literal["approve", "reject", "recategorise", "withdraw", "undo", "appeal", "policy"]
    item: str | None
    """The item's id in the index."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    note: str
    undoes: int | Absent = None
    """The number of the entry that this one undoes."""
    previous: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the line before."""


class Decided(Answer):
    """What was decided, an entry of the trail for each item, in their order."""

    entries: list[TrailEntry]


class Appealed(Answer):
    """An appeal that was taken down."""

    id: str
    at: datetime


class Bounds(Answer):
    """A measure, and the interval that it is in with 95% certainty."""

    value: float
    low: float
    high: float


class LearnedCategory(Answer):
    """What was learned of a category; only its name and why, where nothing was."""

    category: str
    recommended: bool
    refused: str | Absent = None
    """Why nothing was learned."""
    change: Literal["head", "threshold"] | Absent | None = None
    """What is recommended: a linear head, another threshold, or nothing."""
    kinds: list[str] | Absent = None
    reviewed: Count | Absent = None
    positive: Count | Absent = None
    unreviewed: Probability | Absent = None
    """The share of the collection of whose like nothing was reviewed."""
    base_rate: Bounds | Absent = None
    threshold: Probability | Absent = None
    ordering: dict[str, Bounds] | Absent = None
    before: dict[str, Any] | Absent = None
    """Precision, recall and more of the category as it is."""
    tuned: dict[str, Any] | Absent | None = None
    """The same, with a better threshold."""
    head: dict[str, Any] | Absent | None = None
    """The same, with a linear head."""
    gains: dict[str, dict[str, Bounds]] | Absent = None
    after: dict[str, Any] | Absent | None = None
    """The same, as recommended."""
    notes: list[str] | Absent = None


class Learned(Answer):
    """What people's decisions taught; nothing was put in force."""

    goal: dict[str, Probability] | Literal["f1"]
    policy: str
    from_: Annotated[str, Field(alias="from", description="The version in force.")]
    to: str
    """The version that is proposed; the same where nothing is."""
    recommended: bool
    categories: list[LearnedCategory]
    items: Count
    """In the collection."""
    sampled: Count
    """Of these, how many stand for all."""
    reviewed: Count
    """Of which people said what they are of."""
    unnamed: Count
    """That people rejected without saying so: nothing is learned from them."""
    proposed: dict[str, Any]
    """The policy, as PUT takes it."""
    pictures: dict[str, str]
    """Precision and recall by category, as SVG."""
    took_ms: Seconds
