"""From a reranker's checkpoint to an installed bundle: graphs, golden pairs, certificate; or nothing at all."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from indexer.models.bundle import published_files, put_in_place
from indexer.models.manifest import CERTIFICATE_FILE, EXTERNAL_SUFFIX, MANIFEST_FILE, TOKENIZER_FILE
from indexer.models.rerank.manifest import MATCH_FILE, VISION_FILE, FeatureShapes, RerankManifest
from onnx_export import graphs
from onnx_export.export import Order
from onnx_export.rerank.checkpoint import RerankCheckpoint
from onnx_export.rerank.golden import write_golden_pairs
from onnx_export.rerank.parity import RerankCertificate, bounds_of, certify

_TEXTS, _PAIRS, _TOKENS = 2, 3, 7
"""Of the inputs that are traced; no two alike, so that the tracer takes none for another."""


def export(
    load: Callable[[], RerankCheckpoint], order: Order, out: Path, say: Callable[[str], None]
) -> RerankCertificate:
    """Make the bundle and move it to `out`, replacing what is there; `say` is told what happens.

    The checkpoint is read in here, and gone before the bundle's own graphs open: both together are more than many a
    machine holds. The fp32 graphs are certified first whatever precision is ordered.

    Raises:
        ParityFailed: the bundle does not agree with its reference; `out` is left as it was.
    """
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        full = building / "fp32"
        full.mkdir(parents=True)
        manifest, library = _build_full(load, order, full, say)
        say("Comparing the fp32 bundle with them")
        certificate = certify(full, library, "fp32", bounds_of(full, "fp32"))
        finished = full
        if order.precision != "fp32":
            finished = building / order.precision
            manifest = convert(manifest, order, full, finished, say)
            say(f"Comparing the {order.precision} bundle with the golden scores")
            bounds = bounds_of(finished, order.precision, order.bound)
            certificate = certify(finished, library, order.precision, bounds)
        text = json.dumps(certificate.as_dict(), indent=2, ensure_ascii=False)
        (finished / CERTIFICATE_FILE).write_text(text + "\n", encoding="utf-8")
        _write_manifest(manifest, finished)
        put_in_place(finished, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return certificate


def _build_full(
    load: Callable[[], RerankCheckpoint], order: Order, folder: Path, say: Callable[[str], None]
) -> tuple[RerankManifest, str]:
    """Everything but the certificate, in fp32; the manifest, and the library that the golden scores are of."""
    checkpoint = load()
    say(f"Asking {checkpoint.library} for the golden scores")
    write_golden_pairs(checkpoint, folder)
    checkpoint.tokenizer.save(str(folder / TOKENIZER_FILE))
    shapes = _trace_pictures(checkpoint, folder, say)
    say("Tracing the matching")
    ids = torch.full((_TEXTS, _TOKENS), checkpoint.text.pad_id, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    free, outputs = [2, 2], ["matching"]
    if shapes is not None:
        inputs |= {
            "rows": torch.tensor([0, 1, 0]),
            "features": torch.rand(_PAIRS, *shapes.features),
            "queries": torch.rand(_PAIRS, *shapes.queries),
        }
        free, outputs = [2, 2, 1, 1, 1], ["matching", "contrastive"]
    elif checkpoint.token_types:
        inputs["token_type_ids"] = torch.zeros_like(ids)
        free.append(2)
    graphs.trace(checkpoint.match, inputs, outputs, free=free, path=folder / MATCH_FILE)
    manifest = RerankManifest(
        task="rerank",
        name=order.name,
        family=checkpoint.family,
        description=order.description,
        precision={"vision": "fp32", "match": "fp32"} if shapes else {"match": "fp32"},
        pixels=checkpoint.pictures.recipe if checkpoint.pictures else None,
        shapes=shapes,
        text=checkpoint.text,
        token_types=checkpoint.token_types,
        source=checkpoint.source,
        licence=order.licence,
        golden_error=bounds_of(folder, "fp32").kept,
        files={},
    )
    return _write_manifest(manifest, folder), checkpoint.library


def _trace_pictures(checkpoint: RerankCheckpoint, folder: Path, say: Callable[[str], None]) -> FeatureShapes | None:
    side = checkpoint.pictures
    if side is None:
        return None
    say("Tracing the pictures' graph")
    pixels = torch.rand(2, 3, side.recipe.size, side.recipe.size)
    graphs.trace(side.module, {"pixels": pixels}, ["features", "queries"], free=1, path=folder / VISION_FILE)
    with torch.inference_mode():
        features, queries = side.module(pixels[:1])
    return FeatureShapes(features=tuple(features.shape[1:]), queries=tuple(queries.shape[1:]))


def convert(
    manifest: RerankManifest, order: Order, full: Path, folder: Path, say: Callable[[str], None]
) -> RerankManifest:
    """Write the fp32 bundle in `full` to `folder` in the precision that is ordered, without certificate."""
    gc.collect()  # sessions lie in cycles, and are gigabytes
    shutil.copytree(full, folder, ignore=shutil.ignore_patterns("*.onnx", f"*.onnx{EXTERNAL_SUFFIX}", CERTIFICATE_FILE))
    for graph in [name for name in (VISION_FILE, MATCH_FILE) if (full / name).exists()]:
        say(f"Converting {graph} to {order.precision}")
        if order.precision == "int8":
            # Not dynamic quantization, as the encoders have: a text is scored with fifty pictures in batches of any
            # size, and scores that hung on their batch would put equal pictures into different places.
            graphs.weights_in_int8(full / graph, folder / graph)
        else:
            graphs.convert(full / graph, folder / graph, order.precision)
    precision = dict.fromkeys(manifest.precision, order.precision)
    lower = {"precision": precision, "golden_error": bounds_of(folder, order.precision, order.bound).kept}
    return _write_manifest(manifest.model_copy(update=lower), folder)


def _write_manifest(manifest: RerankManifest, folder: Path) -> RerankManifest:
    """With the hashes of what is in the folder."""
    manifest = manifest.model_copy(update={"files": published_files(folder)})
    text = manifest.model_dump_json(indent=2, exclude_none=True)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return manifest
