"""Hash lists: whether an item's bytes are on one by sha256, or its picture by PDQ within some bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexer.duplicates.hashes import HashIndex
from indexer.moderation.detectors.base import Block, Found

if TYPE_CHECKING:
    from indexer.moderation.hash_lists import HashList
    from indexer.moderation.policy import Hash


class HashDetector:
    """A list, opened for one distance: 1 for items on it, 0 for those that are not."""

    needs = "a hash"

    def __init__(self, detector: Hash, hashes: HashList) -> None:
        self._sha256 = {each.tobytes() for each in hashes.sha256} if "sha256" in detector.kinds else None
        self._pdq: HashIndex | None = None
        self._distance = detector.distance
        if "pdq" in detector.kinds:
            self._pdq = HashIndex()
            self._pdq.add(np.arange(len(hashes.pdq)), hashes.pdq)

    def judge(self, block: Block) -> Found:
        """Probabilities of the items with a hash of a kind that is asked for; flat pictures have no PDQ hash."""
        subjects = block.subjects
        found = np.full(len(block), np.nan, dtype=np.float32)
        missing = np.zeros(len(block), dtype=bool)
        if self._sha256 is not None:
            if subjects.sha256 is None:
                missing[:] = True
            else:
                found[:] = [each.tobytes() in self._sha256 for each in subjects.sha256]
        if self._pdq is not None and subjects.pdq is not None and subjects.has_pdq is not None:
            at = np.flatnonzero(subjects.has_pdq)
            near = np.zeros(len(at), dtype=np.float32)
            near[self._pdq.within_each(np.ascontiguousarray(subjects.pdq[at]), self._distance).query] = 1
            found[at] = np.fmax(found[at], near)
        elif self._pdq is not None:
            missing |= subjects.images
        missing &= ~(found > 0)
        found[missing] = np.nan
        return Found(found, missing)
