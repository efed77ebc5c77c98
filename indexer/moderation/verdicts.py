"""A verdict: what was found of an item and what is done with it, as it is kept with the item."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from indexer.moderation.facts import BY_POLICY
from indexer.moderation.policy import Action

__all__ = ["BY_POLICY", "Finding", "Verdict", "finding_of", "findings"]


class Finding(BaseModel):
    """What was found of an item for one category."""

    model_config = ConfigDict(frozen=True)

    score: float
    """The log-odds of the probability."""
    probability: Annotated[float, Field(ge=0, le=1)]
    fired: bool
    """Whether the probability reaches the category's threshold."""


class Verdict(BaseModel):
    """What is done with an item, and why."""

    model_config = ConfigDict(frozen=True)

    action: Action
    categories: dict[str, Finding] = {}
    """By category; those that do not apply to the item, or could not be judged, are not there."""
    policy: str
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """Of the policy."""
    by: str = BY_POLICY
    """`policy`, or the person who decided."""
    at: datetime
    reason: str | None = None
    """Why it was not judged in full, where that is so."""

    @property
    def fired(self) -> tuple[str, ...]:
        """The categories that it is of."""
        return tuple(name for name, finding in self.categories.items() if finding.fired)

    def to_payload(self) -> dict[str, Any]:
        """The verdict as compact JSON values, for an item's payload."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_payload(cls, stored: Any) -> Verdict:
        """The verdict that `to_payload` gave.

        Raises:
            pydantic.ValidationError: it is none.
        """
        return cls.model_validate(stored)


def finding_of(probability: np.float32, *, fired: bool) -> Finding:
    """A finding of a float32 probability."""
    scores, shares = findings(np.array([probability], dtype=np.float32))
    return Finding(score=float(scores[0]), probability=float(shares[0]), fired=fired)


def findings(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores, and probabilities in as few digits as tell them from their neighbours; NaN where there is none."""
    short = probabilities.astype(np.float32).astype("U32").astype(np.float64)
    certain = 1e-7  # the nearest to 1 that a float32 probability comes
    bounded = np.clip(short, certain, 1 - certain)
    scores = np.round(np.log(bounded / (1 - bounded)), 3).astype(np.float64)
    return scores, short
