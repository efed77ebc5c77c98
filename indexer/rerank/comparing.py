"""Items compared with a query's texts, by the model for what they are: pictures, or texts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from indexer.models.rerank.reranker import Features, Floats, PairScores, Reranker, TextReranker
    from indexer.rerank.candidates import Candidates
    from indexer.rerank.opening import Wanted
    from indexer.rerank.walk import Walk
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
class Batch:
    """What became of some items of a list."""

    found: Mapping[int, Match | None]
    """By their places. None where there is nothing to compare: the original is gone, or does not decode."""
    truncated: bool = False
    """Whether something was longer than the model reads, and was cut."""
    seconds: float = 0.0
    """What the model took."""


class Comparer(Protocol):
    """Compares items of one modality."""

    @property
    def model(self) -> Reranker | TextReranker:
        """What scores them."""

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk) -> Iterator[Batch]:
        """How well items fit texts, batch by batch, as far as the walk goes; those in no batch it did not come to.

        Raises:
            ModelError: the model does not run.
        """


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of a list of items of one modality."""

    count: int
    """Of the items."""
    found: Mapping[int, Match | None]
    """As of a `Batch`; of those that are not in it there was no time for."""
    truncated: bool = False
    hindered: str = ""
    """What else than the time kept some from being compared: a sentence."""

    @property
    def scored(self) -> int:
        """How many have a match."""
        return sum(match is not None for match in self.found.values())

    @property
    def gone(self) -> int:
        """How many there is nothing of to compare."""
        return len(self.found) - self.scored

    @property
    def order(self) -> list[int]:
        """The items' places in their new order. Those that were not come to stay where they are: nothing is known of
        them. In the others' places come those with a match, the best first, then those without, as they were.
        """
        places = sorted(self.found)
        scores = {place: -math.inf if match is None else match.score for place, match in self.found.items()}
        order = list(range(self.count))
        for place, chosen in zip(places, sorted(places, key=lambda place: -scores[place]), strict=True):
            order[place] = chosen
        return order


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

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk) -> Iterator[Batch]:
        """As `Comparer.compare`: first what was looked at before, since that costs little; then, as they are opened,
        the others. A picture that is looked at is compared in the same batch, so that it was not for nothing.
        """
        with self._candidates.wanted() as wanted:
            new: dict[str, list[int]] = {}
            yield from self._known(texts, items, walk, wanted, new)
            while not walk.is_over and (opened := wanted.next(self.model.vision_batch, walk.patience)):
                gone = [place for key, pixels in opened.items() if pixels is None for place in new[key]]
                if gone:
                    yield Batch(dict.fromkeys(gone))
                there = {key: pixels for key, pixels in opened.items() if pixels is not None}
                if there:
                    yield from _ran(walk, partial(self._looked_at, texts, there, new))

    def _known(
        self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk, wanted: Wanted, new: dict[str, list[int]]
    ) -> Iterator[Batch]:
        """What was looked at before. Of what was not, the originals are asked for, and the places go into `new`."""
        kept: dict[int, Features] = {}
        for place, item in enumerate(items):
            if walk.is_over:
                return
            key = self._candidates.key_of(item.record)
            if key is None:
                yield Batch({place: None})
            elif key in new:
                new[key].append(place)
            elif (features := self._candidates.kept(key)) is not None:
                kept[place] = features
            else:
                new[key] = [place]
                wanted.add(key, item.record)
            if len(kept) == self.model.max_batch or (kept and not walk.patience):
                yield from _ran(walk, partial(self._matched, texts, kept))
                kept = {}
        if kept:
            yield from _ran(walk, partial(self._matched, texts, kept))

    def _looked_at(
        self, texts: Sequence[Text], opened: Mapping[str, Floats], places: Mapping[str, Sequence[int]]
    ) -> tuple[dict[int, Match | None], bool]:
        found = [(place, seen) for key, seen in self._candidates.looked_at(opened).items() for place in places[key]]
        matches, truncated = self._matched(texts, {place: seen for place, seen in found if seen is not None})
        return {place: matches.get(place) for place, _ in found}, truncated

    def _matched(self, texts: Sequence[Text], features: Mapping[int, Features]) -> tuple[dict[int, Match | None], bool]:
        if not features:
            return {}, False
        matches, truncated = _mean(texts, [self.model.scores(each.text, list(features.values())) for each in texts])
        return dict(zip(features, matches, strict=True)), truncated


class Texts:
    """Compares texts."""

    def __init__(self, model: TextReranker) -> None:
        self.model = model

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk) -> Iterator[Batch]:
        """As `Comparer.compare`, from the best down."""
        for at in range(0, len(items), self.model.max_batch):
            passages = [item.record.text or "" for item in items[at : at + self.model.max_batch]]
            yield from _ran(walk, partial(self._matched, texts, at, passages))

    def _matched(self, texts: Sequence[Text], at: int, passages: Sequence[str]) -> tuple[dict[int, Match | None], bool]:
        matches, truncated = _mean(texts, [self.model.scores(each.text, passages) for each in texts])
        return dict(enumerate(matches, at)), truncated


def _ran(walk: Walk, batch: Callable[[], tuple[dict[int, Match | None], bool]]) -> Iterator[Batch]:
    """The batch, if there is time for it."""
    if (ran := walk.run(batch)) is not None:
        yield Batch(*ran.result, ran.seconds)


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
