"""Linear heads: a logistic over the item's vector, fitted on items that people have judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexer.moderation.detectors.base import Block, Found

if TYPE_CHECKING:
    from indexer.moderation.directions import Directions
    from indexer.moderation.policy import Linear

_STEEPEST = 60
"""Log-odds beyond it are the same probability."""


class LinearDetector:
    """A head, opened: sigmoid(|weights| * cosine with the weights + bias)."""

    needs = "a vector"

    def __init__(self, directions: Directions, head: Linear) -> None:
        """Raises InvalidVector for weights of another dimension than the space has."""
        weights = np.asarray(head.weights, dtype=np.float64)
        self._row = directions.add(weights[None].astype(np.float32))
        self._length = np.float32(np.linalg.norm(weights))
        self._items = head.items
        self._bias = np.float32(head.bias)

    def judge(self, block: Block) -> Found:
        """Probabilities of all items with a vector."""
        usable = block.with_vector
        of_it = np.zeros(len(block), dtype=bool)
        for modality in self._items:
            of_it |= block.of_kind(modality)
        found = np.full(len(block), np.nan, dtype=np.float32)
        if block.cosines is not None:
            logits = np.clip(self._length * block.cosines[self._row][0] + self._bias, -_STEEPEST, _STEEPEST)
            np.copyto(found, (1 / (1 + np.exp(-logits)))[: len(block)], where=usable & of_it)
        return Found(found, of_it & ~usable)
