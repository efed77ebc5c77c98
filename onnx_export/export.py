"""From a checkpoint to an installed bundle: graphs, recipes, golden vectors, certificate; or nothing at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.models.bundle import load_bundle, published_files, put_in_place
from indexer.models.encoder import Encoder
from indexer.models.manifest import (
    CERTIFICATE_FILE,
    IMAGE_FILE,
    TEXT_FILE,
    TOKENIZER_FILE,
    Languages,
    Manifest,
    Precision,
    Tower,
    write_manifest,
)
from onnx_export import graphs
from onnx_export.checkpoint import Checkpoint
from onnx_export.neighbours import drawn_sample, overlaps, sample_of
from onnx_export.parity import BOUNDS, Certificate, certify, write_reference

_GRAPHS: dict[Tower, str] = {"image": IMAGE_FILE, "text": TEXT_FILE}


@dataclass(frozen=True)
class Order:
    """What is to be made of a checkpoint."""

    name: str
    """The bundle's."""
    precision: Precision
    licence: str
    description: str
    bound: float | None = None
    """The least cosine with the reference of a precision below fp32; `BOUNDS` has the defaults."""
    languages: Languages | None = None
    """What texts may be written in, where that is known better than from the model card."""
    sample: Path | None = None
    """A folder of photos to compare neighbours on; drawn pictures when unset."""


def export(checkpoint: Checkpoint, order: Order, out: Path, say: Callable[[str], None]) -> Certificate:
    """Make the bundle and move it to `out`, replacing what is there; `say` is told what happens.

    The fp32 graphs are certified first whatever precision is ordered: a loss of precision must not hide a recipe that
    was misread.

    Raises:
        ParityFailed: the bundle does not agree with its reference; `out` is left as it was.
    """
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        full = _build_full(checkpoint, order, building / "fp32", say)
        if order.precision == "fp32":
            finished, certificate = building / "fp32", full
        else:
            finished, certificate = _build_lower(checkpoint, order, building, say)
        text = json.dumps(certificate.as_dict(), indent=2, ensure_ascii=False)
        (finished / CERTIFICATE_FILE).write_text(text + "\n", encoding="utf-8")
        _write_manifest(checkpoint, order, order.precision, certificate.bound, finished)
        put_in_place(finished, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return certificate


def _build_full(checkpoint: Checkpoint, order: Order, folder: Path, say: Callable[[str], None]) -> Certificate:
    folder.mkdir(parents=True)
    if checkpoint.image:
        say("Tracing the image tower")
        graphs.export_images(checkpoint.image, folder / IMAGE_FILE)
    say("Tracing the text tower")
    graphs.export_texts(checkpoint.text, folder / TEXT_FILE)
    checkpoint.text.tokenizer.save(str(folder / TOKENIZER_FILE))
    say(f"Asking {checkpoint.reference} for the golden vectors")
    write_reference(checkpoint, folder)
    _write_manifest(checkpoint, order, "fp32", BOUNDS["fp32"], folder)
    say("Comparing the fp32 bundle with them")
    return certify(folder, checkpoint.reference, "fp32", BOUNDS["fp32"])


def _build_lower(
    checkpoint: Checkpoint, order: Order, building: Path, say: Callable[[str], None]
) -> tuple[Path, Certificate]:
    full, lower = building / "fp32", building / order.precision
    shutil.copytree(full, lower, ignore=shutil.ignore_patterns("*.onnx", "*.onnx.data"))
    for tower in checkpoint.towers:
        say(f"Converting the {tower} tower to {order.precision}")
        graphs.convert(full / _GRAPHS[tower], lower / _GRAPHS[tower], order.precision)
    bound = BOUNDS[order.precision] if order.bound is None else order.bound
    _write_manifest(checkpoint, order, order.precision, bound, lower)
    say(f"Comparing the {order.precision} bundle with the golden vectors")
    certificate = certify(lower, checkpoint.reference, order.precision, bound)
    say("Comparing its nearest neighbours with those of fp32")
    one, other = Encoder(load_bundle(full)), Encoder(load_bundle(lower))
    sample = sample_of(order.sample, one) if order.sample else drawn_sample()
    return lower, replace(certificate, overlap=overlaps(one, other, sample), sample=sample.name)


def _write_manifest(checkpoint: Checkpoint, order: Order, precision: Precision, bound: float, folder: Path) -> None:
    manifest = Manifest(
        name=order.name,
        family=checkpoint.family,
        description=order.description,
        dimension=checkpoint.dimension,
        precision=dict.fromkeys(checkpoint.towers, precision),
        pixels=checkpoint.image.recipe if checkpoint.image else None,
        text=checkpoint.text.recipe,
        source=checkpoint.source,
        licence=order.licence,
        languages=order.languages or checkpoint.languages,
        golden_cosine=bound,
        logit_scale=checkpoint.logit_scale,
        logit_bias=checkpoint.logit_bias,
        files=published_files(folder),
    )
    write_manifest(manifest, folder)
