"""Prompts: texts for and against a category, in the space that the items' vectors are of.

Every text has its log-odds z that an item matches it, as zero-shot labels have (`indexer.classify.scoring`): by the
model's calibration, or else against texts about other things. The outcomes exclude each other (a multinomial logit, in
which "none of these" has the log-odds 0), so a category's odds are those of its positives together, against its
negatives and none:

    odds = sum(exp(z of positives)) / (1 + sum(exp(z of negatives)))        probability = odds / (1 + odds)

The logarithm of that is the log-sum-exp of the positives less the one of the negatives and 0: a margin, and an
ensemble. A positive text more cannot make an item less probable, nor a negative one more so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from indexer.classify.scoring import OTHERS, Scale, scale_of
from indexer.flow import batched
from indexer.items import Modality
from indexer.moderation.detectors.base import Block, Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.classify.classifier import TextEncoder
    from indexer.moderation.directions import Directions
    from indexer.moderation.policy import Prompts
    from indexer.moderation.subjects import Floats

    Rows = NDArray[np.intp]

_AT_ONCE = 32
"""Texts of a run; a shared encoder lets others in between."""
_LEAST_OTHERS = 8


class PromptDetector:
    """The prompts of a category, opened."""

    needs = "a vector"

    def __init__(self, positive: slice, negative: slice, others: Rows, scales: dict[Modality, Scale]) -> None:
        """The rows of its cosines: of its texts, and of those about other things. Scales are by modality."""
        self._positive, self._negative, self._others = positive, negative, others
        self._scales = scales

    def judge(self, block: Block) -> Found:
        """Probabilities of all items with a vector, pictures and texts each on their own scale."""
        usable = block.with_vector
        found = np.full(len(block), np.nan, dtype=np.float32)
        missing = np.zeros(len(block), dtype=bool)
        for modality, scale in self._scales.items():
            of_it = block.of_kind(modality)
            missing |= of_it & ~usable
            if block.cosines is not None and (of_it & usable).any():
                # Of all columns, so that each keeps its place; those of the others are left out.
                reckoned = self._probabilities(block.cosines, scale)[: len(block)]
                np.copyto(found, reckoned, where=of_it & usable)
        return Found(found, missing)

    def _probabilities(self, cosines: Floats, scale: Scale) -> Floats:
        others = (cosines[self._others] if scale.needs_others else cosines).T
        positive = _total(scale.logits(cosines[self._positive].T, others))
        negative = _total(scale.logits(cosines[self._negative].T, others))
        return positive / (1 + negative + positive)


def _total(logits: Floats) -> Floats:
    """The sum of the odds of each row's labels; log-odds end at 60, so nothing overflows.

    Label by label: a sum along an axis may be taken in another order in another shape.
    """
    total = np.zeros(len(logits), dtype=np.float32)
    for odds in np.exp(logits.T):
        total += odds
    return total


def open_prompts(encoder: TextEncoder, directions: Directions, prompts: Sequence[Prompts]) -> list[PromptDetector]:
    """Detectors whose texts are embedded, each text as the mean of its template's prompts."""
    if not prompts:
        return []
    groups = [group for each in prompts for group in each.texts]
    texts = list(dict.fromkeys([text for group in groups for text in group] + list(OTHERS)))
    vectors = np.concatenate([encoder.encode_texts(some).vectors for some in batched(texts, _AT_ONCE)])
    at = {text: index for index, text in enumerate(texts)}
    means = np.stack([_unit(vectors[[at[text] for text in group]].mean(axis=0)) for group in groups])
    others = vectors[[at[text] for text in OTHERS]]
    rows = directions.add(others)
    opened, begin = [], 0
    for each in prompts:
        end = begin + len(each.positive)
        positive, negative = means[begin:end], means[end : end + len(each.negative)]
        begin = end + len(each.negative)
        about = rows.start + _not_meant(others, positive)
        scales = {modality: scale_of(modality, encoder.manifest, len(about)) for modality in each.items}
        opened.append(PromptDetector(directions.add(positive), directions.add(negative), about, scales))
    return opened


def _not_meant(others: Floats, positive: Floats) -> Rows:
    """The other things without those that are nearer to a positive text than any two of them are to each other."""
    among = others @ others.T
    np.fill_diagonal(among, -1)
    kept = np.flatnonzero((others @ positive.T).max(axis=1) <= among.max())
    return kept if len(kept) >= _LEAST_OTHERS else np.arange(len(others))


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)
