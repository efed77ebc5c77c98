"""What detectors are given and what they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from indexer.items import Modality
from indexer.moderation.texts import MOST_CHARACTERS, cleaned, folded

if TYPE_CHECKING:
    from indexer.moderation.subjects import Bools, Floats, Subjects


class Found(NamedTuple):
    """What one detector says of a block."""

    probabilities: Floats
    """float32 (n,): that the item is of the category; NaN where the detector does not apply or has nothing to go by."""
    missing: Bools
    """(n,): that it applies, and has nothing to go by."""


class Detector(Protocol):
    """A detector, opened: it holds what it compares with. Thread-safe."""

    @property
    def needs(self) -> str:
        """What is missing where it has nothing to go by, in words."""

    def judge(self, block: Block) -> Found:
        """What it says of every item of the block; of one, the same in any block."""


@dataclass(frozen=True)
class Readable:
    """A text in the two notations that rules read it in."""

    cleaned: str
    folded: str


@dataclass(frozen=True)
class Block:
    """Some items, and what several detectors go by, reckoned once."""

    subjects: Subjects
    cosines: Floats | None = None
    """(k, m), m >= n: of the vectors with the policy's directions. None without vectors."""
    usable: Bools | None = None
    """(n,): which items have a vector."""
    _texts: dict[str, list[Readable | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def with_vector(self) -> Bools:
        """(n,): which items have a vector."""
        return np.zeros(len(self), dtype=bool) if self.usable is None else self.usable

    def of_kind(self, modality: Modality) -> Bools:
        """(n,): which items are pictures, or texts."""
        return self.subjects.images if modality == "image" else ~self.subjects.images

    def texts(self, name: str) -> list[Readable | None]:
        """A field's texts in the notations of rules; None where there is none, or one of too many characters."""
        if name not in self._texts:
            column = self.subjects.texts.get(name) or [None] * len(self)
            self._texts[name] = [_readable(text) for text in column]
        return self._texts[name]


def _readable(text: str | None) -> Readable | None:
    if not text or len(text) > MOST_CHARACTERS:
        return None
    clean = cleaned(text)
    return Readable(clean, folded(clean))
