"""What the image tower's 1000 classes mean, in the text tower's space: an ensemble of prompts and a dictionary's words.

The names are CLIP's curated ones (Radford et al. 2021), from the data of the open_clip wheel (MIT); the definitions are
WordNet's, from the data of the timm wheel (Apache-2.0). Both are read as files: importing either package would
need torchvision, and nothing of their code is used.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from importlib.metadata import files
from pathlib import Path

import numpy as np

from onnx_export.bridge.reference import Vectors, unit

PROMPTS = (
    "a photo of a {}",
    "{}",
    "a photo of the {}",
    "a close-up photo of a {}",
    "a photo of many {}",
    "a {} in the background",
    "a person with a {}",
    "there is a {} in the picture",
    "a good photo of a {}",
    "a photo of my {}",
    "a cropped photo of a {}",
    "a photo of a {} outside",
    "a picture of a small {}",
    "the {} next to people",
)
DEFINITION_WEIGHT = 0.5
TEMPERATURE = 2.0
"""Of the classifier's softmax: an image is a mixture of classes, not one of them."""


def prototypes(embed: Callable[[Sequence[str]], Vectors]) -> Vectors:
    """A vector for each class, float32 (1000, 384), L2-normalised: mean of the prompts, and half a definition."""
    names, definitions = class_names(), class_definitions()
    prompts = [embed([prompt.format(name) for name in names]) for prompt in PROMPTS]
    defined = embed([f"{name}: {definition}" for name, definition in zip(names, definitions, strict=True)])
    return unit(np.mean(unit(np.mean(prompts, axis=0)) + DEFINITION_WEIGHT * defined[None], axis=0))


def conse(logits: Vectors, centred: Vectors) -> Vectors:
    """ConSE (Norouzi et al. 2014): class vectors (1000, D), centred, mixed by the classifier's belief; (n, D), unit."""
    return unit(as_belief(logits) @ centred)


def class_names() -> list[str]:
    """The names of ImageNet's classes, in the classifier's order."""
    module = ast.parse(_file("open_clip_torch", "zero_shot_metadata.py").read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "IMAGENET_CLASSNAMES":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise LookupError("open_clip's data holds no class names.")


def class_definitions() -> list[str]:
    """WordNet's definitions of ImageNet's classes, in the classifier's order."""
    order = _file("timm", "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    lines = _file("timm", "imagenet_synset_to_definition.txt").read_text(encoding="utf-8").splitlines()
    definitions = dict(line.split("\t", 1) for line in lines)
    return [definitions[synset] for synset in order]


def _file(package: str, name: str) -> Path:
    """A file of an installed package, found without importing it."""
    for path in files(package) or ():
        if path.name == name:
            return Path(str(path.locate()))
    raise FileNotFoundError(f"{package} has no {name}.")


def as_belief(logits: Vectors) -> Vectors:
    """The classifier's belief, (n, 1000), softened so that an image is a mixture of classes."""
    belief = np.exp((logits - logits.max(axis=1, keepdims=True)) / TEMPERATURE)
    return np.asarray(belief / belief.sum(axis=1, keepdims=True), dtype=np.float32)
