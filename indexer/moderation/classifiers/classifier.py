"""An image classifier at work: decoded pictures in, a probability for each label out."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from indexer.errors import EncoderFailed
from indexer.models.devices import Device, Kind, Plan, cpu_count
from indexer.models.manifest import Resize
from indexer.models.preprocess import prepare
from indexer.models.sessions import Tower
from indexer.moderation.classifiers.manifest import ClassifierManifest, ClassifierRecipe, find_classifier

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.media.decode import Decoded
    from indexer.moderation.subjects import Floats

MAX_BATCH = 16
"""Pictures per run."""


class ImageClassifier:
    """A classifier whose graph opens when it is first used. Thread-safe.

    Pictures are seen as they are shown: upright, transparency over white. open_nsfw's own package ignores EXIF and
    drops transparency; of pictures with neither, its scores are these.

    Usage:
        classifier = load_classifier("open-nsfw")
        scores = classifier.classify([decode(data, max_pixels=...)])     # (1, labels)
    """

    def __init__(self, manifest: ClassifierManifest, graph: Path, plan: Plan | None = None) -> None:
        """`graph` is a file that was compared with the manifest; of the plan, the last candidate is used."""
        self.manifest = manifest
        self._graph = graph
        self._plan = plan or Plan(candidates=((Device(Kind.CPU),),), threads=cpu_count())
        self._opening = threading.Lock()
        self._tower: Tower | None = None

    @property
    def target(self) -> int:
        """The shortest side, in pixels, that a scaled decoder must at least keep.

        Scores hang on single grey levels where a JPEG is made: those of 17 photos, decoded at a quarter of 3,000
        pixels, differ from those of the whole photo by up to 0.02. The package's own scores take a picture in full.
        """
        return self.manifest.pixels.resize_to or self.manifest.pixels.size

    def prepare(self, image: Image.Image | Decoded) -> Floats:
        """One RGB picture as the graph's input: float32 (3, size, size), or (size, size, 3) by its layout."""
        return prepare_for(self.manifest.pixels, image)

    def classify(self, images: Sequence[Image.Image | Decoded]) -> Floats:
        """Probabilities of the labels, float32 (n, labels).

        Raises:
            InvalidBundle: the graph does not load.
            EncoderFailed: it fails, or gives something else than a probability for every label.
        """
        parts = [
            self.classify_prepared(np.stack([self.prepare(image) for image in images[at : at + MAX_BATCH]]))
            for at in range(0, len(images), MAX_BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.manifest.labels)), dtype=np.float32)

    def classify_prepared(self, pixels: Floats) -> Floats:
        """The same of one batch of what `prepare` gave, in one run."""
        given = self._open().run({self.manifest.tensors.input: pixels})
        wanted = (len(pixels), len(self.manifest.labels))
        if given.shape != wanted or not np.isfinite(given).all():
            raise EncoderFailed(f"{self.manifest.name} gave {given.shape}, not finite values in {wanted}.")
        match self.manifest.output:
            case "logits":
                odds = np.exp(given - given.max(axis=1, keepdims=True))
                given = np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float32)
            case "independent logits":
                given = np.asarray(1 / (1 + np.exp(-np.clip(given, -60, 60))), dtype=np.float32)
        return np.clip(given, 0, 1).astype(np.float32)

    def _open(self) -> Tower:
        with self._opening:
            if self._tower is None:
                devices = self._plan.candidates[-1]
                self._tower = Tower(self._graph, self.manifest.tensors, "fp32", self._plan, devices)
            return self._tower


def load_classifier(name: str, folders: tuple[Path, ...] = (), plan: Plan | None = None) -> ImageClassifier:
    """A classifier by name.

    Raises:
        ClassifierNotFound: there is none.
        InvalidBundle: there is one, and it is broken.
    """
    manifest, graph = find_classifier(name, folders)
    return ImageClassifier(manifest, graph, plan)


def prepare_for(recipe: ClassifierRecipe, image: Image.Image | Decoded) -> Floats:
    """A picture as a classifier's graph takes it; float32, and the same bytes of memory in one piece."""
    # Whole numbers but for the last bit of the scale.
    square = np.rint(prepare(image, recipe.geometry)).astype(np.uint8).transpose(1, 2, 0)
    if recipe.resize is Resize.SQUASH:
        margin = (len(square) - recipe.size) // 2
        square = square[margin : margin + recipe.size, margin : margin + recipe.size]
    if recipe.jpeg_quality is not None:
        square = _through_jpeg(square, recipe.jpeg_quality)
    mean, std = (np.asarray(each, dtype=np.float32) for each in (recipe.mean, recipe.std))
    pixels = (square * (1 / (255 * std)) - mean / std).astype(np.float32)
    if recipe.channels == "bgr":
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if recipe.layout == "nchw" else pixels)


def _through_jpeg(square: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    with io.BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(square)).save(file, "JPEG", quality=quality)
        file.seek(0)
        with Image.open(file, formats=["JPEG"]) as again:
            return np.asarray(again)
