"""Words and patterns in an item's texts: captions, its own text, fields of its payload. Text is only ever matched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from indexer.moderation.detectors.base import Block, Found, Readable
from indexer.moderation.texts import MOST_CHARACTERS, pattern_of, words_of

if TYPE_CHECKING:
    from indexer.moderation.policy import Text


class WordDetector:
    """The rules of a category, compiled: 1 where any of them is in any of the fields, 0 where none is."""

    needs = f"a text of up to {MOST_CHARACTERS:,} characters"

    def __init__(self, rules: Text) -> None:
        self._words = words_of(rules.words) if rules.words else None
        self._patterns = [pattern_of(pattern) for pattern in rules.patterns]
        self._fields = rules.fields

    def judge(self, block: Block) -> Found:
        """Probabilities of the items with a text; it does not apply to others."""
        found = np.full(len(block), np.nan, dtype=np.float32)
        missing = np.zeros(len(block), dtype=bool)
        for name in self._fields:
            given = block.subjects.texts.get(name)
            if given is None:
                continue
            for row, (text, raw) in enumerate(zip(block.texts(name), given, strict=True)):
                if text is not None:
                    found[row] = np.fmax(found[row], np.float32(self._has(text)))
                elif raw:
                    missing[row] = True
        missing &= ~(found > 0)
        found[missing] = np.nan
        return Found(found, missing)

    def _has(self, text: Readable) -> bool:
        if self._words is not None and self._words.search(text.folded) is not None:
            return True
        return any(pattern.search(text.cleaned) is not None for pattern in self._patterns)
