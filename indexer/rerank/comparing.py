"""Items compared with a query's texts, by the model for what they are: pictures, or texts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from indexer.models.rerank.reranker import PairScores, Reranker, TextReranker
    from indexer.rerank.candidates import Candidates
    from indexer.store.points import Stored


@dataclass(frozen=True, slots=True)
class Text:
    """A text that items are compared with, and how much it weighs: more than 0."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Match:
    """How well an item fits the texts: means of what it has with each, by their weights."""

    matching: float
    """The logit of a match."""
    contrastive: float | None
    """A cosine; None of texts."""
    score: float
    """What ranks."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Those of some items, in their order."""

    found: list[Match | None]
    """None where there is nothing to compare: the original is gone, does not decode, or did not come in time."""
    truncated: bool
    """Whether something was longer than the model reads, and was cut."""


class Comparer(Protocol):
    """Compares items of one modality."""

    @property
    def model(self) -> Reranker | TextReranker:
        """What scores them."""

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], seconds: float) -> Matches:
        """How well items fit texts; after so many seconds no further picture is looked at.

        Raises:
            ModelError: the model does not run.
        """


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of some items of one modality, in their order."""

    matches: list[Match | None]
    """None of those that were not reached, or could not be looked at."""
    reached: int
    """How many there was time for, from the first."""
    truncated: bool = False

    @property
    def scored(self) -> int:
        """How many have a match."""
        return sum(match is not None for match in self.matches)

    @property
    def order(self) -> list[int]:
        """The items' places: those with a match first, the best before all, then the others as they were."""
        scores = [-math.inf if match is None else match.score for match in self.matches]
        return sorted(range(len(scores)), key=lambda place: -scores[place])


class Elsewhere(ABC):
    """Compares items of one modality in another process, which walks down their list itself."""

    @abstractmethod
    def compare_list(self, texts: Sequence[Text], items: Sequence[Stored], seconds: float) -> Compared:
        """How well items fit texts, of as many as there is time for.

        Raises:
            RerankerAway: nobody is there who could.
            ModelError: the model does not run.
        """


class Pictures:
    """Compares whatever has a picture. What is seen in one is kept, so that it is looked at once."""

    def __init__(self, model: Reranker, candidates: Candidates) -> None:
        self.model = model
        self._candidates = candidates

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], seconds: float) -> Matches:
        """As `Comparer.compare`."""
        features = self._candidates.features([item.record for item in items], seconds)
        there = [each for each in features if each is not None]
        if not there:
            return Matches([None] * len(items), truncated=False)
        matches, truncated = _mean(texts, [self.model.scores(each.text, there) for each in texts])
        following = iter(matches)
        return Matches([None if each is None else next(following) for each in features], truncated)


class Texts:
    """Compares texts."""

    def __init__(self, model: TextReranker) -> None:
        self.model = model

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], seconds: float) -> Matches:  # noqa: ARG002  at hand
        """As `Comparer.compare`."""
        passages = [item.record.text or "" for item in items]
        matches, truncated = _mean(texts, [self.model.scores(each.text, passages) for each in texts])
        return Matches(list(matches), truncated)


def _mean(texts: Sequence[Text], scores: Sequence[PairScores]) -> tuple[list[Match], bool]:
    """The scores of several texts with the same items as one, and whether something was cut."""
    weights = np.array([text.weight for text in texts])
    shares = weights / weights.max()  # so that their sum is finite
    shares /= shares.sum()
    matching = shares @ np.stack([each.matching for each in scores])
    score = shares @ np.stack([each.score for each in scores])
    cosines = [each.contrastive for each in scores if each.contrastive is not None]
    contrastive = shares @ np.stack(cosines) if cosines else None
    matches = [
        Match(float(matching[at]), None if contrastive is None else float(contrastive[at]), float(score[at]))
        for at in range(len(matching))
    ]
    return matches, any(each.truncated for each in scores)
