"""Tokenizers of source libraries as one `tokenizers.Tokenizer`, which is all that the runtime has.

Cleaning that happens before the tokenizer (mended mojibake, stripped punctuation) is not in here but in the recipe.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from indexer.errors import UnsupportedCheckpoint

_MERGES = 49152 - 256 - 2
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\u0345]+"
"""How CLIP splits a text (Radford et al. 2021, `simple_tokenizer.py`), beside its special tokens. It does so ignoring
case, and so drops one mark, U+0345, whose capital is a letter (iota)."""


def clip_bpe(vocabulary: Path, special: tuple[str, ...] = ("<start_of_text>", "<end_of_text>")) -> Tokenizer:
    """CLIP's byte-pair encoding, from the file of merges that OpenAI published and open_clip ships.

    Texts must come lower-cased and with single blanks: the recipe's cleaning does that.
    """
    with gzip.open(vocabulary, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : _MERGES + 1]]
    letters = pre_tokenizers.ByteLevel.alphabet()
    alphabet = sorted(letters, key=_order_of_bytes())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges), *special]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: index for index, word in enumerate(words)},
            merges=[(first, second) for first, second in merges],
            end_of_word_suffix="</w>",
        )
    )
    # Special tokens written out in a text stand for themselves; in the reference not right behind punctuation.
    split = Regex("|".join([*special, _WORDS]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens(list(special))
    begin, end = special[:2]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return tokenizer


def _order_of_bytes() -> Any:
    """CLIP's vocabulary begins with the printable bytes in order, then the others, each by its stand-in letter."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    place = {chr(byte): index for index, byte in enumerate(printable)}

    def order(letter: str) -> int:
        return place.get(letter, ord(letter))  # stand-ins are numbered from 256 on, behind them all

    return order


def of_transformers(tokenizer: Any) -> Tokenizer:
    """The fast tokenizer behind a transformers tokenizer, without its own limits: the recipe says where a text is cut.

    Raises:
        UnsupportedCheckpoint: it pads on the left, or is none that `tokenizers` can run.
    """
    if getattr(tokenizer, "padding_side", "right") != "right":
        raise UnsupportedCheckpoint("The tokenizer pads on the left, which bundles do not know.")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        backend = _of_sentencepiece(tokenizer)
    description = json.loads(backend.to_str())
    description["truncation"] = description["padding"] = None
    return Tokenizer.from_str(json.dumps(description))


def _of_sentencepiece(tokenizer: Any) -> Tokenizer:
    """SigLIP's SentencePiece model: unigram pieces, the text cleaned before, its end marked."""
    from transformers.convert_slow_tokenizer import T5Converter  # noqa: PLC0415

    if not getattr(tokenizer, "vocab_file", None):
        raise UnsupportedCheckpoint(f"{type(tokenizer).__name__} has no form that the `tokenizers` library runs.")

    class Converter(T5Converter):  # type: ignore[misc]
        def vocab(self, proto: Any) -> list[tuple[str, float]]:
            return [(piece.piece, piece.score) for piece in proto.pieces]

        def post_processor(self) -> Any:
            end = (self.original_tokenizer.eos_token, self.original_tokenizer.eos_token_id)
            return processors.TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])

    converted: Tokenizer = Converter(tokenizer).converted()
    return converted


def within(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """A tokenizer without the added tokens that a token table of `size` rows has no row for.

    A text that spells such a token, and would send the graph beyond its table, is read as words.

    Raises:
        UnsupportedCheckpoint: there are words beyond the table, too.
    """
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] < size]
    kept = Tokenizer.from_str(json.dumps(description))
    if (last := max(kept.get_vocab().values())) >= size:
        raise UnsupportedCheckpoint(f"The tokenizer has a token {last}, and the model's table {size} rows.")
    return kept
