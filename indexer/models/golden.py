"""Does this machine compute the vectors that the bundle's makers computed?

The golden inputs are files, not tensors, so decoding, resizing, cropping and tokenizing are checked too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.errors import GoldenMismatch, InvalidBundle, MediaError, ModelError
from indexer.media.decode import Decoded, decode
from indexer.models.bundle import Bundle
from indexer.models.manifest import GOLDEN_FILE, Manifest, Tower
from indexer.models.preprocess import decode_target

if TYPE_CHECKING:
    from indexer.models.encoder import Encoder

LISTING_FILE = "golden.json"
_MOST_PIXELS = 10**8


@dataclass(frozen=True)
class Golden:
    """A bundle's golden inputs and their vectors; no images where the bundle embeds texts only."""

    names: list[str]
    """Of the images."""
    images: list[bytes]
    texts: list[str]
    image_vectors: NDArray[np.float32]
    text_vectors: NDArray[np.float32]


@dataclass(frozen=True)
class GoldenReport:
    """Cosines between this machine's vectors and the golden ones, by golden input."""

    images: dict[str, float]
    texts: dict[str, float]

    @property
    def image(self) -> float | None:
        """The worst of the images; None for a bundle that embeds texts only."""
        return min(self.images.values(), default=None)

    @property
    def text(self) -> float | None:
        """The worst of the texts."""
        return min(self.texts.values(), default=None)


def read_golden(bundle: Bundle) -> Golden:
    """A bundle's golden inputs and vectors.

    Raises:
        InvalidBundle: a file is missing, changed, or not what it should be.
    """
    with parsing(bundle.manifest.name):
        listing = json.loads(bundle.path(LISTING_FILE).read_bytes())
        names = [str(name) for name in listing["images"]]
        with np.load(io.BytesIO(bundle.path(GOLDEN_FILE).read_bytes()), allow_pickle=False) as arrays:
            golden = Golden(
                names=names,
                images=[bundle.path(f"golden/{name}").read_bytes() for name in names],
                texts=[str(text) for text in listing["texts"]],
                image_vectors=np.asarray(arrays["image"], dtype=np.float32),
                text_vectors=np.asarray(arrays["text"], dtype=np.float32),
            )
    shapes = (golden.image_vectors.shape, golden.text_vectors.shape)
    dimension = bundle.manifest.dimension
    if shapes != ((len(golden.images), dimension), (len(golden.texts), dimension)) or not golden.texts:
        raise InvalidBundle(f"The golden vectors of {bundle.manifest.name!r} are not those of its golden inputs.")
    if "image" in bundle.manifest.towers and not golden.images:
        raise InvalidBundle(f"{bundle.manifest.name!r} has an image tower, and no golden image.")
    return golden


@contextmanager
def parsing(bundle: str) -> Iterator[None]:
    """Whatever goes wrong with a bundle's golden files in here is the bundle's fault.

    Raises:
        InvalidBundle: in place of that.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # what a ZIP archive of arrays that somebody damaged raises has no common base
        raise InvalidBundle(f"The golden files of {bundle!r} do not parse: {error!r:.200}.") from error


def golden_picture(bundle: str, name: str, data: bytes, target: int) -> Decoded:
    """A golden image, decoded.

    Raises:
        InvalidBundle: it is none.
    """
    try:
        return decode(data, target=target, max_pixels=_MOST_PIXELS)
    except MediaError as error:
        raise InvalidBundle(f"The golden image {name!r} of {bundle!r} is none: {error.message}") from error


def check_golden(encoder: Encoder, *, canary: bool = False) -> GoldenReport:
    """Embed the golden inputs (with `canary` the first of each alone) and compare.

    Raises:
        GoldenMismatch: a cosine is below the manifest's `golden_cosine`; it names the input.
        InvalidBundle: the golden files are missing or broken.
    """
    golden = read_golden(encoder.bundle)
    count = 1 if canary else None
    report = GoldenReport(
        images=image_cosines(golden, encoder.manifest, encoder.encode_images, count),
        texts=text_cosines(golden, lambda texts: encoder.encode_texts(texts).vectors, count),
    )
    require(encoder.bundle, {"image": report.images, "text": report.texts})
    return report


def image_cosines(
    golden: Golden,
    manifest: Manifest,
    encode: Callable[[list[Decoded]], NDArray[np.float32]],
    count: int | None = None,
) -> dict[str, float]:
    """Cosines of the first `count` golden images (all by default), by name."""
    if manifest.pixels is None:
        return {}
    target = decode_target(manifest.pixels)
    # One by one: some are large, and what a picture's vector is must not hang on what else is in its batch.
    vectors = [
        encode([golden_picture(manifest.name, name, data, target)])[0]
        for name, data in list(zip(golden.names, golden.images, strict=True))[:count]
    ]
    return _cosines(golden.names, vectors, golden.image_vectors)


def text_cosines(
    golden: Golden, encode: Callable[[list[str]], NDArray[np.float32]], count: int | None = None
) -> dict[str, float]:
    """Cosines of the first `count` golden texts (all by default), by text."""
    vectors = [encode([text])[0] for text in golden.texts[:count]]
    return _cosines(golden.texts, vectors, golden.text_vectors)


def require(bundle: Bundle, cosines: dict[Tower, dict[str, float]]) -> None:
    """Refuse cosines below the manifest's `golden_cosine`.

    Raises:
        GoldenMismatch: with the worst input and its cosine.
    """
    least = bundle.manifest.golden_cosine
    for tower, by_input in cosines.items():
        for name, cosine in sorted(by_input.items(), key=lambda each: each[1])[:1]:
            if not cosine >= least:  # so that NaN fails too
                raise GoldenMismatch(
                    f"{bundle.manifest.name!r} gives other vectors here than where it was made: cosine {cosine:.5f} "
                    f"for the golden {tower} {name[:40]!r}, {least} is the least.",
                    tower=tower,
                    input=name[:200],
                    cosine=cosine,
                )


def _cosines(
    names: Sequence[str], ours: Sequence[NDArray[np.float32]], golden: NDArray[np.float32]
) -> dict[str, float]:
    unit = golden / np.linalg.norm(golden, axis=-1, keepdims=True)
    return {name: float(vector @ row) for name, vector, row in zip(names, ours, unit, strict=False)}
