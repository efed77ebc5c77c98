"""Texts as an encoder was trained to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
from numpy.typing import NDArray

from indexer.errors import InvalidBundle
from indexer.models.bundle import Bundle
from indexer.models.manifest import TOKENIZER_FILE, Padding

_CHARACTERS_PER_TOKEN = 64
"""Characters looked at for each token that the encoder reads, so that a megabyte costs no more than a page. No text in
words needs more; a run of blanks might, and says nothing."""


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

    def __init__(self, bundle: Bundle) -> None:
        self._recipe = bundle.manifest.text
        path = bundle.path(TOKENIZER_FILE)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise InvalidBundle(f"{path} does not load: {error}.") from error
        self._tokenizer.enable_truncation(self._recipe.context_length)
        length = self._recipe.context_length if self._recipe.padding is Padding.FIXED else None
        pad = self._tokenizer.id_to_token(self._recipe.pad_id)
        if pad is None:
            raise InvalidBundle(f"{path} has no token {self._recipe.pad_id}, which the manifest pads with.")
        self._tokenizer.enable_padding(length=length, pad_id=self._recipe.pad_id, pad_token=pad)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokenize a batch, special tokens added; what is too long is cut, and said."""
        most = self._recipe.context_length * _CHARACTERS_PER_TOKEN
        encodings = self._tokenizer.encode_batch([self._cleaned(text[:most]) for text in texts])
        return Tokens(
            input_ids=np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            attention_mask=np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
            truncated=[
                bool(encoding.overflowing) or len(text) > most for encoding, text in zip(encodings, texts, strict=True)
            ],
        )

    def _cleaned(self, text: str) -> str:
        """Lower-cased if the recipe says so; lone surrogates, which are no text, become question marks."""
        text = text.encode("utf-8", "replace").decode()
        return text.lower() if self._recipe.lower_case else text
