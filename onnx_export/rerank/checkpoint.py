"""What a source library knows of a reranker, in one form: modules to trace, recipes as data, and the reference.

The reference is the library's own way from an RGB picture, or a passage, and a text to their scores, one pair at a
time. It shares no code with the runtime; `onnx_export.rerank.parity` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer
from torch import nn

from indexer.models.manifest import PixelRecipe, TextRecipe


class Scores(NamedTuple):
    """Of one pair."""

    matching: float
    """The logit of a match."""
    contrastive: float | None = None
    """The cosine; None of texts."""


@dataclass(frozen=True)
class PictureSide:
    """What is computed once per picture."""

    module: nn.Module
    """float32 (n, 3, size, size) to features (n, tokens, width) and queries (n, q, d), of unit length each."""
    recipe: PixelRecipe


@dataclass(frozen=True)
class RerankCheckpoint:
    """A checkpoint, read and ready to export."""

    family: Literal["blip2-itm", "blip-itm", "cross-encoder"]
    source: str
    """Where it comes from, as `crosslens models export` takes it."""
    library: str
    """The library that the parity certificate is against, with its version."""
    pictures: PictureSide | None
    """None for cross-encoders, which read texts only."""
    match: nn.Module
    """What is computed once per pair; tensors as `RerankManifest` says, in its order."""
    text: TextRecipe
    tokenizer: Tokenizer
    token_types: bool
    """Whether a cross-encoder's module takes `token_type_ids`."""
    reference: Callable[[Any, str], Scores]
    """The scores of an RGB picture, of a cross-encoder a passage, and a text."""
