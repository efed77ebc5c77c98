"""What queries and scores look like where nothing is looked for: a sample of a collection, and of everyday texts.

Two cosines can be compared only against such a background. A photo's cosines with photos are several times as large,
and spread several times as far, as a text's: in a plain sum the photo would decide alone. So the terms of a mixed query
are centred on what their modality has in common (Liang et al., "Mind the Gap", NeurIPS 2022), and each is divided by
the spread of its own scores over the sample.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.items import Kind, Modality
from search_api.filters import no_texts, of_kind

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from search_api.encoding import QueryEncoder

Vector = NDArray[np.float32]

SAMPLE = 512
"""Items of each modality that stand for the collection. Ids are hashes: the first ones are a random choice."""
LEAST = 16
"""Items without which nothing is said of the others."""

EVERYDAY = (
    "a dog", "two people talking", "a red car in a street", "a child playing", "a plate of food", "a mountain lake",
    "a cat on a sofa", "a bridge over a river", "a man riding a bicycle", "flowers in a garden", "a crowded market",
    "an old building", "a woman reading a book", "snow on trees", "a boat at sea", "a computer on a desk",
    "a football match", "a bird in flight", "a kitchen with a stove", "a train at a station", "a birthday cake",
    "a concert at night", "a page of text", "a map of a city", "a drawing of a house", "a close-up of an eye",
    "an empty road in the desert", "a horse in a field", "a shop window", "hands holding a cup", "an airplane",
    "children in a classroom",
)  # fmt: skip
"""Short texts about different things, from which the centre of texts is taken."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A score's mean and standard deviation over the sample."""

    mean: float
    deviation: float


class Background:
    """The background of one collection and model, taken when it is first asked for. Thread-safe.

    `sample` gives vectors of stored items of a modality, float32 (n, dimension); `embed` those of texts.
    """

    def __init__(self, sample: Callable[[Modality, int], Vector], embed: Callable[[Sequence[str]], Vector]) -> None:
        self._sample = sample
        self._embed = embed
        self._lock = threading.Lock()
        self._samples: dict[Modality, Vector] = {}
        self._centres: dict[Modality, Vector] = {}

    def centre(self, modality: Modality) -> Vector | None:
        """What a modality's vectors have in common, float32 (dimension,); None where there are too few to say."""
        with self._lock:
            if modality not in self._centres:
                some = self._embed(EVERYDAY) if modality == "text" else self._of(modality)
                if len(some) < LEAST:
                    return None
                self._centres[modality] = some.mean(axis=0)
            return self._centres[modality]

    def spread(self, vector: Vector, among: Modality) -> Spread | None:
        """How a query's scores with the stored items of a modality are spread; None where there are too few."""
        with self._lock:
            some = self._of(among)
        if len(some) < LEAST:
            return None
        scores = some @ vector
        return Spread(float(scores.mean()), max(float(scores.std()), 1e-6))

    def _of(self, modality: Modality) -> Vector:
        kept = self._samples.get(modality)
        if kept is None:
            kept = self._sample(modality, SAMPLE)
            if len(kept) >= LEAST:  # a collection that is just being filled is asked again
                self._samples[modality] = kept
        return kept


def background_of(encoder: QueryEncoder, collection: Collection) -> Background:
    """The background of a collection, taken from its own items and its encoder's texts."""

    def sample(modality: Modality, count: int) -> Vector:
        among = of_kind(Kind.TEXT) if modality == "text" else no_texts()
        items, _ = collection.scroll(count, filter=among, with_vectors=True)
        vectors = [item.vector for item in items if item.vector is not None]
        return np.stack(vectors) if vectors else np.empty((0, collection.dimension), np.float32)

    return Background(sample, lambda texts: encoder.encode_texts(texts).vectors)
