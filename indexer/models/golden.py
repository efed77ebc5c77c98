"""Does this machine compute the vectors that the bundle's makers computed?

The golden inputs are files, not tensors, so decoding, resizing, cropping and tokenizing are checked too.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import GoldenMismatch, InvalidBundle
from indexer.media.decode import decode
from indexer.models.encoder import Encoder
from indexer.models.manifest import GOLDEN_FILE
from indexer.models.preprocess import decode_target

LISTING_FILE = "golden.json"


@dataclass(frozen=True)
class Golden:
    """A bundle's golden inputs and their vectors."""

    images: list[bytes]
    texts: list[str]
    image_vectors: NDArray[np.float32]
    text_vectors: NDArray[np.float32]


@dataclass(frozen=True)
class GoldenReport:
    """The worst cosine between this machine's vectors and the golden ones, per tower."""

    image: float
    text: float


def read_golden(encoder: Encoder) -> Golden:
    """The golden inputs and vectors of an encoder's bundle.

    Raises:
        InvalidBundle: a file is missing, changed, or not what it should be.
    """
    bundle = encoder.bundle
    try:
        listing = json.loads(bundle.path(LISTING_FILE).read_bytes())
        with np.load(io.BytesIO(bundle.path(GOLDEN_FILE).read_bytes()), allow_pickle=False) as arrays:
            golden = Golden(
                images=[bundle.path(f"golden/{name}").read_bytes() for name in listing["images"]],
                texts=[str(text) for text in listing["texts"]],
                image_vectors=arrays["image"],
                text_vectors=arrays["text"],
            )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidBundle(f"The golden files of {encoder.name!r} do not parse: {error}.") from error
    shapes = (golden.image_vectors.shape, golden.text_vectors.shape)
    if shapes != ((len(golden.images), encoder.dimension), (len(golden.texts), encoder.dimension)):
        raise InvalidBundle(f"The golden vectors of {encoder.name!r} are not those of its golden inputs.")
    return golden


def check_golden(encoder: Encoder, *, canary: bool = False) -> GoldenReport:
    """Embed the golden inputs (with `canary` the first of each alone) and compare.

    Raises:
        GoldenMismatch: a cosine is below the manifest's `golden_cosine`.
        InvalidBundle: the golden files are missing or broken.
    """
    golden = read_golden(encoder)
    count = 1 if canary else None
    images = encoder.encode_images([_decoded(encoder, data) for data in golden.images[:count]])
    # One by one: what a text's vector is must not hang on what else is in its batch.
    texts = np.concatenate([encoder.encode_texts([text]).vectors for text in golden.texts[:count]])
    report = GoldenReport(
        image=_worst_cosine(images, golden.image_vectors[:count]),
        text=_worst_cosine(texts, golden.text_vectors[:count]),
    )
    worst = min(report.image, report.text)
    if worst < encoder.manifest.golden_cosine:
        raise GoldenMismatch(
            f"{encoder.name!r} gives other vectors here than where it was made: cosine {worst:.5f}, "
            f"{encoder.manifest.golden_cosine} is the least.",
            image=report.image,
            text=report.text,
        )
    return report


def _decoded(encoder: Encoder, data: bytes) -> Image.Image:
    return decode(data, target=decode_target(encoder.pixels), max_pixels=10**8).image


def _worst_cosine(ours: NDArray[np.float32], golden: NDArray[np.float32]) -> float:
    unit = golden / np.linalg.norm(golden, axis=-1, keepdims=True)
    return float((ours * unit).sum(axis=-1).min())
