"""The parity certificate: the finished bundle against its source library, from file bytes and strings to vectors.

The golden vectors are the reference's. So the same comparison runs again wherever the bundle is used: `crosslens models
verify`, and the server before it says that it is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from indexer.errors import ParityFailed
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.models.golden import Golden, image_cosines, read_golden, text_cosines
from indexer.models.manifest import Precision
from onnx_export.checkpoint import Checkpoint, Vectors
from onnx_export.golden import TEXTS, draw_images, write_golden
from onnx_export.pictures import read_rgb

BOUNDS: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98}
"""The least cosine with the reference, by precision. int8's is a default: what a search loses by it is measured beside
it, as the neighbours' overlap."""


@dataclass(frozen=True)
class Certificate:
    """What was compared, and how well it agreed."""

    reference: str
    """Library and version."""
    precision: Precision
    bound: float
    images: dict[str, float] = field(default_factory=dict)
    """Cosine with the reference by golden picture."""
    texts: dict[str, float] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)
    """Share of the ten nearest neighbours that fp32 finds too, by direction; for lower precisions alone."""
    sample: str = ""
    """What the overlap was measured on."""

    def worst(self) -> tuple[str, str, float]:
        """Tower, input and cosine of the worst agreement."""
        rows = [("image", *row) for row in self.images.items()] + [("text", *row) for row in self.texts.items()]
        return min(rows, key=lambda row: row[2] if np.isfinite(row[2]) else -2.0)

    def as_dict(self) -> dict[str, object]:
        """As `certificate.json` holds it."""
        return asdict(self)


def write_reference(checkpoint: Checkpoint, folder: Path, texts: Sequence[str] = TEXTS) -> None:
    """Draw the golden inputs into a bundle's folder, and write the reference's vectors of them."""
    names = draw_images(folder / "golden") if checkpoint.image else []
    text = np.stack([checkpoint.text.reference(each) for each in texts])
    image: Vectors = np.empty((0, text.shape[1]), np.float32)
    if checkpoint.image:
        image = np.stack([checkpoint.image.reference(read_rgb(folder / "golden" / name)) for name in names])
    vectors = {"image": image.astype(np.float32), "text": text.astype(np.float32)}
    write_golden(folder, names, list(texts), vectors)


def certify(folder: Path, reference: str, precision: Precision, bound: float) -> Certificate:
    """Compare the bundle in `folder` with its golden vectors, on the CPU.

    Raises:
        ParityFailed: a cosine is below the bound; the message says of which input, and which others are.
    """
    bundle = load_bundle(folder)
    encoder = Encoder(bundle)
    golden: Golden = read_golden(bundle)
    certificate = Certificate(
        reference=reference,
        precision=precision,
        bound=bound,
        images=image_cosines(golden, bundle.manifest, encoder.encode_images),
        texts=text_cosines(golden, lambda texts: encoder.encode_texts(texts).vectors),
    )
    tower, name, cosine = certificate.worst()
    if not cosine >= bound:
        cosines = [*certificate.images.values(), *certificate.texts.values()]
        below = sum(not each >= bound for each in cosines)
        raise ParityFailed(
            f"{bundle.manifest.name!r} does not agree with {reference}: cosine {cosine:.6f} for the {tower} "
            f"{name[:60]!r}, {bound} is the least ({below} of {len(cosines)} inputs are below it).",
            certificate=certificate.as_dict(),
        )
    return certificate
