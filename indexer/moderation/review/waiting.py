"""What waits for a person, the most pressing first.

Appeals come first, then what two people dispute, what waits for a second person, what the policy held back because it
could not judge it, and then everything else that it flagged, blurred, held back or blocked and nobody has decided on.
Within each of these, what most people are expected to see wrongly comes first: its reach, times how likely the policy
is to be wrong about it, which is the more so the nearer its probability is to a threshold.

A page costs the same however long the queue is: of each kind (`KINDS`) the first `WINDOW` items in the order of their
ids are looked at, found by indexed fields, so at most `WINDOW * len(KINDS)` (twice that if as many are new since the
first page): 0.1 to 0.2 s measured with three kinds' windows full. Ids are hashes: these are as good as drawn by chance,
and those behind them move up as they are decided.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from indexer.errors import InvalidCursor, InvalidRequest
from indexer.moderation.policy import Action, Policy
from indexer.moderation.review.state import STATE_KEY, Review, State, review_of
from indexer.moderation.verdicts import BY_POLICY
from indexer.store import Filter
from indexer.store.fields import ACTION_KEY, BY_KEY

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from indexer.store.points import Stored

WINDOW = 500
"""Items of each kind that are looked at."""
KINDS = (*State, Action.QUARANTINE, Action.FLAG, Action.BLUR, Action.BLOCK)
MOST = 200
"""On a page."""

_NOT_JUDGED = "not judged"
_SURE = 20.0
"""The distance in log-odds of what was judged for no category."""

Reach = Callable[[Sequence[str]], Mapping[str, int]]
"""Ids to how many people saw each, or may; those that are not there count as 0."""


@dataclass(frozen=True)
class Waiting:
    """An item that waits."""

    item: Stored
    why: str
    """`appeal`, `disputed`, `proposed`, `not judged`, or the action."""
    distance: float
    """In log-odds, from its probability to the threshold of the category where that is least."""
    reach: int
    review: Review
    """What people said so far; its number goes with a decision."""


class _Place(NamedTuple):
    """Where an item stands in the queue; the least comes first."""

    rank: int
    priority: float
    id: str


class _Cursor(NamedTuple):
    """Where a page ended, and how far each kind's window went when the first page was made."""

    place: _Place
    ends: dict[str, str]


_CURSOR: TypeAdapter[_Cursor] = TypeAdapter(_Cursor)
_RANKS = {**{state.value: rank for rank, state in enumerate(State)}, _NOT_JUDGED: len(State)}


def queue(
    collection: Collection,
    policy: Policy,
    *,
    limit: int = 50,
    after: str | None = None,
    reach: Reach | None = None,
    but_of: str | None = None,
) -> tuple[list[Waiting], str | None]:
    """A page of what waits, and the cursor of the next; None when nothing follows.

    Whoever decides meanwhile, an item that waits all the while comes once, if its findings and its reach stay. What is
    new comes if its place is still ahead. `but_of` leaves out what this person has proposed something for.

    Raises:
        InvalidCursor: `after` was not given out here.
        InvalidRequest: a page of none, or of more than `MOST`.
    """
    if not 1 <= limit <= MOST:
        raise InvalidRequest(f"A page of the queue has 1 to {MOST} items.")
    cursor = _read(after) if after is not None else None
    items, ends = _windows(collection, cursor.ends if cursor else {})
    seen_by = (reach(list(items)) if reach and items else None) or {}
    placed = []
    for item in items.values():
        waiting = _waiting(item, policy, max(0, seen_by.get(item.id, 0)))
        place = _place(waiting)
        mine = but_of is not None and waiting.review.proposal_of(but_of) is not None
        if not mine and (cursor is None or place > cursor.place):
            placed.append((place, waiting))
    placed.sort(key=lambda each: each[0])
    page = placed[:limit]
    more = len(placed) > limit
    return [waiting for _, waiting in page], _written(_Cursor(page[-1][0], ends)) if more else None


def _windows(collection: Collection, ends: Mapping[str, str]) -> tuple[dict[str, Stored], dict[str, str]]:
    """The items of all kinds' windows, by id, and the last id of each window."""
    items: dict[str, Stored] = {}
    reached: dict[str, str] = {}
    for kind in KINDS:
        found, rest = collection.scroll(WINDOW, filter=_of_kind(kind))
        if kind in ends:
            if rest is not None and rest <= ends[kind]:  # new ones came between
                found += collection.scroll(WINDOW, filter=_of_kind(kind), after=rest)[0]
            # As some were decided, others moved up; they may stand before what was shown already.
            found = [item for item in found if item.id <= ends[kind]]
            reached[kind] = ends[kind]
        elif found:
            reached[kind] = found[-1].id
        for item in found:
            items.setdefault(item.id, item)
    return items, reached


def _of_kind(kind: State | Action) -> Filter:
    wanted = {STATE_KEY: kind.value} if isinstance(kind, State) else {BY_KEY: BY_POLICY, ACTION_KEY: kind.value}
    return Filter.model_validate({"must": [{"key": key, "match": {"value": value}} for key, value in wanted.items()]})


def _waiting(item: Stored, policy: Policy, reach: int) -> Waiting:
    verdict = item.record.verdict or {}
    review = review_of(verdict)
    why = review.state or str(verdict.get("action"))
    if review.state is None and str(verdict.get("reason") or "").startswith(_NOT_JUDGED):
        why = _NOT_JUDGED
    return Waiting(item, str(why), distance(verdict, policy), reach, review)


def distance(verdict: Mapping[str, Any], policy: Policy) -> float:
    """How far a verdict is from changing: log-odds from a probability to its threshold, the least of all categories."""
    thresholds = {category.name: category.threshold for category in policy.categories}
    findings = (verdict.get("categories") or {}).items()
    return min(
        (
            abs(finding["score"] - math.log(thresholds[name] / (1 - thresholds[name])))
            for name, finding in findings
            if name in thresholds
        ),
        default=_SURE,
    )


def _place(waiting: Waiting) -> _Place:
    # log of (1 + reach) * sigmoid(-distance): the people who see it, times the odds that the policy errs.
    urgency = math.log1p(waiting.reach) - waiting.distance - math.log1p(math.exp(-waiting.distance))
    return _Place(_RANKS.get(waiting.why, len(_RANKS)), -urgency, waiting.item.id)


def _written(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode()


def _read(text: str) -> _Cursor:
    try:
        return _CURSOR.validate_json(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (ValueError, ValidationError) as error:
        raise InvalidCursor("The queue gave out no such cursor.") from error
