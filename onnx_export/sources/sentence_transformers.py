"""Checkpoints of sentence-transformers: CLIP, text encoders, and students such as multilingual CLIP."""

from __future__ import annotations

from typing import Any

import sentence_transformers
import torch
import transformers
from tokenizers import Tokenizer, normalizers
from torch import nn

from indexer.errors import UnsupportedCheckpoint
from indexer.models.manifest import Padding, TextRecipe
from onnx_export.checkpoint import Checkpoint, TextSide, Vectors
from onnx_export.hub import explained
from onnx_export.sources.transformers import from_parts
from onnx_export.vocabularies import of_transformers


def load(name: str) -> Checkpoint:
    """Read a model by its name on the hub or its folder; a CLIP gives both towers, all else the text tower alone.

    Raises:
        UsageError: there is none.
        UnsupportedCheckpoint: it is no text encoder of one transformer.
        HubUnreachable: it must be downloaded, and nothing answers.
    """
    source = f"sentence_transformers:{name}"
    with explained(source):
        model = sentence_transformers.SentenceTransformer(name, device="cpu")
    model.eval()
    first = model[0]
    if not hasattr(first, "auto_model") or first.tokenizer is None:
        raise UnsupportedCheckpoint(f"{name} begins with {type(first).__name__}, which is no transformer.")
    if isinstance(first.auto_model, transformers.CLIPModel):
        if len(model) > 1 and any(type(module).__name__ != "Normalize" for module in list(model)[1:]):
            raise UnsupportedCheckpoint(f"{name} has more behind its CLIP than bundles know.")
        processor = transformers.AutoImageProcessor.from_pretrained(name_of(first, name), backend="pil")
        return from_parts(first.auto_model, processor, first.tokenizer, source=source)
    return Checkpoint(
        family=f"{first.auto_model.config.model_type}-text",
        source=source,
        reference=f"sentence-transformers {sentence_transformers.__version__}",
        image=None,
        text=_text_side(model),
    )


def name_of(first: Any, name: str) -> str:
    """Where a module's processor is: a model keeps it in its own folder, or in that of its first module."""
    return str(getattr(first.auto_model.config, "_name_or_path", "") or name)


class _Texts(nn.Module):  # type: ignore[misc]
    """Transformer, pooling and what comes behind them, in the model's own order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList(model)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]


def _text_side(model: Any) -> TextSide:
    first = model[0]
    prompt = model.prompts.get(model.default_prompt_name, "") if model.default_prompt_name else ""
    if prompt and any(getattr(part, "include_prompt", True) is False for part in model):
        raise UnsupportedCheckpoint("The model leaves its prompt out of the pooling, which bundles do not know.")
    tokenizer = of_transformers(first.tokenizer)
    if getattr(first, "do_lower_case", False):
        tokenizer.normalizer = _lower_casing(tokenizer)
    recipe = TextRecipe(
        prefix=prompt,
        context_length=int(model.max_seq_length),
        padding=Padding.LONGEST,
        pad_id=int(first.tokenizer.pad_token_id or 0),
    )

    def reference(text: str) -> Vectors:
        vector: Vectors = model.encode([text], normalize_embeddings=False, show_progress_bar=False)[0]
        return vector

    return TextSide(module=_Texts(model), masked=True, recipe=recipe, tokenizer=tokenizer, reference=reference)


def _lower_casing(tokenizer: Tokenizer) -> Any:
    lower = normalizers.Lowercase()
    return lower if tokenizer.normalizer is None else normalizers.Sequence([lower, tokenizer.normalizer])
