"""Checkpoints of transformers: CLIP, SigLIP and SigLIP 2 of fixed resolution."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from PIL import Image
from torch import nn

from indexer.errors import UnsupportedCheckpoint
from indexer.models.manifest import Cleaning, CropOffset, Interpolation, Padding, PixelRecipe, Resize, TextRecipe
from onnx_export.checkpoint import Checkpoint, ImageSide, TextSide, Vectors
from onnx_export.hub import explained
from onnx_export.vocabularies import of_transformers

_FILTERS = {1: Interpolation.LANCZOS, 2: Interpolation.BILINEAR, 3: Interpolation.BICUBIC}
"""By Pillow's numbers."""


def load(name: str) -> Checkpoint:
    """Read a model by its name on the hub or its folder.

    Raises:
        UsageError: there is none.
        UnsupportedCheckpoint: its architecture or its preparation is none that bundles know.
        HubUnreachable: it must be downloaded, and nothing answers.
    """
    with explained(f"transformers:{name}"):
        config = transformers.AutoConfig.from_pretrained(name)
        _refuse_others(config)
        model = transformers.AutoModel.from_pretrained(name, dtype=torch.float32)
        processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    return from_parts(model.eval(), processor, tokenizer, source=f"transformers:{name}")


def from_parts(model: Any, processor: Any, tokenizer: Any, *, source: str) -> Checkpoint:
    """A checkpoint of a loaded model, its image processor (Pillow's) and its tokenizer.

    Raises:
        UnsupportedCheckpoint: its architecture or its preparation is none that bundles know.
    """
    _refuse_others(model.config)
    bias = getattr(model, "logit_bias", None)
    return Checkpoint(
        family=model.config.model_type,
        source=source,
        reference=f"transformers {transformers.__version__}",
        image=_image_side(model, processor),
        text=_text_side(model, tokenizer),
        logit_scale=float(model.logit_scale.exp().detach()),
        logit_bias=None if bias is None else float(bias.detach()),
    )


def _refuse_others(config: Any) -> None:
    kind = config.model_type
    if kind == "siglip2":
        raise UnsupportedCheckpoint(
            "This is a SigLIP 2 of variable resolution (NaFlex), whose image tower ONNX cannot express yet.",
            remedy="Export a SigLIP 2 of fixed resolution, as siglip2-base.",
        )
    if kind not in {"clip", "siglip"}:
        raise UnsupportedCheckpoint(f"transformers' {kind!r} models are not known; CLIP and SigLIP models are.")


class _Images(nn.Module):  # type: ignore[misc]
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output


class _Texts(nn.Module):  # type: ignore[misc]
    """No mask goes in: CLIP is causal and pooled at the end of the text, SigLIP was trained to see its padding."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids=input_ids).pooler_output


def _image_side(model: Any, processor: Any) -> ImageSide:
    def reference(image: Image.Image) -> Vectors:
        pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            vector: Vectors = model.get_image_features(pixel_values=pixels).pooler_output[0].numpy()
        return vector

    return ImageSide(module=_Images(model), recipe=pixel_recipe(processor), reference=reference)


def pixel_recipe(processor: Any) -> PixelRecipe:
    """The recipe of an image processor.

    Raises:
        UnsupportedCheckpoint: it does something that no recipe says.
    """
    wanted = ("do_resize", "do_rescale", "do_normalize")
    if not all(getattr(processor, each, None) for each in wanted) or getattr(processor, "do_pad", None):
        raise UnsupportedCheckpoint(f"{type(processor).__name__} prepares pictures in a way that bundles do not know.")
    if abs(processor.rescale_factor * 255 - 1) > 1e-6:
        raise UnsupportedCheckpoint(f"The processor scales pixels by {processor.rescale_factor}, not by 1/255.")
    size = dict(processor.size)
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", None) else None
    common: dict[str, Any] = {
        "interpolation": _FILTERS[int(processor.resample)],
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
        "crop_offset": CropOffset.DOWN,
    }
    match size, crop:
        case {"shortest_edge": int(shortest)}, {"height": int(height), "width": int(width)} if height == width:
            return PixelRecipe(size=height, resize=Resize.SHORTEST_CROP, resize_to=shortest, **common)
        case {"height": int(height), "width": int(width)}, None if height == width:
            return PixelRecipe(size=height, resize=Resize.SQUASH, **common)
        case _:
            raise UnsupportedCheckpoint(f"Pictures of {size}, cropped to {crop}: bundles know squares alone.")


def _text_side(model: Any, tokenizer: Any) -> TextSide:
    text = model.config.text_config
    siglip = model.config.model_type == "siglip"
    length = int(text.max_position_embeddings)
    recipe = TextRecipe(
        cleaning=Cleaning.UNPUNCTUATED if _strips_punctuation(tokenizer) else Cleaning.NONE,
        context_length=length,
        padding=Padding.FIXED if siglip else Padding.LONGEST,
        pad_id=int(tokenizer.pad_token_id),
    )

    def reference(text: str) -> Vectors:
        tokens = tokenizer([text], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            vector: Vectors = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output[0].numpy()
        return vector

    return TextSide(
        module=_Texts(model),
        masked=False,
        recipe=recipe,
        tokenizer=of_transformers(tokenizer),
        reference=reference,
    )


def _strips_punctuation(tokenizer: Any) -> bool:
    """SigLIP's SentencePiece tokenizer cleans texts itself, in Python, before its model sees them."""
    return hasattr(tokenizer, "canonicalize_text")
