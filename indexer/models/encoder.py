"""Images and texts in, vectors of one space out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import BundleNotFound, ModelError, ModelMismatch
from indexer.models.bundle import Bundle, find_bundle
from indexer.models.manifest import IMAGE_FILE, TEXT_FILE, Manifest, PixelRecipe
from indexer.models.preprocess import prepare
from indexer.models.sessions import Tower, cpu_count
from indexer.models.tokenize import Tokenizer
from indexer.settings import Settings

Vectors = NDArray[np.float32]

_BATCH = 32
"""Inputs per run: past this a batch costs memory and gains no speed on a CPU."""


@dataclass(frozen=True)
class TextEmbeddings:
    """Embedded texts."""

    vectors: Vectors
    """(n, dimension), L2-normalised."""
    truncated: list[bool]
    """Which texts were longer than the encoder reads, and were cut."""


class Encoder:
    """Runs a bundle's two towers. Each opens when first used: a text search never loads the image tower. Thread-safe.

    Usage:
        encoder = load_encoder(Settings())
        vectors = encoder.encode_images([image])         # (1, dimension), L2-normalised
        scores = vectors @ encoder.encode_texts(["a dog"]).vectors.T
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self._threads = threads or cpu_count()
        self._opening = threading.Lock()
        self._image: Tower | None = None
        self._text: tuple[Tokenizer, Tower] | None = None

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    @property
    def fingerprint(self) -> str:
        """Names the vector space."""
        return self.manifest.fingerprint

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self.manifest.dimension

    @property
    def pixels(self) -> PixelRecipe:
        """How images are prepared."""
        return self.manifest.pixels

    def prepare(self, image: Image.Image) -> Vectors:
        """One decoded RGB image as the image tower's input, float32 (3, size, size)."""
        return prepare(image, self.pixels)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Embed decoded RGB images: float32 (n, dimension), L2-normalised."""
        size = self.pixels.size
        batches = []
        for at in range(0, len(images), _BATCH):
            some = images[at : at + _BATCH]
            pixels = np.empty((len(some), 3, size, size), dtype=np.float32)
            for row, image in zip(pixels, some, strict=True):
                row[:] = self.prepare(image)
            batches.append(self.encode_pixels(pixels))
        return np.concatenate(batches) if batches else np.empty((0, self.dimension), dtype=np.float32)

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """Embed one batch of prepared images, float32 (n, 3, size, size), in one run."""
        return self._unit(self._image_tower().run({"pixels": pixels}))

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts; what is longer than the encoder reads is cut, and said."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        truncated = [False] * len(texts)
        tokenizer, tower = self._text_tower()
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for at in range(0, len(order), _BATCH):
            some = order[at : at + _BATCH]
            tokens = tokenizer.encode([texts[index] for index in some])
            feed: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {
                "input_ids": tokens.input_ids,
                "attention_mask": tokens.attention_mask,
            }
            vectors[some] = self._unit(tower.run(feed))
            for index, cut in zip(some, tokens.truncated, strict=True):
                truncated[index] = cut
        return TextEmbeddings(vectors=vectors, truncated=truncated)

    def _unit(self, features: Vectors) -> Vectors:
        """Rows of unit length.

        Raises:
            ModelError: a row that is not finite or has no length, or is not of the bundle's dimension.
        """
        lengths = np.linalg.norm(features, axis=-1, keepdims=True)
        if features.shape[-1] != self.dimension or not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise ModelError(f"{self.name!r} gave a vector that is none.")
        return np.asarray(features / lengths, dtype=np.float32)

    def _image_tower(self) -> Tower:
        with self._opening:
            if self._image is None:
                self._image = Tower(self.bundle.path(IMAGE_FILE), inputs={"pixels"}, threads=self._threads)
            return self._image

    def _text_tower(self) -> tuple[Tokenizer, Tower]:
        with self._opening:
            if self._text is None:
                tower = Tower(
                    self.bundle.path(TEXT_FILE),
                    inputs={"input_ids"},
                    optional=frozenset({"attention_mask"}),
                    threads=self._threads,
                )
                self._text = Tokenizer(self.bundle), tower
            return self._text


def load_encoder(settings: Settings, model: str | None = None, *, threads: int | None = None) -> Encoder:
    """The encoder of a bundle by name or folder; `settings.model` when none is named.

    Raises:
        BundleNotFound: none of that name is installed.
        InvalidBundle: its manifest does not parse.
    """
    return Encoder(find_bundle(model or settings.model, settings), threads=threads or settings.threads)


def load_encoder_of(settings: Settings, model: str, fingerprint: str) -> Encoder:
    """The encoder that filled a collection, which remembers the model's name and fingerprint.

    `settings.model` is tried before that name: it may be the same bundle, in a folder of its own.

    Raises:
        ModelMismatch: the bundle is not installed here, or has other weights by the same name.
    """
    found = None
    for name in (settings.model, model):
        try:
            encoder = load_encoder(settings, name)
        except BundleNotFound:
            continue
        if encoder.fingerprint == fingerprint:
            return encoder
        found = encoder if encoder.name == model else found
    if found is None:
        raise ModelMismatch(
            f"The collection was made with {model!r}, which is not installed here.",
            remedy="Install that bundle, or ingest into a new collection with --collection.",
        )
    raise ModelMismatch(
        f"The collection was made with another version of {model!r} ({fingerprint}, here {found.fingerprint})."
    )
