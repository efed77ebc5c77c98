"""A policy about animals and food, and stored items with what it found of them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from indexer.items import Location, Record, to_payload
from indexer.moderation.policy import Category, Policy, Text
from indexer.moderation.verdicts import Finding, Verdict
from indexer.settings import Settings
from indexer.store import Collection, Point, open_store

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def category(name: str, action: str, threshold: float = 0.5) -> Category:
    rule = Text(type="text", words=(name,))
    return Category(name=name, action=action, threshold=threshold, detectors=(rule,))


POLICY = Policy(
    name="menagerie",
    categories=(category("cats", "flag"), category("dogs", "quarantine", 0.8), category("soup", "block")),
)
OTHER = Policy(name="menagerie", categories=(*POLICY.categories, category("cars", "flag")))


class Clock:
    """A second later whenever it is asked."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def item_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def judged(
    policy: Policy = POLICY, *, at: datetime = START, reason: str | None = None, **probabilities: float
) -> Verdict:
    """The verdict as the judge would make it of these probabilities."""
    found, action = {}, "allow"
    ranks = ["allow", "flag", "blur", "quarantine", "block"]
    for each in policy.categories:
        if each.name in probabilities:
            likely = probabilities[each.name]
            fired = likely >= each.threshold
            score = float(np.log(likely / (1 - likely)))
            found[each.name] = Finding(score=round(score, 3), probability=likely, fired=fired)
            if fired:
                action = max(action, each.action, key=ranks.index)
    if reason:
        action = max(action, "quarantine", key=ranks.index)
    return Verdict(action=action, categories=found, policy=policy.name, version=policy.version, at=at, reason=reason)


def point(number: int, verdict: Verdict | None) -> Point:
    record = Record(
        kind="text",
        sha256=f"{number:064x}",
        locations=[Location(source=f"/{number}")],
        bytes=1,
        media_type="text/plain",
        added_at=START,
        verdict=None if verdict is None else verdict.to_payload(),
    )
    return Point(item_id(number), np.eye(4, dtype=np.float32)[number % 4], to_payload(record, {"tag": number}))


@contextmanager
def collection_in(data: Path) -> Iterator[Collection]:
    """An empty collection of the embedded index."""
    with open_store(Settings(data=data)) as store:
        store.create("media", "m", "f" * 16, 4)
        yield store.get("media")


def verdict_of(collection: Collection, number: int) -> dict[str, Any]:
    stored = collection.get(item_id(number))
    assert stored is not None
    assert stored.payload == {"tag": number}, "what the caller wrote stays"
    assert stored.record.verdict is not None
    return stored.record.verdict


def wipe(collection: Collection) -> None:
    collection.delete([item for page in collection.ids(256) for item in page])
