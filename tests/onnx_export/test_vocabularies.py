"""Token ids: the runtime's, one by one, against each source library's own tokenizer, on any text."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from indexer.models.manifest import Cleaning, Padding, TextRecipe
from indexer.models.tokenize import clean
from onnx_export.vocabularies import clip_bpe, of_transformers
from tests.onnx_export import checkpoints as made

Ids = Callable[[str], Sequence[int]]

# What is unassigned here may be a letter in the tables of a library that was built later.
anything = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=60)
words = st.lists(
    st.sampled_from(
        ["a photo of", "DOGS", "don't", "it's", "they'RE", "1234", "naïve", "日本語", "🙂", "👩‍👩‍👧", "&amp;", "&#39;", "ﬁ",
         "“quoted”", "e.g.", "#tag", "___", "…", "Ünïcödé", "İstanbul", "ß", "\t", "\n", "<end_of_text>", "<|endoftext|>", "½", "x²"]
    ),
    max_size=20,
).map(" ".join)  # fmt: skip
texts = st.one_of(anything, words, st.tuples(words, anything).map("".join))
many = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))


_LOWER = TextRecipe(cleaning=Cleaning.LOWER, context_length=77, padding=Padding.FIXED)
_AFTER_PUNCTUATION = re.compile(r"(?:[^\w\s]|_)<(?:start|end)_of_text>")
"""Where a special token that is written out is one for us, and for open_clip the end of the punctuation before it."""


def ours(tokenizer, cleaning: Cleaning, length: int) -> Ids:  # type: ignore[no-untyped-def]
    recipe = TextRecipe(cleaning=cleaning, context_length=length, padding=Padding.FIXED)
    tokenizer.enable_truncation(length)
    return lambda text: tokenizer.encode(clean(text, recipe)).ids


@pytest.fixture(scope="module")
def open_clips() -> tuple[Ids, Ids]:
    import open_clip
    from open_clip.tokenizer import default_bpe

    reference = open_clip.get_tokenizer("ViT-B-32")
    tokenizer = clip_bpe(Path(default_bpe()))
    return ours(tokenizer, Cleaning.LOWER, 77), lambda text: [each for each in reference([text])[0].tolist() if each]


@given(text=texts)
@many
def test_clips_ids_are_open_clips(open_clips: tuple[Ids, Ids], text: str) -> None:
    mine, reference = open_clips
    assume(not _AFTER_PUNCTUATION.search(clean(text, _LOWER)))
    assert [each for each in mine(text) if each] == reference(text)


@pytest.fixture(scope="module")
def transformers_clips() -> tuple[Ids, Ids]:
    reference = made.clip_tokenizer()
    mine = ours(of_transformers(reference), Cleaning.NONE, 77)
    return mine, lambda text: reference([text], truncation=True, max_length=77)["input_ids"][0]


@given(text=texts)
@many
def test_clips_ids_are_transformers(transformers_clips: tuple[Ids, Ids], text: str) -> None:
    mine, reference = transformers_clips
    assert mine(text) == reference(text)


@pytest.fixture(scope="module")
def siglips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ids, Ids]:
    from transformers import SiglipTokenizer

    reference = SiglipTokenizer(str(made.sentencepiece_model(tmp_path_factory.mktemp("spiece"))))
    mine = ours(of_transformers(reference), Cleaning.UNPUNCTUATED, 64)
    return mine, lambda text: reference([text], truncation=True, max_length=64)["input_ids"][0]


@given(text=texts)
@many
def test_siglips_ids_are_transformers(siglips: tuple[Ids, Ids], text: str) -> None:
    mine, reference = siglips
    assert mine(text) == reference(text)


@pytest.fixture(scope="module")
def wordpieces() -> tuple[Ids, Ids]:
    reference = made.wordpiece_tokenizer()
    mine = ours(of_transformers(reference), Cleaning.NONE, 128)
    return mine, lambda text: reference([text], truncation=True, max_length=128)["input_ids"][0]


@given(text=texts)
@many
def test_wordpieces_are_transformers(wordpieces: tuple[Ids, Ids], text: str) -> None:
    mine, reference = wordpieces
    assert mine(text) == reference(text)


@given(text=texts)
@many
def test_cleaning_is_open_clips(text: str) -> None:
    from open_clip.tokenizer import get_clean_fn

    for name in ("whitespace", "lower", "canonicalize"):
        recipe = TextRecipe(cleaning=Cleaning(name), context_length=77, padding=Padding.LONGEST)
        assert clean(text, recipe) == get_clean_fn(name)(text)


@pytest.mark.parametrize("block", range(0, 0x30000, 0x4000))
def test_every_character_is_split_as_open_clip_does(open_clips: tuple[Ids, Ids], block: int) -> None:
    mine, reference = open_clips
    for character in map(chr, range(block, block + 0x4000)):
        if unicodedata.category(character) not in {"Cn", "Co", "Cs"}:
            text = f"a{character}b!{character} {character}1"
            assert [each for each in mine(text) if each] == reference(text), hex(ord(character))


def test_the_vocabulary_is_clips() -> None:
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    tokenizer = clip_bpe(Path(default_bpe()))
    assert tokenizer.get_vocab() == SimpleTokenizer().encoder
    assert np.array(tokenizer.encode("a photo").ids).tolist() == [49406, 320, 1125, 49407]
