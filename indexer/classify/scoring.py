"""From cosines with labels to probabilities, with "none of these" among the outcomes.

All rests on one logit for an item and a label: the log-odds that they match, at the base rate of what it was fitted
on. It comes from the model's calibration, or else from the background: texts about other things, which a label has to
beat. A logistic that was fitted on a collection's own pairs (`crosslens eval --fit`) is for queries, not for labels: of
159 photos, the one fitted on their captions gave the cosine that true labels have on average a logit of -3.5, the one
fitted on labels -1.9, as the built-in model's own does.

- Many labels: the logistic of each logit, so a probability is as in the calibration: among everyday pairs.
- One label: outcomes exclude each other, so their odds against "none" are compared, in a softmax where "none" has the
  logit 0 (a multinomial logit). A base rate is not the share among these few labels: it is taken out of the logits and
  one half for "none", the other half for all labels alike, put in its place (Saerens, Latinne and Decaestecker,
  "Adjusting the Outputs of a Classifier to New a Priori Probabilities", 2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.items import Modality

if TYPE_CHECKING:
    from indexer.models.manifest import Manifest

Floats = NDArray[np.float32]
Origin = Literal["model", "background"]

BASE_RATE = 0.01
"""Calibrations are fitted as if one item in a hundred matched: without a base rate, a probability means nothing."""

OTHERS = (
    "a dog", "a man and a woman talking", "a car in a street", "children playing", "a plate of food", "a mountain lake",
    "a sofa and a table", "a bridge over a river", "a person riding a bicycle", "flowers in a garden", "a crowd",
    "an old building", "somebody reading a book", "snow on trees", "a boat at sea", "a computer on a desk",
    "a football match", "a bird", "a kitchen", "a train at a station", "a cake", "a concert at night", "a page of text",
    "a map", "a drawing", "a close-up of an eye", "an empty road in the desert", "a horse in a field", "a shop window",
    "hands holding a tool", "an airplane", "a classroom", "a brick wall", "grass", "the night sky",
    "an abstract pattern", "a statue", "a portrait of a man", "a machine", "an X-ray",
)  # fmt: skip
"""What else a picture or a text may be about."""

_STEEPNESS = 2.0
"""Of the logistic over standard deviations, where the background alone decides; as in searches."""
_LEAST_DEVIATION = 0.02
_NONE_PRIOR = 0.5


@dataclass(frozen=True)
class Scale:
    """How cosines become logits."""

    origin: Origin
    base_rate: float
    slope: float | None = None
    """Of the cosine; None: in standard deviations of the cosines with other things."""
    offset: float | None = None
    """None: what the item has with other things is the level to beat."""

    @property
    def needs_others(self) -> bool:
        """Whether the cosines with other things are looked at."""
        return self.offset is None

    def logits(self, cosines: Floats, others: Floats) -> Floats:
        """The log-odds of a match, float32 (n, k), from cosines with labels (n, k) and with other things (n, m)."""
        if self.slope is not None and self.offset is not None:
            values = self.slope * cosines + self.offset
        elif self.slope is not None:
            # A softmax loss says nothing of one pair: only that its text beats other texts for the same picture.
            values = self.slope * cosines - _log_sum_exp(self.slope * others)
        else:
            mean = others.mean(axis=1, keepdims=True)
            deviation = np.maximum(others.std(axis=1, keepdims=True), _LEAST_DEVIATION)
            # As good as the best of as many unrelated ones: one half (see search_api.relevance).
            best = math.sqrt(2 * math.log(max(others.shape[1], 2)))
            values = _STEEPNESS * ((cosines - mean) / deviation - best)
        return np.asarray(np.clip(values, -60, 60), dtype=np.float32)


def scale_of(modality: Modality, manifest: Manifest, others: int) -> Scale:
    """How cosines of labels with pictures, or with texts, become logits; `others` counts the other things."""
    direction: Literal["text_to_image", "text_to_text"] = "text_to_image" if modality == "image" else "text_to_text"
    if (own := manifest.calibration.get(direction)) is not None:
        return Scale("model", BASE_RATE, own.scale, own.bias)
    if modality == "image" and manifest.logit_scale is not None:
        # With a bias it is SigLIP's, whose loss is the probability of a pair; without, CLIP's.
        base_rate = BASE_RATE if manifest.logit_bias is not None else 1 / (others + 1)
        return Scale("model", base_rate, manifest.logit_scale, manifest.logit_bias)
    return Scale("background", 1 / (others + 1))


def one_of(logits: Floats, base_rate: float) -> tuple[Floats, Floats]:
    """The probabilities of labels that exclude each other, float32 (n, k), and of none of them, float32 (n,)."""
    count = logits.shape[1]
    prior = math.log((1 - _NONE_PRIOR) / (count * _NONE_PRIOR))
    odds = logits - math.log(base_rate / (1 - base_rate)) + prior
    whole = np.concatenate([odds, np.zeros((len(odds), 1), np.float32)], axis=1)
    shares = np.exp(whole - _log_sum_exp(whole)).astype(np.float32)
    return shares[:, :-1], shares[:, -1]


def each_of(logits: Floats) -> tuple[Floats, Floats]:
    """The probabilities of labels that each may fit or not, float32 (n, k); and that not even the best one does."""
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return probabilities, 1 - probabilities.max(axis=1)


def _log_sum_exp(values: Floats) -> Floats:
    highest = values.max(axis=1, keepdims=True)
    return np.asarray(highest + np.log(np.exp(values - highest).sum(axis=1, keepdims=True)), dtype=np.float32)
