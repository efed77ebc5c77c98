"""What a lower precision costs a search: the share of the nearest neighbours that it leaves in place.

A cosine of .999 says little of ranks. So a sample is embedded by both graphs, and each item's ten nearest are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from indexer.errors import MediaError, UsageError
from indexer.media.decode import Decoded, decode, read_file
from indexer.models.encoder import Encoder
from indexer.models.preprocess import decode_target
from onnx_export.checkpoint import Vectors

_NEAREST = 10
_MOST = 500
_LEAST = 50
_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black", "brown", "pink")
_SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
_LIMITS = {"max_pixels": 100_000_000}


@dataclass(frozen=True)
class Sample:
    """Pictures and texts to compare neighbours on."""

    images: list[Decoded]
    texts: list[str]
    name: str
    """What it is, in words."""


def drawn_sample() -> Sample:
    """240 simple pictures, no two alike, and a caption of each."""
    chance = np.random.default_rng(0)
    scenes = list(itertools.product(_SHAPES, _COLOURS, _COLOURS))
    picked = [scenes[index] for index in sorted(chance.choice(len(scenes), 240, replace=False))]
    images = [Decoded.whole(_draw(shape, colour, ground, chance)) for shape, colour, ground in picked]
    texts = [f"a {colour} {shape} on a {ground} ground" for shape, colour, ground in picked]
    return Sample(images, texts, f"{len(images)} drawn pictures and their captions")


def sample_of(folder: Path, encoder: Encoder) -> Sample:
    """The first photos of a folder, 500 at most; texts are the drawn ones' captions.

    Raises:
        UsageError: it holds fewer than 50 that can be read.
    """
    target = decode_target(encoder.pixels)
    images: list[Decoded] = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            images.append(decode(read_file(path, max_bytes=2**28), target=target, **_LIMITS))
        except MediaError:
            continue  # not a picture, or a broken one: others will do
        if len(images) == _MOST:
            break
    if len(images) < _LEAST:
        raise UsageError(f"{folder} holds {len(images)} readable pictures.", remedy=f"Give a folder of {_LEAST}.")
    return Sample(images, drawn_sample().texts, f"{len(images)} photos of {folder.name} and drawn captions")


def overlaps(full: Encoder, lower: Encoder, sample: Sample) -> dict[str, float]:
    """Overlap@10 by direction: images among images, texts among texts, images by text."""
    texts = [encoder.encode_texts(sample.texts).vectors for encoder in (full, lower)]
    found = {"text_to_text": _overlap(texts[0], texts[0], texts[1], texts[1], itself=True)}
    if full.manifest.pixels is not None:
        images = [encoder.encode_images(sample.images) for encoder in (full, lower)]
        found["image_to_image"] = _overlap(images[0], images[0], images[1], images[1], itself=True)
        found["text_to_image"] = _overlap(texts[0], images[0], texts[1], images[1], itself=False)
    return {direction: round(share, 4) for direction, share in found.items()}


def _overlap(queries: Vectors, answers: Vectors, low_queries: Vectors, low_answers: Vectors, *, itself: bool) -> float:
    both = zip(_nearest(queries, answers, itself), _nearest(low_queries, low_answers, itself), strict=True)
    return float(np.mean([len(set(one) & set(other)) / _NEAREST for one, other in both]))


def _nearest(queries: Vectors, answers: Vectors, itself: bool) -> Sequence[Sequence[int]]:
    scores = queries @ answers.T
    if itself:
        np.fill_diagonal(scores, -2.0)
    nearest: list[list[int]] = np.argsort(-scores, axis=1)[:, :_NEAREST].tolist()
    return nearest


def _draw(shape: str, colour: str, ground: str, chance: np.random.Generator) -> Image.Image:
    width, height = (int(side) for side in chance.integers(240, 480, 2))
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    reach = int(min(width, height) * chance.uniform(0.15, 0.4))
    x, y = int(chance.uniform(reach, width - reach)), int(chance.uniform(reach, height - reach))
    match shape:
        case "circle":
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
        case "ring":
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=max(4, reach // 3))
        case "cross":
            draw.line((x - reach, y, x + reach, y), fill=colour, width=max(4, reach // 3))
            draw.line((x, y - reach, x, y + reach), fill=colour, width=max(4, reach // 3))
        case "star":
            points = [(reach if point % 2 else reach // 2, point * np.pi / 5) for point in range(10)]
            draw.polygon([(x + r * np.sin(a), y + r * np.cos(a)) for r, a in points], fill=colour)
        case _:
            sides = 4 if shape == "square" else 3
            draw.regular_polygon((x, y, reach), sides, rotation=int(chance.integers(0, 90)), fill=colour)
    return image
