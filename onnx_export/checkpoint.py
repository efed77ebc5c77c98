"""What a source library knows of a checkpoint, in one form: towers to trace, recipes as data, and the reference.

The reference is the library's own way from an RGB picture or a string to a vector. It shares no code with the runtime;
`parity` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import nn

from indexer.models.manifest import Languages, PixelRecipe, TextRecipe, Tower

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class ImageSide:
    """The image tower."""

    module: nn.Module
    """float32 (n, 3, size, size) to features (n, D)."""
    recipe: PixelRecipe
    reference: Callable[[Image.Image], Vectors]
    """One RGB picture to its features, (D,), by the source library's own preprocessing and model."""


@dataclass(frozen=True)
class TextSide:
    """The text tower."""

    module: nn.Module
    """int64 (n, length) token ids, and an attention mask alike if `masked`, to features (n, D)."""
    masked: bool
    recipe: TextRecipe
    tokenizer: Tokenizer
    reference: Callable[[str], Vectors]
    """One text to its features, (D,), by the source library's own tokenizer and model."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read and ready to export."""

    family: str
    source: str
    """Where it comes from, as `crosslens models export` takes it."""
    reference: str
    """The library that the parity certificate is against, with its version."""
    image: ImageSide | None
    """None for plain text encoders."""
    text: TextSide
    logit_scale: float | None = None
    logit_bias: float | None = None
    languages: Languages | None = None
    """What its texts may be written in, where its model card says so."""

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The towers that it has."""
        return ("image", "text") if self.image else ("text",)

    @property
    def dimension(self) -> int:
        """The length of its vectors."""
        return len(self.text.reference("a photo"))
