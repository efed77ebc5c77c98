"""What moderation answers: policies, dry runs, hash lists, and what was judged on the fly."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from search_api.openapi.answers import Absent, Answer, Count, Failure, Job, Probability, Seconds

Actions = Literal["allow", "flag", "blur", "quarantine", "block"]
Version = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

SIGNALS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "data": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Each with `indicator`, 64 hex digits, and `type`, HASH_PDQ or HASH_SHA256; those of other "
            "types are left out, whatever they are.",
        }
    },
    "required": ["data"],
    "description": "ThreatExchange's indicators. As CSV or plain text: a hash a line, or a header with hash and type.",
}
"""The body of PUT of a hash list, as JSON."""


class StartingCategory(Answer):
    """A category of a policy that ships."""

    name: str
    action: Actions
    threshold: Probability
    description: str
    trust: str
    """How far to trust it, and with which bundle."""
    detectors: list[str]


class ListedStartingPolicy(Answer):
    """A policy that ships."""

    name: str
    version: Version
    description: str
    categories: list[StartingCategory]
    hash_lists: list[str]
    """Those that it needs."""
    classifiers: list[str]
    """Likewise."""


class StartingPolicies(Answer):
    """The policies that ship, by name."""

    policies: list[ListedStartingPolicy]


class StartingPolicy(ListedStartingPolicy):
    """A policy that ships, as it is written."""

    text: str
    """Its file, in YAML."""
    policy: dict[str, Any]


class ListedPolicy(Answer):
    """Which policy it is, without what is in it."""

    name: str
    number: Annotated[int, Field(ge=1)]
    version: Version
    """Of what is in it: the same again has the same."""
    at: datetime
    """Since when it was in force."""
    by: str
    """Who put it there."""
    reviewers: Literal[1, 2]
    """How many people have to decide the same before it counts."""
    queries: bool
    """Whether what visitors search with is judged, too."""
    in_force: bool


class PolicyList(Answer):
    """The policy in force and those before it, the latest first."""

    policies: list[ListedPolicy]


class KeptPolicy(ListedPolicy):
    """A policy as a collection keeps it."""

    policy: dict[str, Any]


class PutPolicy(KeptPolicy):
    """A policy that is in force."""

    rescan: Job | None
    """The job that judges what is stored; null where nothing has to be judged, or a warning says why."""
    warnings: list[str]


class Rates(Answer):
    """How a rule fares on what people decided on."""

    items: Count
    """That people decided on."""
    caught: Count
    """By the rule."""
    meant: Count
    """By people."""
    precision: Probability | None
    recall: Probability | None


class NearItem(Answer):
    """An item near a threshold."""

    id: str
    probability: Probability
    fired: bool
    before: Actions | Literal["none"]
    after: Actions
    thumbnail: str | None
    """Where it is; null for texts."""


class CategoryRun(Answer):
    """What a dry run found for one category."""

    name: str
    action: Actions
    threshold: Probability
    fired: Count
    """Items of it."""
    joined: Count
    """Of these, which are not by their present verdict."""
    left: Count
    """Items that are of it by their present verdict and no longer would be."""
    reviewed: Rates
    nearest: list[NearItem]


class DryRun(Answer):
    """What a policy would change; nothing was written."""

    policy: str
    version: Version
    items: Count
    """In the collection."""
    judged: Count
    complete: bool
    """Whether all were looked at; else the first by their ids, which are as good as drawn by chance."""
    changed: Count
    """Whose action would be another."""
    held_back: Count
    """That could not be judged in full."""
    unscored: Count
    """Pictures that an image classifier of the policy has yet to see, which only a rescan lets it: not counted else."""
    actions: dict[str, dict[str, Count]]
    """Items by their action of now (`none` without a verdict), and by the one that they would have."""
    reviewed: Rates
    """Of withholding."""
    categories: list[CategoryRun]


class HashListEntry(Answer):
    """A list of hashes."""

    name: str
    count: Count
    at: datetime
    by: str
    sha256: Sha256
    """Of its content."""


class HashLists(Answer):
    """The hash lists of a collection, by name."""

    lists: list[HashListEntry]


class PutHashList(HashListEntry):
    """A list of hashes, and what was taken of what was sent."""

    taken: Count
    twice: Count
    """Left out, as they stood there before."""
    other_kinds: Count
    """Left out, as they are of kinds that are not compared here."""
    flat: Count
    """Left out, as they are of pictures too flat to be told apart."""
    rescan: Job | None
    warnings: list[str]


class JudgedCategory(Answer):
    """How probable it is that something is of a category."""

    name: str
    probability: Probability
    threshold: Probability
    fired: bool
    action: Actions
    """What is done with what is of it."""


class JudgedThing(Answer):
    """What would be done with a text or a picture, or why it was not judged."""

    action: Actions | Absent = None
    categories: list[JudgedCategory] | Absent = None
    """Those that apply to it."""
    reason: str | Absent = None
    """Why it was not judged in full."""
    error: Failure | Absent = None


class Moderated(Answer):
    """What would be done with each of the texts and pictures, in their order."""

    results: list[JudgedThing]
    policy: str
    version: Version
    number: int | None
    """Of a policy in force."""
    collection: str | None
    """Where it is in force."""
    took_ms: Seconds
    model: str
    fingerprint: str
    warnings: list[str]
