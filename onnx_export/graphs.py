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

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.transformers import float16

from indexer.models.manifest import EXTERNAL_SUFFIX, OUR_NAMES, Padding, Precision
from onnx_export.checkpoint import ImageSide, TextSide

_OPSET = 20
_BLOCK = 64
_INT8_PRODUCTS = 4
"""ONNX Runtime's `accuracy_level` for activations in int8."""

LARGE = 1_800_000_000
"""Bytes of weights from which they get a file of their own: one file of a graph ends at 2 GiB."""


def export_images(side: ImageSide, path: Path) -> None:
    """Write an image tower's graph, in fp32, with a free batch size."""
    pixels = torch.rand(2, 3, side.recipe.size, side.recipe.size)
    names = OUR_NAMES["image"]
    trace(side.module, {names.input: pixels}, [names.output], free=1, path=path)


def export_texts(side: TextSide, path: Path) -> None:
    """Write a text tower's graph, in fp32, with a free batch size, and a free length unless its padding is fixed."""
    free = side.recipe.padding is Padding.LONGEST
    length = min(9, side.recipe.context_length) if free else side.recipe.context_length
    ids = torch.full((2, length), side.recipe.pad_id, dtype=torch.int64)
    tokens = side.tokenizer.encode("a photo of a cat").ids[:length]
    ids[:, : len(tokens)] = torch.tensor(tokens)
    names = OUR_NAMES["text"]
    inputs = {names.input: ids}
    if side.masked:
        inputs["attention_mask"] = torch.ones_like(ids)
    trace(side.module, inputs, [names.output], free=2 if free else 1, path=path)


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


def weights_in_int8(source: Path, target: Path) -> None:
    """Write a graph with the weights of its matrix products in int8, inputs and outputs as they are.

    Scales are of 64 values each, in weights and in activations, so that what a row gives does not hang on what else is
    in its batch: dynamic quantization has one scale for a whole batch of activations.
    """
    config = DefaultWeightOnlyQuantConfig(block_size=_BLOCK, is_symmetric=True, accuracy_level=_INT8_PRODUCTS, bits=8)
    with quietly():
        quantizer = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
        quantizer.process()
    graph = quantizer.model.model.graph
    once = {each.name: each for each in graph.initializer}  # a weight that two products share comes out twice
    del graph.initializer[:]
    graph.initializer.extend(once.values())
    _save(quantizer.model.model, target, external=_is_large(source))


def trace(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], *, free: int | list[int], path: Path
) -> None:
    """Write a module's graph, in fp32; `free` says how many axes of each input, from the first on, may vary."""
    counts = [free] * len(inputs) if isinstance(free, int) else free
    shapes = tuple(dict.fromkeys(range(count), torch.export.Dim.DYNAMIC) for count in counts)
    with quietly(), torch.inference_mode():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    _transpose_weights(program.model.graph)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces: files of this machine, in a bundle for others, and in its hash
    # Of the graph's own: a part of a model holds all of it.
    weights = sum(each.const_value.nbytes for each in program.model.graph.initializers.values())
    program.save(str(path), external_data=weights > LARGE)
    # The tracer's rewriting rules remember the last graph that they saw, and it all weights of the model.
    program.model.graph.initializers.clear()


def _transpose_weights(graph: ir.Graph) -> None:
    """Transpose weights here, once. The tracer does so but for those that two parts of a module share; these would be
    transposed, and copied, at each use when the graph opens, and be no constants to a quantizer.
    """
    made: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}
    for node in list(graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not weight.is_initializer() or weight.const_value is None:
            continue
        order = tuple(node.attributes["perm"].as_ints())
        if (weight, order) not in made:
            turned = np.ascontiguousarray(weight.const_value.numpy().transpose(order))
            name = f"{weight.name}_{''.join(map(str, order))}"
            tensor, shape = ir.tensor(turned, name=name), ir.Shape(turned.shape)
            made[weight, order] = ir.Value(name=name, const_value=tensor, type=weight.type, shape=shape)
            graph.register_initializer(made[weight, order])
        ir.convenience.replace_all_uses_with(node.outputs[0], made[weight, order])
        graph.remove(node, safe=True)
    for name, weight in list(graph.initializers.items()):
        if not weight.uses() and not weight.is_graph_output():
            del graph.initializers[name]


def _is_large(graph: Path) -> bool:
    """Whether its weights are in a file beside it."""
    return graph.with_name(graph.name + EXTERNAL_SUFFIX).exists()


def _save(model: onnx.ModelProto, path: Path, *, external: bool) -> None:
    onnx.save(model, path, save_as_external_data=external, location=path.name + EXTERNAL_SUFFIX)


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
