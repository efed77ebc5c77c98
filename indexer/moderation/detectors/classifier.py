"""Classifier scores: what an image classifier gave for a picture when it was decoded, which is kept with the item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import InvalidRequest, PolicyInvalid
from indexer.moderation.detectors.base import Block, Found

if TYPE_CHECKING:
    from indexer.moderation.classifiers.manifest import ClassifierManifest
    from indexer.moderation.policy import Classifier


class ClassifierDetector:
    """The sum of some of a classifier's labels."""

    def __init__(self, detector: Classifier, manifest: ClassifierManifest) -> None:
        """Raises PolicyInvalid for a label that the classifier does not have."""
        unknown = [label for label in detector.labels if label not in manifest.labels]
        if unknown:
            raise PolicyInvalid(
                f"The classifier {detector.model!r} has no label {unknown[0]!r}.",
                remedy=f"It has: {', '.join(manifest.labels)[:500]}.",
            )
        self.needs = f"a score of {detector.model}"
        self._model = detector.model
        self._width = len(manifest.labels)
        self._columns = [manifest.labels.index(label) for label in dict.fromkeys(detector.labels)]

    def judge(self, block: Block) -> Found:
        """Probabilities of the pictures that it has seen; it does not apply to texts."""
        images = block.subjects.images
        found = np.full(len(block), np.nan, dtype=np.float32)
        scores = block.subjects.scores.get(self._model)
        if scores is not None:
            if scores.shape[1:] != (self._width,):
                raise InvalidRequest(f"Scores of {self._model} have {self._width} columns, one for each label.")
            total = np.zeros(len(block), dtype=np.float32)
            for column in self._columns:
                total += scores[:, column]
            np.copyto(found, np.clip(total, 0, 1), where=images & np.isfinite(total))
        return Found(found, images & np.isnan(found))
