"""How probable it is that a result is what was looked for, beside the bare cosine.

In this order: a logistic fitted on the user's own pairs (`crosslens eval --fit`), the model's own calibration, or,
where there is neither, the collection's background: a score as high as the best of as many unrelated items has a
probability of one half. The expected highest of N scores lies sqrt(2 ln N) standard deviations above their mean (for
normal ones; Leadbetter, Lindgren and Rootzén, "Extremes and Related Properties of Random Sequences", 1983).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.items import Modality
from search_api.background import Background
from search_api.composing import Composed, Weighed

if TYPE_CHECKING:
    from indexer.models.manifest import Calibration, Manifest
    from indexer.store.collection import Collection

Floats = NDArray[np.float32]
Origin = Literal["fitted", "model", "background"]

_STEEPNESS = 2.0
"""Of the logistic over standard deviations, where the background decides."""


class Relevance:
    """Probabilities for one collection.

    `fitted` are the collection's own calibrations by direction, `count` tells how many items it holds.
    """

    def __init__(
        self, manifest: Manifest, fitted: dict[str, Calibration], background: Background, count: Callable[[], int]
    ) -> None:
        self._manifest = manifest
        self._fitted = fitted
        self._background = background
        self._count = count

    def of(self, query: Composed, vectors: Floats | None, scores: Floats, among: Modality) -> Floats | None:
        """The probabilities of items with these cosines to a query, float32 (n,).

        A query of several terms is as relevant as the least fitting of those that do not lead away; for that the
        items' vectors, float32 (n, dimension), are needed. None where nothing can be said.
        """
        if len(query.terms) == 1:
            return self._of_term(query.terms[0], np.sign(query.terms[0].weight) * scores, among)
        toward = [term for term in query.terms if term.weight > 0]
        if vectors is None or not toward:
            return None
        of_terms = [self._of_term(term, vectors @ term.raw, among) for term in toward]
        known = [each for each in of_terms if each is not None]
        return np.minimum.reduce(known) if len(known) == len(toward) else None

    def origin(self, term: Weighed, among: Modality) -> Origin:
        """What the probabilities for a term rest on."""
        direction = f"{term.modality}_to_{among}"
        if direction in self._fitted:
            return "fitted"
        return "model" if self._of_model(direction) is not None else "background"

    def _of_term(self, term: Weighed, cosines: Floats, among: Modality) -> Floats | None:
        if term.weight < 0:
            return None
        direction = f"{term.modality}_to_{among}"
        if (fitted := self._fitted.get(direction)) is not None:
            return _logistic(fitted.scale * cosines + fitted.bias)
        if (own := self._of_model(direction)) is not None:
            return _logistic(own[0] * cosines + own[1])
        spread = self._background.spread(term.raw, among)
        if spread is None:
            return None
        return _logistic(_STEEPNESS * ((cosines - spread.mean) / spread.deviation - self._best_of_others))

    @cached_property
    def _best_of_others(self) -> float:
        """In deviations above the mean. Counted once: it hardly changes with the count, which takes a round trip."""
        return math.sqrt(2 * math.log(max(self._count(), 2)))

    def _of_model(self, direction: str) -> tuple[float, float] | None:
        manifest = self._manifest
        if (own := manifest.calibration.get(direction)) is not None:  # type: ignore[call-overload]
            return own.scale, own.bias
        # A sigmoid loss was trained to be the probability of a pair; a softmax over a batch was not.
        if manifest.logit_scale is not None and manifest.logit_bias is not None and direction in _PAIRS:
            return manifest.logit_scale, manifest.logit_bias
        return None


def fitted_of(collection: Collection) -> dict[str, Calibration]:
    """What `crosslens eval --fit` left with a collection, by direction."""
    stored = collection.metadata.get("calibration")
    if not stored:
        return {}
    from indexer.models.manifest import Calibration  # noqa: PLC0415

    return {direction: Calibration.model_validate(each) for direction, each in stored.items()}


_PAIRS = ("text_to_image", "image_to_text")


def _logistic(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), dtype=np.float32)
