"""What classification answers: how probable labels are, and the sets of labels that a collection keeps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from search_api.openapi.answers import Answer, Probability, Seconds


class LabelProbability(Answer):
    """How probable a label is."""

    name: str
    probability: Probability
    score: float
    """The cosine with the label's prompts."""


class Classified(Answer):
    """What one picture or text is."""

    item: str | None
    tags: list[str]
    none: Probability
    """That it is none of the labels."""
    labels: list[LabelProbability]


class Classification(Answer):
    """What each of the pictures and texts is, in their order."""

    results: list[Classified]
    multi: bool
    threshold: Probability
    probabilities_from: dict[str, str]
    set: str | None
    version: int | None
    took_ms: Seconds
    model: str
    fingerprint: str
    warnings: list[str]


class KeptLabel(Answer):
    """A label of a set."""

    name: str
    prompts: list[str]


class KeptLabelSet(Answer):
    """A label set as a collection keeps it."""

    name: str
    labels: list[KeptLabel]
    template: str
    multi: bool
    threshold: Probability
    field: str
    version: Annotated[int, Field(ge=1)]
    updated_at: datetime


class LabelSetList(Answer):
    """The label sets of a collection, by name."""

    sets: list[KeptLabelSet]
