"""A bundle's manifest: everything that is needed to prepare inputs as the encoder was trained to see them.

The preparation is data, never a guess: SigLIP squashes and pads text to a fixed length, CLIP crops. A value this
version does not know is an error. `onnx_export` writes manifests; `indexer.models.bundle` reads them.
"""

import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.errors import InvalidBundle, UnknownRecipe

MANIFEST_FILE = "manifest.json"
IMAGE_FILE = "image.onnx"
TEXT_FILE = "text.onnx"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.npz"
EXTERNAL_SUFFIX = ".data"
"""Behind a graph's name: the file with its weights, where they are too many for one (2 GiB)."""
CERTIFICATE_FILE = "certificate.json"


class Resize(StrEnum):
    """How an image of any shape becomes a square."""

    SQUASH = "squash"
    """Both sides to `size`, aspect ratio lost (SigLIP)."""
    SHORTEST_CROP = "shortest+crop"
    """Shortest side to `resize_to`, centre crop of `size` (CLIP, EfficientNet)."""
    LETTERBOX = "letterbox"
    """Longest side to `size`, the rest filled with `fill`."""


class CropOffset(StrEnum):
    """Where a centre crop begins when the margin is odd."""

    HALF_EVEN = "half-even"
    """Half the margin, rounded half to even (torchvision, so open_clip and timm)."""
    DOWN = "down"
    """Half the margin, rounded down (transformers): a pixel off for one margin in four."""


class Interpolation(StrEnum):
    """The resampling filter, as Pillow names it (antialiased when scaling down)."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Cleaning(StrEnum):
    """What happens to a text before its tokenizer; the names are open_clip's, but for the first and the last."""

    NONE = "none"
    WHITESPACE = "whitespace"
    """Mojibake mended (ftfy), HTML entities resolved, runs of whitespace made one blank."""
    LOWER = "lower"
    """As `WHITESPACE`, then lower-cased (CLIP)."""
    CANONICALIZE = "canonicalize"
    """Mended and resolved likewise, then without ASCII punctuation, lower-cased, whitespace made one (SigLIP)."""
    UNPUNCTUATED = "unpunctuated"
    """Lower-cased, without ASCII punctuation, whitespace made one, nothing mended (transformers' SigLIP tokenizer)."""


class Padding(StrEnum):
    """How far a batch of token sequences is padded."""

    LONGEST = "longest"
    """To the batch's own longest: for towers whose answer hangs on no position behind the text's end (CLIP)."""
    FIXED = "fixed"
    """To `context_length`, always (SigLIP pools the last position)."""


BUNDLE_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
"""ISO 639-1; of languages that have no code there, ISO 639-3."""
Languages = Annotated[tuple[Language, ...], Field(min_length=1, max_length=500)] | Literal["any"]

Tower = Literal["image", "text"]
Precision = Literal["fp32", "fp16", "int8"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PixelRecipe(_Part):
    """From a decoded RGB image to the image tower's input, float32 (3, size, size)."""

    size: int = Field(gt=0, le=4096)
    resize: Resize
    resize_to: int | None = Field(None, gt=0, le=4096)
    """Shortest side before the crop; `size` when unset."""
    crop_offset: CropOffset = CropOffset.HALF_EVEN
    fill: tuple[int, int, int] = (0, 0, 0)
    """Colour beside a letterboxed image."""
    interpolation: Interpolation = Interpolation.BICUBIC
    mean: tuple[float, float, float]
    """Subtracted from pixels scaled to 0..1."""
    std: tuple[float, float, float]


class TextRecipe(_Part):
    """From a string to the text tower's input, int64 (batch, length)."""

    prefix: str = ""
    """Put before every text (E5's "query: ")."""
    cleaning: Cleaning = Cleaning.NONE
    context_length: int = Field(gt=2, le=8192)
    """Tokens, special ones included; what is longer is cut and said."""
    padding: Padding
    pad_id: int = Field(0, ge=0)


class Calibration(_Part):
    """A logistic from cosine to the probability of a match: sigmoid(scale * cosine + bias)."""

    scale: float
    bias: float
    fitted_on: str
    """What data, in words."""


class TensorNames(_Part):
    """What a graph calls its input and its output."""

    input: str
    output: str = "features"


OUR_NAMES: dict[Tower, TensorNames] = {
    "image": TensorNames(input="pixels"),
    "text": TensorNames(input="input_ids"),
}
"""What our exporter calls them."""


class File(_Part):
    """One file of the bundle, as it was published."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(_Part):
    """`manifest.json`."""

    format: Literal[1] = 1
    name: str = Field(pattern=BUNDLE_NAME)
    family: str
    """The architecture and its training, in a few words: `clip`, `siglip`, `bridge`."""
    description: str
    dimension: int = Field(gt=0, le=65536)
    precision: dict[Tower, Precision]
    pixels: PixelRecipe | None = None
    """None for a bundle without an image tower, which embeds texts only."""
    text: TextRecipe
    tensors: dict[Tower, TensorNames] = {}
    """For graphs from elsewhere; ours take `pixels` or `input_ids` and give `features`."""
    source: str
    """Where the weights come from."""
    licence: str
    """SPDX expression of what the bundle may be used under."""
    languages: Languages | None = None
    """What its texts may be written in; None where that is not known. Nothing of the vectors hangs on it."""
    golden_cosine: float = Field(0.999, gt=0, le=1)
    """The least cosine to the golden vectors at which this machine's answers are the model's."""
    logit_scale: float | None = None
    logit_bias: float | None = None
    """The training loss' own scale of cosines and, for SigLIP, their bias: where calibration begins."""
    calibration: dict[Literal["text_to_image", "image_to_text", "image_to_image", "text_to_text"], Calibration] = {}
    files: dict[str, File]
    """Every other file of the bundle, by its name."""

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The towers it has: both, or the text tower alone."""
        return ("image", "text") if self.pixels else ("text",)

    @property
    def required_files(self) -> tuple[str, ...]:
        """The files that it cannot do without."""
        return (IMAGE_FILE, TEXT_FILE, TOKENIZER_FILE) if self.pixels else (TEXT_FILE, TOKENIZER_FILE)

    @property
    def fingerprint(self) -> str:
        """Names the vector space: 16 hex digits of what decides the vectors, and of nothing else."""
        decisive = {
            "family": self.family,
            "dimension": self.dimension,
            # Defaults are left out, so that a recipe's next option leaves the names of today's spaces alone.
            "pixels": self.pixels and self.pixels.model_dump(mode="json", exclude_defaults=True),
            "text": self.text.model_dump(mode="json", exclude_defaults=True),
            "files": {
                name: file.sha256
                for name, file in sorted(self.files.items())
                if name.removesuffix(EXTERNAL_SUFFIX) in self.required_files
            },
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`.

    Raises:
        InvalidBundle: there is none, or it does not parse.
        UnknownRecipe: it names a preparation or a format this version does not know.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidBundle(f"{folder} has no readable {MANIFEST_FILE}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{path}: {where}: {first['msg']}."
        if first["type"] in {"enum", "literal_error"}:
            raise UnknownRecipe(problem) from error
        raise InvalidBundle(problem) from error
    if missing := set(manifest.required_files) - manifest.files.keys():
        raise InvalidBundle(f"{path} lists no hash for {', '.join(sorted(missing))}.")
    return manifest


def write_manifest(manifest: BaseModel, folder: Path) -> Path:
    """Write an encoder's or a reranker's `manifest.json` into `folder`; give its path."""
    path = folder / MANIFEST_FILE
    path.write_text(manifest.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    return path
