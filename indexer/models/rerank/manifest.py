"""A rerank bundle's manifest: what its graphs are and how pairs are prepared for them.

Pictures go through two graphs: `vision.onnx` once per picture, `match.onnx` once per pair of a text and a picture's
features. Texts go through `match.onnx` alone, query and text in one sequence (a cross-encoder).
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from indexer.errors import InvalidBundle, UnknownRecipe
from indexer.models.manifest import (
    BUNDLE_NAME,
    EXTERNAL_SUFFIX,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    File,
    PixelRecipe,
    Precision,
    TextRecipe,
)

VISION_FILE = "vision.onnx"
MATCH_FILE = "match.onnx"

Graph = Literal["vision", "match"]
Shape = tuple[Annotated[int, Field(gt=0, le=65536)], Annotated[int, Field(gt=0, le=65536)]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureShapes(_Part):
    """What is kept of a picture, by the names of the vision graph's outputs; (tokens, width) each."""

    features: Shape
    """What the matching head attends to."""
    queries: Shape
    """Of unit length each: the contrastive cosine of a text is that with the nearest of them."""


class RerankManifest(_Part):
    """`manifest.json` of a rerank bundle.

    The graphs' tensors, all float32 but where said:

    `vision.onnx`   pixels (n, 3, size, size) -> features (n, tokens, width), queries (n, q, d)
    `match.onnx`    input_ids int64 (t, length), attention_mask int64 (t, length), rows int64 (n,), features, queries
                    -> matching (n,), contrastive (n,); `rows` names the text of each picture, so that one text
                    with fifty pictures is one row
    `match.onnx` of a cross-encoder for texts: input_ids, attention_mask, token_type_ids int64 (n, length)
                    -> matching (n,)

    `matching` is the logit of a match (of BLIP's and BLIP-2's two classes: the second), `contrastive` a cosine.
    """

    format: Literal[1] = 1
    task: Literal["rerank"]
    name: str = Field(pattern=BUNDLE_NAME)
    family: Literal["blip2-itm", "blip-itm", "cross-encoder"]
    description: str
    precision: dict[Graph, Precision]
    pixels: PixelRecipe | None = None
    """None for a cross-encoder, which reads texts only."""
    shapes: FeatureShapes | None = None
    """Of what is kept of a picture; where there are `pixels`."""
    text: TextRecipe
    """Of the query; for a cross-encoder of query and text together, the longer one cut first."""
    token_types: bool = False
    """Whether a cross-encoder's graph takes `token_type_ids`."""
    contrastive_weight: float = Field(1.0, ge=0, le=100)
    """A pair's score is matching + this * contrastive, as the reference ranks."""
    source: str
    licence: str
    golden_error: float = Field(1e-3, gt=0)
    """The most that a golden score may differ on this machine."""
    files: dict[str, File]

    @model_validator(mode="after")
    def _whole(self) -> "RerankManifest":
        if (self.pixels is None) != (self.shapes is None) or (self.pixels is None) != (self.family == "cross-encoder"):
            raise ValueError("pixels and shapes are what models of pictures have, both, and cross-encoders neither")
        return self

    @property
    def required_files(self) -> tuple[str, ...]:
        """The files that it cannot do without."""
        return (VISION_FILE, MATCH_FILE, TOKENIZER_FILE) if self.pixels else (MATCH_FILE, TOKENIZER_FILE)

    @property
    def fingerprint(self) -> str:
        """Names the scores: 16 hex digits of what decides them. Features are kept under it."""
        decisive = {
            "family": self.family,
            "pixels": self.pixels and self.pixels.model_dump(mode="json", exclude_defaults=True),
            "text": self.text.model_dump(mode="json", exclude_defaults=True),
            "contrastive_weight": self.contrastive_weight,
            "files": {
                name: file.sha256
                for name, file in sorted(self.files.items())
                if name.removesuffix(EXTERNAL_SUFFIX) in self.required_files
            },
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def read_rerank_manifest(folder: Path) -> RerankManifest:
    """The manifest of the rerank bundle in `folder`.

    Raises:
        InvalidBundle: there is none, it does not parse, or it is an encoder's.
        UnknownRecipe: it names a preparation or a format this version does not know.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = RerankManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidBundle(f"{folder} has no readable {MANIFEST_FILE}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}."
        if first["type"] in {"enum", "literal_error"}:
            raise UnknownRecipe(problem) from error
        raise InvalidBundle(problem) from error
    if missing := set(manifest.required_files) - manifest.files.keys():
        raise InvalidBundle(f"{path} lists no hash for {', '.join(sorted(missing))}.")
    return manifest
