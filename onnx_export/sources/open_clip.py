"""Checkpoints of open_clip: CLIP, SigLIP, SigLIP 2, MobileCLIP, CoCa and their like."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, default_bpe
from open_clip.transformer import TextTransformer, text_global_pool
from PIL import Image
from torch import nn

from indexer.errors import UnsupportedCheckpoint, UsageError
from indexer.models.manifest import Cleaning, Interpolation, Padding, PixelRecipe, Resize, TextRecipe
from onnx_export.checkpoint import Checkpoint, ImageSide, TextSide, Vectors
from onnx_export.hub import explained
from onnx_export.vocabularies import clip_bpe, of_transformers

_RESIZES = {"shortest": Resize.SHORTEST_CROP, "squash": Resize.SQUASH, "longest": Resize.LETTERBOX}
_CLEANINGS = {
    "_clean_whitespace": Cleaning.WHITESPACE,
    "_clean_lower": Cleaning.LOWER,
    "_clean_canonicalize": Cleaning.CANONICALIZE,
}


def load(name: str) -> Checkpoint:
    """Read `MODEL/TAG`, `MODEL@FILE` with the weights in a file, `hf-hub:ORG/NAME`, or a folder.

    Raises:
        UsageError: no such model or tag.
        UnsupportedCheckpoint: its preparation is none that bundles know.
        HubUnreachable: the weights must be downloaded, and nothing answers.
    """
    model_name, pretrained = _split(name)
    with explained(f"open_clip:{name}"):
        model, _, preprocess = open_clip.create_model_and_transforms(model_name, pretrained, precision="fp32")
        tokenizer = open_clip.get_tokenizer(model_name)
    model.eval()
    scale = float(model.logit_scale.exp().detach())
    bias = None if model.logit_bias is None else float(model.logit_bias.detach())
    return Checkpoint(
        family="siglip" if bias is not None else "clip",
        source=f"open_clip:{name}",
        reference=f"open_clip {open_clip.__version__}",
        image=_image_side(model, preprocess),
        text=_text_side(model, tokenizer),
        logit_scale=scale,
        logit_bias=bias,
    )


def _split(name: str) -> tuple[str, str | None]:
    if name.startswith("hf-hub:"):
        return name, None
    if Path(name).is_dir():
        return f"local-dir:{name}", None
    model, at, file = name.partition("@")
    if not at:
        model, _, file = name.partition("/")
    if model not in open_clip.list_models():
        raise UsageError(f"open_clip has no model {model!r}.", remedy="`open_clip.list_models()` names them.")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if (at and not Path(file).is_file()) or (not at and file not in tags):
        raise UsageError(
            f"open_clip has no weights {file!r} for {model}.",
            remedy=f"Name a file with {model}@FILE" + (f", or one of {', '.join(tags)}." if tags else "."),
        )
    return model, file


class _Images(nn.Module):  # type: ignore[misc]
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels)


class _Texts(nn.Module):  # type: ignore[misc]
    """A whole text tower, at its own context length or, where it looks at padding itself, at any."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.encode_text(input_ids)


class _CausalTexts(nn.Module):  # type: ignore[misc]
    """A causal text tower pooled at the end of the text, at the batch's own length.

    What comes behind the pooled token cannot reach it, so a shorter sequence gives the same features (the same sums,
    fewer of them). open_clip itself always runs the full context.
    """

    def __init__(self, tower: Any, pool: str, end: int | None) -> None:
        super().__init__()
        self.tower, self.pool, self.end = tower, pool, end

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        length = input_ids.shape[1]
        tower = self.tower
        x = tower.token_embedding(input_ids) + tower.positional_embedding[:length]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        x = text_global_pool(x, input_ids, self.pool, eos_token_id=self.end)
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def _image_side(model: Any, preprocess: Any) -> ImageSide:
    config = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    if not isinstance(size, int):
        if len(set(size)) != 1:
            raise UnsupportedCheckpoint(f"The model wants pictures of {size}; bundles know squares alone.")
        size = size[0]
    fill = int(config.get("fill_color", 0))
    recipe = PixelRecipe(
        size=size,
        resize=_RESIZES[config["resize_mode"]],
        interpolation=Interpolation(config["interpolation"]),
        fill=(fill, fill, fill),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )

    def reference(image: Image.Image) -> Vectors:
        with torch.inference_mode():
            vector: Vectors = model.encode_image(preprocess(image)[None])[0].numpy()
        return vector

    return ImageSide(module=_Images(_folded(model)), recipe=recipe, reference=reference)


def _folded(model: Any) -> Any:
    """A copy whose training-time branches (MobileCLIP's) are folded into one; parity proves it the same."""
    if not hasattr(getattr(model.visual, "trunk", None), "stages"):
        return model
    from timm.utils import reparameterize_model  # noqa: PLC0415  for such towers alone

    folded = copy.deepcopy(model)
    folded.visual.trunk = reparameterize_model(folded.visual.trunk)
    return folded


def _text_side(model: Any, tokenizer: Any) -> TextSide:
    module, padding = _text_module(model)
    if isinstance(tokenizer, SimpleTokenizer):
        if tokenizer.reduction_fn is not None:
            raise UnsupportedCheckpoint("The tokenizer drops tokens by chance, which no bundle can.")
        special = tuple(tokenizer.decoder[index] for index in tokenizer.all_special_ids)
        runtime, pad_id = clip_bpe(Path(default_bpe()), special), 0
    elif isinstance(tokenizer, HFTokenizer) and not tokenizer.tokenizer_mode and not tokenizer.strip_sep_token:
        runtime, pad_id = of_transformers(tokenizer.tokenizer), int(tokenizer.tokenizer.pad_token_id)
    else:
        raise UnsupportedCheckpoint("The checkpoint's tokenizer is of a kind that bundles do not know.")
    recipe = TextRecipe(
        cleaning=_CLEANINGS[tokenizer.clean_fn.__name__],
        context_length=tokenizer.context_length,
        padding=padding,
        pad_id=pad_id,
    )

    def reference(text: str) -> Vectors:
        with torch.inference_mode():
            vector: Vectors = model.encode_text(tokenizer([text]))[0].numpy()
        return vector

    return TextSide(module=module, masked=False, recipe=recipe, tokenizer=runtime, reference=reference)


def _text_module(model: Any) -> tuple[nn.Module, Padding]:
    """The text tower to trace, and whether its answer hangs on the padding."""
    tower = model if isinstance(model, open_clip.CLIP) else model.text
    if isinstance(tower, HFTextEncoder):  # masks what equals its padding token
        return _Texts(model), Padding.LONGEST
    pool = model.text_pool_type if tower is model else getattr(tower, "pool_type", None)
    causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    known = tower is model or type(tower) is TextTransformer
    if known and causal and pool in {"argmax", "eos"}:
        end = getattr(model, "text_eos_id", None) if tower is model else tower.eos_id
        return _CausalTexts(tower, pool, end), Padding.LONGEST
    return _Texts(model), Padding.FIXED
