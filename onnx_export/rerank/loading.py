"""What the readers of checkpoints share: weights that are all there, pictures of the size that the model has."""

from __future__ import annotations

from typing import Any

import torch

from indexer.errors import UnsupportedCheckpoint
from indexer.models.manifest import PixelRecipe
from onnx_export.sources.transformers import pixel_recipe


def complete(architecture: Any, name: str) -> Any:
    """A model of a transformers class, in fp32, for inference.

    Raises:
        UnsupportedCheckpoint: the checkpoint lacks weights, which transformers would fill with random ones.
    """
    model, told = architecture.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(told["missing_keys"]):
        raise UnsupportedCheckpoint(
            f"{name} lacks {len(missing)} of the model's weights, {missing[0]} for one: it was not trained to rerank."
        )
    return model.eval()


def recipe_of(processor: Any, size: int) -> PixelRecipe:
    """The recipe of an image processor (Pillow's), whose model takes pictures of `size`.

    Raises:
        UnsupportedCheckpoint: it makes pictures of another size, or prepares them as no recipe says.
    """
    recipe = pixel_recipe(processor)
    if recipe.size != size:
        raise UnsupportedCheckpoint(
            f"The checkpoint's pictures are prepared at {recipe.size} pixels, and its model takes {size}."
        )
    return recipe
