"""A collection as the columns that are learned from: what people decided on, and a sample of everything."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import PolicyInvalid
from indexer.flow import batched
from indexer.items import from_payload
from indexer.moderation.learning.propose import Proposal, learn
from indexer.moderation.learning.samples import Population, Reviewed
from indexer.moderation.review.state import BY_PERSON, Review, review_of
from indexer.moderation.verdicts import BY_POLICY
from indexer.store import Filter
from indexer.store.fields import BY_KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.items import Record
    from indexer.moderation.judging import ItemJudge
    from indexer.moderation.policy import Policy
    from indexer.store.collection import Collection
    from indexer.store.points import Point

MOST_SAMPLED = 50_000
MOST_REVIEWED = 50_000
"""Items, of each: vectors of 512 dimensions take 100 MB."""
_BATCH = 512


@dataclass(frozen=True)
class Report:
    """What was learned of a collection."""

    proposal: Proposal
    items: int
    """In the collection."""
    sampled: int
    reviewed: int
    """Items of which people said which categories they are of."""
    unnamed: int
    """Items that people rejected without saying what they are of: nothing is learned from them."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, with the pictures as SVG and the policy that is proposed."""
        return {
            **self.proposal.as_dict(),
            "items": self.items,
            "sampled": self.sampled,
            "reviewed": self.reviewed,
            "unnamed": self.unnamed,
            "proposed": self.proposal.policy.model_dump(mode="json", exclude_defaults=True),
            "pictures": {name: learned.picture() for name, learned in self.proposal.learned.items()},
        }


def learn_of(
    collection: Collection, judge: ItemJudge, *, sample: int = MOST_SAMPLED, precision: float | None = 0.95
) -> Report:
    """Learn the policy in force anew from the verdicts of people, and write nothing.

    `sample` items of the collection stand for all, drawn by their ids' hashes, so that the same are drawn again.
    `precision` is wanted in the collection, None for the highest F1. Nothing is decoded.

    Raises:
        PolicyInvalid: the policy cannot be opened here.
        InvalidRequest: there is nothing to learn from.
    """
    if judge.judge is None:
        raise PolicyInvalid(judge.trouble, remedy="Put what it names in its place, or another policy in force.")
    drawn, items = _drawn(collection, min(sample, MOST_SAMPLED))
    population = _columns(collection, judge, drawn)
    there = {item: row for row, item in enumerate(population.ids)}
    decided, unnamed = _decided(collection)
    reviewed = _columns(collection, judge, list(decided))
    names = [category.name for category in judge.stored.policy.categories]
    said = [decided[item] for item in reviewed.ids]
    labels = np.array([[name in (each.categories or ()) for name in names] for each in said], dtype=bool)
    groups: dict[str, int] = {}
    proposal = learn(
        judge.stored.policy,
        Reviewed(
            vectors=reviewed.vectors,
            probabilities=reviewed.probabilities,
            labels=labels.reshape(len(said), len(names)),
            known=np.ones((len(said), len(names)), dtype=bool),
            images=reviewed.images,
            places=np.array([there.get(item, -1) for item in reviewed.ids], dtype=np.int64),
            groups=np.array([groups.setdefault(each, len(groups)) for each in reviewed.groups], dtype=np.int64),
        ),
        Population(
            population.vectors, population.probabilities, population.images, size=max(items, len(population.ids))
        ),
        fingerprint=collection.fingerprint,
        precision=precision,
    )
    return Report(proposal, items, len(population.ids), len(said), unnamed)


@dataclass(frozen=True)
class _Columns:
    ids: list[str]
    vectors: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    images: NDArray[np.bool_]
    groups: list[str]
    """What copies of a picture, and parts of a file, have alike."""


def _drawn(collection: Collection, count: int) -> tuple[list[str], int]:
    """A uniform sample of the ids, and how many there are."""
    total = 0

    def hashed() -> Iterator[tuple[bytes, str]]:
        nonlocal total
        for some in collection.ids(1000):
            total += len(some)
            for item in some:
                yield hashlib.blake2b(item.encode(), digest_size=8).digest(), item

    return [item for _, item in heapq.nsmallest(count, hashed())], total


def _decided(collection: Collection) -> tuple[dict[str, Review], int]:
    """What people said of items, by id; and of how many they did not say what they are of."""
    decided: dict[str, Review] = {}
    unnamed = 0
    of_people = Filter.model_validate({"must_not": [{"key": BY_KEY, "match": {"value": BY_POLICY}}]})
    for item in collection.scan(of_people, batch=_BATCH):
        verdict = item.record.verdict or {}
        if not str(verdict.get("by", "")).startswith(BY_PERSON):
            continue
        review = review_of(verdict)
        if review.categories is None:
            unnamed += 1
        elif len(decided) < MOST_REVIEWED:
            decided[item.id] = review
    return decided, unnamed


def _columns(collection: Collection, judge: ItemJudge, ids: Sequence[str]) -> _Columns:
    """The items that are there, judged by the policy alone."""
    policy = judge.stored.policy
    found = _Columns(
        [],
        np.empty((len(ids), collection.dimension), np.float32),
        np.full((len(ids), len(policy.categories)), np.nan, np.float32),
        np.zeros(len(ids), dtype=bool),
        [],
    )
    for some in batched(ids, _BATCH):
        points = list(collection.points(some).values())
        if not points:
            continue
        begin, end = len(found.ids), len(found.ids) + len(points)
        records = _judged(judge, points, found.probabilities[begin:end], policy)
        found.vectors[begin:end] = [point.vector for point in points]
        found.images[begin:end] = [record.kind.modality == "image" for record in records]
        found.ids.extend(point.id for point in points)
        found.groups.extend(record.parent or record.pdq or record.sha256 for record in records)
    count = len(found.ids)
    return _Columns(found.ids, found.vectors[:count], found.probabilities[:count], found.images[:count], found.groups)


def _judged(
    judge: ItemJudge, points: Sequence[Point], probabilities: NDArray[np.float32], policy: Policy
) -> list[Record]:
    """The records of points, whose probabilities are filled in; NaN stays where a category does not apply."""
    pairs = [from_payload(point.payload) for point in points]
    records = [record for record, _ in pairs]
    vectors = np.stack([point.vector for point in points])
    verdicts = judge.verdicts(records, [payload for _, payload in pairs], vectors)
    for row, verdict in enumerate(verdicts):
        for column, category in enumerate(policy.categories):
            finding = verdict["categories"].get(category.name)
            if finding is not None:
                probabilities[row, column] = finding["probability"]
    return records
