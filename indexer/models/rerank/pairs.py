"""Two texts in one sequence, as a cross-encoder was trained to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
from numpy.typing import NDArray

from indexer.errors import InvalidBundle
from indexer.models.manifest import TOKENIZER_FILE, Padding, TextRecipe
from indexer.models.rerank.bundle import RerankBundle
from indexer.models.tokenize import CHARACTERS_PER_TOKEN, clean


@dataclass(frozen=True)
class Pairs:
    """Sequences of one text with each of others."""

    encodings: list[tokenizers.Encoding]
    truncated: bool
    """Whether any was longer than the model reads, and was cut."""
    recipe: TextRecipe

    def batch(self, rows: Sequence[int]) -> dict[str, NDArray[np.int64]]:
        """Some of them as a graph takes them: input_ids, attention_mask and token_type_ids, int64 (rows, length)."""
        some = [self.encodings[row] for row in rows]
        longest = max(len(encoding) for encoding in some)
        length = self.recipe.context_length if self.recipe.padding is Padding.FIXED else longest
        input_ids = np.full((len(some), length), self.recipe.pad_id, dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        token_type_ids = np.zeros_like(input_ids)
        for row, encoding in enumerate(some):
            input_ids[row, : len(encoding)] = encoding.ids
            attention_mask[row, : len(encoding)] = 1
            token_type_ids[row, : len(encoding)] = encoding.type_ids
        return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


class PairTokenizer:
    """A cross-encoder's tokenizer. Of a pair that is too long the longer text is cut first. Thread-safe.

    Raises:
        InvalidBundle: `tokenizer.json` does not load.
    """

    def __init__(self, bundle: RerankBundle) -> None:
        self._recipe = bundle.manifest.text
        path = bundle.path(TOKENIZER_FILE)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise InvalidBundle(f"{path} does not load: {error}.") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._recipe.context_length, strategy="longest_first")

    def encode(self, text: str, others: Sequence[str]) -> Pairs:
        """Tokenize a text with each of others, special tokens added; the recipe's prefix goes before it alone."""
        most = self._recipe.context_length * CHARACTERS_PER_TOKEN
        query = clean(text[:most], self._recipe)
        plain = self._recipe.model_copy(update={"prefix": ""})
        encodings = self._tokenizer.encode_batch([(query, clean(other[:most], plain)) for other in others])
        cut = any(encoding.overflowing for encoding in encodings)
        return Pairs(encodings, cut or any(len(each) > most for each in (text, *others)), self._recipe)
