"""Rerankers small enough to export in a test: real architectures, real tokenizers, random weights, written as files.

Weights are drawn wider than for training, so that pairs get scores that differ: ranks of like scores say nothing.
"""

import unicodedata
from pathlib import Path

import torch

from tests.onnx_export.checkpoints import WORDS

_SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
_WIDE = {"initializer_range": 0.12}


def bert_tokenizer(*added: str):  # type: ignore[no-untyped-def]  # transformers has no types
    """BERT's lower-casing WordPiece tokenizer of a few words, with more special tokens behind its own."""
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(vocab=_vocabulary(), do_lower_case=True, model_max_length=512)
    tokenizer.add_tokens(list(added), special_tokens=True)
    return tokenizer


def _vocabulary() -> dict[str, int]:
    """The words of the texts, whole and by letters; no training, which gives another one each time."""
    words = sorted({word for text in WORDS for word in text.lower().split()})
    letters = sorted({letter for word in words for letter in unicodedata.normalize("NFKD", word)})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    return {piece: place for place, piece in enumerate(pieces)}


def blip2(folder: Path, *, image_tokens: bool = True, depth: int = 1, **vision: object) -> str:
    """A small BLIP-2 for matching, as on the hub: the image token lies behind the token table."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2Processor, BlipImageProcessorPil

    tokenizer = bert_tokenizer("[DEC]")
    vocabulary = len(tokenizer)
    config = Blip2Config(
        vision_config={**_SIZES, **_WIDE, "num_hidden_layers": depth, "image_size": 56, "patch_size": 14, **vision},
        qformer_config={
            **_SIZES,
            **_WIDE,
            "num_hidden_layers": 2 * depth,
            "vocab_size": vocabulary,
            "use_qformer_text_input": True,
        },
        num_query_tokens=8,
        image_text_hidden_size=32,
        image_token_index=vocabulary if image_tokens else None,
    )
    torch.manual_seed(0)
    model = Blip2ForImageTextRetrieval(config)
    widen(model)
    model.save_pretrained(folder)
    size = config.vision_config.image_size
    images = BlipImageProcessorPil(size={"height": size, "width": size})
    Blip2Processor(images, tokenizer, num_query_tokens=8 if image_tokens else None).save_pretrained(folder)
    return str(folder)


def blip(folder: Path, *, depth: int = 2, first_token: bool = True) -> str:
    """A small BLIP for matching, as on the hub: [DEC] and [ENC] have rows in the token table, and no names."""
    from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessorPil, BlipProcessor

    tokenizer = bert_tokenizer()
    text = {**_SIZES, **_WIDE, "num_hidden_layers": depth, "encoder_hidden_size": 64}
    config = BlipConfig(
        vision_config={**_SIZES, **_WIDE, "num_hidden_layers": depth, "image_size": 64, "patch_size": 16},
        text_config={**text, "vocab_size": len(tokenizer) + 1 + first_token, "bos_token_id": len(tokenizer)},
        image_text_hidden_size=32,
    )
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(config)
    widen(model)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    return str(folder)


def cross_encoder(folder: Path, *, labels: int = 1, kind: str = "bert") -> str:
    """A small cross-encoder: `bert`, whose tokens have types, or `distilbert`, whose have none."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
    )

    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            **_SIZES, **_WIDE, num_hidden_layers=2, vocab_size=len(tokenizer), max_position_embeddings=96,
            num_labels=labels,
        )  # fmt: skip
        model = BertForSequenceClassification(config)
    else:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        config = DistilBertConfig(
            dim=64, hidden_dim=128, n_heads=4, n_layers=2, vocab_size=len(tokenizer), max_position_embeddings=96,
            num_labels=labels, initializer_range=0.12,
        )  # fmt: skip
        model = DistilBertForSequenceClassification(config)
    widen(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def widen(model: torch.nn.Module) -> None:
    """Biases and query tokens that are not nought, and heads that tell pairs apart."""
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") or name == "query_tokens":
            torch.nn.init.normal_(parameter, std=1 if name == "query_tokens" else 0.1)
        if name.endswith(("itm_head.weight", "classifier.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
