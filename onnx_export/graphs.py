"""Towers as ONNX graphs, in the precision that is asked for.

ONNX Runtime fuses what it can (GELU, layer normalisation) when it opens a graph. Fusing attention ahead of time gained
at most 8 % and wants the retired exporter, so the graph is written as the tracer gives it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import float16

from indexer.models.manifest import EXTERNAL_SUFFIX, OUR_NAMES, Padding, Precision
from onnx_export.checkpoint import ImageSide, TextSide

_OPSET = 20

LARGE = 1_800_000_000
"""Bytes of weights from which they get a file of their own: one file of a graph ends at 2 GiB."""


def export_images(side: ImageSide, path: Path) -> None:
    """Write an image tower's graph, in fp32, with a free batch size."""
    pixels = torch.rand(2, 3, side.recipe.size, side.recipe.size)
    _export(side.module, {OUR_NAMES["image"].input: pixels}, [{0: "batch"}], path)


def export_texts(side: TextSide, path: Path) -> None:
    """Write a text tower's graph, in fp32, with a free batch size, and a free length unless its padding is fixed."""
    free = side.recipe.padding is Padding.LONGEST
    length = min(9, side.recipe.context_length) if free else side.recipe.context_length
    ids = torch.full((2, length), side.recipe.pad_id, dtype=torch.int64)
    tokens = side.tokenizer.encode("a photo of a cat").ids[:length]
    ids[:, : len(tokens)] = torch.tensor(tokens)
    inputs = {OUR_NAMES["text"].input: ids}
    if side.masked:
        inputs["attention_mask"] = torch.ones_like(ids)
    axes = {0: "batch", 1: "length"} if free else {0: "batch"}
    _export(side.module, inputs, [axes] * len(inputs), path)


def convert(source: Path, target: Path, precision: Precision) -> None:
    """Write a graph in another precision; inputs and outputs stay as they are."""
    model = onnx.load(source)
    large = _is_large(source)
    match precision:
        case "fp32":
            raise ValueError("The graph is in fp32 already.")
        case "fp16":
            with quietly():
                model = float16.convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=large)
            _save(model, target, external=large)
        case "int8":
            del model.graph.value_info[:]  # shapes that the tracer noted hold the quantizer up
            with quietly():
                # Seven bits for weights: on processors without VNNI, products of eight saturate and answers differ.
                quantize_dynamic(
                    model,
                    target,
                    op_types_to_quantize=["MatMul", "Gemm"],
                    per_channel=True,
                    reduce_range=True,
                    weight_type=QuantType.QInt8,
                    use_external_data_format=large,
                )
        case _:
            assert_never(precision)


def _is_large(graph: Path) -> bool:
    """Whether its weights are in a file beside it."""
    return graph.with_name(graph.name + EXTERNAL_SUFFIX).exists()


def _save(model: onnx.ModelProto, path: Path, *, external: bool) -> None:
    onnx.save(model, path, save_as_external_data=external, location=path.name + EXTERNAL_SUFFIX)


def _export(module: torch.nn.Module, inputs: dict[str, torch.Tensor], axes: list[dict[int, str]], path: Path) -> None:
    shapes = tuple(dict.fromkeys(each, torch.export.Dim.DYNAMIC) for each in axes)
    with quietly(), torch.inference_mode():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[OUR_NAMES["image"].output],
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    weights = sum(each.numel() * each.element_size() for each in module.parameters())
    program.save(str(path), external_data=weights > LARGE)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the tracer's and the quantizer's chatter; their errors are raised as ever."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
