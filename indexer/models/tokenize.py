"""Texts as an encoder was trained to read them."""

from __future__ import annotations

import html
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import tokenizers
from numpy.typing import NDArray

from indexer.errors import InvalidBundle
from indexer.models.bundle import Described, Published
from indexer.models.manifest import TOKENIZER_FILE, Cleaning, Padding, TextRecipe

CHARACTERS_PER_TOKEN = 64
"""Characters looked at for each token that the encoder reads, so that a megabyte costs no more than a page. No text in
words needs more; a run of blanks might, and says nothing."""
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences, int64 (batch, length) each."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    truncated: list[bool]
    """Which texts were longer than the encoder reads, and were cut."""


class Tokenizer:
    """A bundle's tokenizer, set to its text recipe. Thread-safe.

    Raises:
        InvalidBundle: `tokenizer.json` does not load.
    """

    def __init__(self, bundle: Published[Described]) -> None:
        self._recipe = bundle.manifest.text
        path = bundle.path(TOKENIZER_FILE)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise InvalidBundle(f"{path} does not load: {error}.") from error
        self._tokenizer.no_padding()  # ours is below: the tokenizer's own knows no most
        self._tokenizer.enable_truncation(self._recipe.context_length)

    def encode(self, texts: Sequence[str], *, multiple_of: int = 1) -> Tokens:
        """Tokenize a batch, special tokens added; what is too long is cut, and said.

        `multiple_of` rounds the batch's length up, so that a device which prepares for every shape sees few of them.
        """
        most = self._recipe.context_length * CHARACTERS_PER_TOKEN
        encodings = self._tokenizer.encode_batch([clean(text[:most], self._recipe) for text in texts])
        length = self._length(max((len(encoding) for encoding in encodings), default=0), multiple_of)
        input_ids = np.full((len(texts), length), self._recipe.pad_id, dtype=np.int64)
        attention_mask = np.zeros((len(texts), length), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            input_ids[row, : len(encoding)] = encoding.ids
            attention_mask[row, : len(encoding)] = 1
        truncated = [
            bool(encoding.overflowing) or len(text) > most for encoding, text in zip(encodings, texts, strict=True)
        ]
        return Tokens(input_ids, attention_mask, truncated)

    def _length(self, longest: int, multiple_of: int) -> int:
        """What a batch is padded to."""
        if self._recipe.padding is Padding.FIXED:
            return self._recipe.context_length
        rounded = -(-longest // multiple_of) * multiple_of
        return min(rounded, self._recipe.context_length)


def clean(text: str, recipe: TextRecipe) -> str:
    """A text as the tokenizer gets it: prefixed and cleaned. Lone surrogates, which are no text, become "?"."""
    text = recipe.prefix + text.encode("utf-8", "replace").decode()
    match recipe.cleaning:
        case Cleaning.NONE:
            return text
        case Cleaning.WHITESPACE:
            return _one_blank(_mended(text))
        case Cleaning.LOWER:
            return _one_blank(_mended(text)).lower()
        case Cleaning.CANONICALIZE:
            return _one_blank(_mended(text).replace("_", " ").translate(_WITHOUT_PUNCTUATION).lower())
        case Cleaning.UNPUNCTUATED:
            return _one_blank(text.lower().translate(_WITHOUT_PUNCTUATION))
        case _:
            assert_never(recipe.cleaning)


def _mended(text: str) -> str:
    """As open_clip's `basic_clean`: what was decoded wrongly is decoded rightly, entities (escaped twice, too) too."""
    import ftfy  # noqa: PLC0415  only who has such a model needs it

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _one_blank(text: str) -> str:
    return " ".join(text.split())
