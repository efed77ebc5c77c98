"""Images and texts in, vectors of one space out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import BundleNotFound, ModelError, ModelMismatch, TextsOnly
from indexer.media.decode import Decoded
from indexer.models.bundle import Bundle, find_bundle
from indexer.models.devices import Device, Kind, Plan, choose, cpu_count
from indexer.models.golden import image_cosines, read_golden, require, text_cosines
from indexer.models.manifest import IMAGE_FILE, OUR_NAMES, TEXT_FILE, Manifest, PixelRecipe, TensorNames
from indexer.models.manifest import Tower as TowerName
from indexer.models.preprocess import prepare
from indexer.models.sessions import ATTENTION_MASK, Tower
from indexer.models.tokenize import Tokenizer
from indexer.settings import Settings

Vectors = NDArray[np.float32]

MAX_BATCH = 32
"""Inputs per run: past this a batch costs memory and gains no speed on a CPU."""

_LENGTH_STEP = 8
"""Tokens that a batch's length is rounded up to on a GPU, which prepares for every shape."""

_log = structlog.get_logger("encoder")


@dataclass(frozen=True)
class TextEmbeddings:
    """Embedded texts."""

    vectors: Vectors
    """(n, dimension), L2-normalised."""
    truncated: list[bool]
    """Which texts were longer than the encoder reads, and were cut."""
    tokenize_seconds: float = 0.0
    """How much of the time went into tokens."""


class Encoder:
    """Runs a bundle's two towers. Each opens when first used: a text search never loads the image tower. Thread-safe.

    Usage:
        encoder = load_encoder(Settings())
        vectors = encoder.encode_images([image])         # (1, dimension), L2-normalised
        scores = vectors @ encoder.encode_texts(["a dog"]).vectors.T
    """

    def __init__(self, bundle: Bundle, plan: Plan | None = None) -> None:
        self.bundle = bundle
        self._plan = plan or Plan(candidates=((Device(Kind.CPU),),), threads=cpu_count())
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
        """How images are prepared.

        Raises:
            TextsOnly: the bundle has no image tower.
        """
        if self.manifest.pixels is None:
            raise TextsOnly(f"{self.name!r} embeds texts only.")
        return self.manifest.pixels

    @property
    def devices(self) -> dict[str, str]:
        """The device of each tower that is open: `{"image": "cuda:0", "text": "cpu"}`."""
        opened = {"image": self._image, "text": self._text and self._text[1]}
        return {name: ",".join(device.name for device in tower.devices) for name, tower in opened.items() if tower}

    def prepare(self, image: Image.Image | Decoded) -> Vectors:
        """One RGB image, or decoded file, as the image tower's input, float32 (3, size, size)."""
        return prepare(image, self.pixels)

    def encode_images(self, images: Sequence[Image.Image | Decoded]) -> Vectors:
        """Embed RGB images, or decoded files: float32 (n, dimension), L2-normalised."""
        vectors = np.empty((len(images), self.dimension), dtype=np.float32)
        for at in range(0, len(images), MAX_BATCH):
            some = images[at : at + MAX_BATCH]
            vectors[at : at + len(some)] = self._run_images(self._image_tower(), some)
        return vectors

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """Embed one batch of prepared images, float32 (n, 3, size, size), in one run."""
        return self._run_pixels(self._image_tower(), pixels)

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts; what is longer than the encoder reads is cut, and said."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        truncated = [False] * len(texts)
        seconds = 0.0
        tokenizer, tower = self._text_tower()
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for at in range(0, len(order), MAX_BATCH):
            some = order[at : at + MAX_BATCH]
            vectors[some], cuts, took = self._run_texts(tokenizer, tower, [texts[index] for index in some])
            seconds += took
            for index, cut in zip(some, cuts, strict=True):
                truncated[index] = cut
        return TextEmbeddings(vectors=vectors, truncated=truncated, tokenize_seconds=seconds)

    def _run_images(self, tower: Tower, images: Sequence[Image.Image | Decoded]) -> Vectors:
        size = self.pixels.size
        pixels = np.empty((len(images), 3, size, size), dtype=np.float32)
        for row, image in zip(pixels, images, strict=True):
            row[:] = self.prepare(image)
        return self._run_pixels(tower, pixels)

    def _run_pixels(self, tower: Tower, pixels: Vectors) -> Vectors:
        return self._unit(tower.run({self._names("image").input: pixels}))

    def _run_texts(self, tokenizer: Tokenizer, tower: Tower, texts: list[str]) -> tuple[Vectors, list[bool], float]:
        """Vectors, which texts were cut, and the seconds that tokenizing took."""
        started = time.perf_counter()
        tokens = tokenizer.encode(texts, multiple_of=_LENGTH_STEP if tower.is_gpu else 1)
        took = time.perf_counter() - started
        feed = {self._names("text").input: tokens.input_ids, ATTENTION_MASK: tokens.attention_mask}
        return self._unit(tower.run(feed)), tokens.truncated, took

    def _unit(self, features: Vectors) -> Vectors:
        """Rows of unit length.

        Raises:
            ModelError: a row that is not finite or has no length, or is not of the bundle's dimension.
        """
        lengths = np.linalg.norm(features, axis=-1, keepdims=True)
        if features.shape[-1] != self.dimension or not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise ModelError(f"{self.name!r} gave a vector that is none.")
        return np.asarray(features / lengths, dtype=np.float32)

    def warm_up(self, max_batch: int = MAX_BATCH) -> None:
        """Open both towers; on a GPU also run every batch size once, so that no request waits for its preparation.

        Raises:
            ModelError: a tower does not open or does not run.
        """
        if self.manifest.pixels is not None:
            size = self.pixels.size
            for count in _batch_sizes(max_batch if self._image_tower().is_gpu else 1):
                # Not zeros: a vector without length is an error, and some towers give it for an empty picture.
                self.encode_pixels(np.full((count, 3, size, size), 0.5, dtype=np.float32))
        for count in _batch_sizes(max_batch if self._text_tower()[1].is_gpu else 1):
            self.encode_texts(["a photo"] * count)

    def _image_tower(self) -> Tower:
        with self._opening:
            if self._image is None:
                self._image = self._open("image", self.bundle.graph(IMAGE_FILE))
            return self._image

    def _text_tower(self) -> tuple[Tokenizer, Tower]:
        with self._opening:
            if self._text is None:
                self._text = Tokenizer(self.bundle), self._open("text", self.bundle.graph(TEXT_FILE))
            return self._text

    def _open(self, which: TowerName, path: Path) -> Tower:
        """The tower on the first candidate that can be used and gives the golden vector."""
        *optional, last = self._plan.candidates
        for devices in optional:
            try:
                return self._try(which, path, devices)
            except ModelError as error:
                names = ",".join(device.name for device in devices)
                _log.warning("device passed over", model=self.name, tower=which, device=names, reason=error.message)
        return self._try(which, path, last)

    def _try(self, which: TowerName, path: Path, devices: tuple[Device, ...]) -> Tower:
        """The tower on these devices.

        A device may compute something else than the makers' did (OpenVINO has, for one exporter's graphs), so another
        one than the CPU is believed only after it gave a golden vector. On the CPU, readiness checks it.
        """
        tower = Tower(path, self._names(which), self.manifest.precision[which], self._plan, devices)
        if any(device.kind is not Kind.CPU for device in devices):
            golden = read_golden(self.bundle)
            if which == "image":
                cosines = image_cosines(golden, self.manifest, lambda images: self._run_images(tower, images), 1)
            else:
                tokenizer = Tokenizer(self.bundle)
                cosines = text_cosines(golden, lambda texts: self._run_texts(tokenizer, tower, texts)[0], 1)
            require(self.bundle, {which: cosines})
        return tower

    def _names(self, which: TowerName) -> TensorNames:
        return self.manifest.tensors.get(which, OUR_NAMES[which])


def _batch_sizes(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length())]


def load_encoder(settings: Settings, model: str | None = None, *, threads: int | None = None) -> Encoder:
    """The encoder of a bundle by name or folder; `settings.model` when none is named.

    `threads` is for each run on the CPU; `settings.threads`, else all cores, when unset.

    Raises:
        BundleNotFound: none of that name is installed.
        InvalidBundle: its manifest does not parse.
        UsageError: `settings.device` does not parse.
        DeviceUnavailable: it names a device that this ONNX Runtime cannot use.
    """
    import onnxruntime  # noqa: PLC0415  only to ask what it can

    bundle = find_bundle(model or settings.model, settings)
    plan = Plan(
        candidates=choose(settings.device, onnxruntime.get_available_providers()),
        threads=threads or settings.threads or cpu_count(),
        gpu_memory=settings.gpu_memory,
        engines=settings.models_folder / "engines" / bundle.manifest.fingerprint,
    )
    return Encoder(bundle, plan)


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
