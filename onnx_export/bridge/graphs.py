"""The two ONNX graphs of `bridge`: everything between prepared inputs and one vector is inside them.

So the runtime knows nothing of class names, centring or heads: it sees the same interface as any CLIP.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

OPSET = 18
IR_VERSION = 10  # the oldest that MiniLM's own graph needs: older runtimes read it too

# What follows MiniLM's token vectors.
_TEXT_TAIL = """
<ir_version: 10, opset_import: ["" : 18]>
tail (float[batch, length, 384] tokens, int64[batch, length] attention_mask) => (float[batch, dimension] features)
{
    mask = Cast <to = 1> (attention_mask)
    weights = Unsqueeze (mask, last)
    kept = Mul (tokens, weights)
    total = ReduceSum <keepdims = 0> (kept, first)
    count = ReduceSum <keepdims = 1> (mask, first)
    pooled = Div (total, count)
    sentence = LpNormalization <axis = -1, p = 2> (pooled)
    centred = Sub (sentence, text_centre)
    named = LpNormalization <axis = -1, p = 2> (centred)
    shifted = Gemm (named, head_weight, head_bias)
    features = LpNormalization <axis = -1, p = 2> (shifted)
}
"""


def export_image_graph(tower: torch.nn.Module, size: int, path: Path) -> None:
    """Write `tower` (pixels float32 (batch, 3, size, size) to features (batch, D)) as an ONNX graph of any batch."""
    program = torch.onnx.export(
        tower.eval(),
        (torch.zeros(2, 3, size, size),),
        input_names=["pixels"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter gave no program")
    model = program.model_proto
    model.ir_version = IR_VERSION
    del model.graph.value_info[:]
    onnx.save(model, path)


def join_text_graph(
    minilm: Path,
    *,
    centre: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    path: Path,
) -> None:
    """Write MiniLM with pooling, centring and the linear head behind it.

    Inputs `input_ids` and `attention_mask`, int64 (batch, length), both dynamic; output `features` float32
    (batch, D). `weight` is (384, D), the text head with the identity added; `bias` is (D,).
    """
    model = onnx.load(minilm)
    _look_up_before_scaling(model.graph)
    _drop_token_types(model.graph)
    tail = parser.parse_model(_TEXT_TAIL).graph
    constants = {
        "last": np.array([-1], np.int64),
        "first": np.array([1], np.int64),
        "text_centre": centre,
        "head_weight": weight,
        "head_bias": bias,
    }
    hidden = model.graph.output[0].name
    for node in tail.node:
        node.input[:] = [hidden if name == "tokens" else name for name in node.input]
    model.graph.node.extend(tail.node)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    dimension = len(bias)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", dimension]))
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _look_up_before_scaling(graph: onnx.GraphProto) -> None:
    """Gather the int8 rows of an embedding table first, then scale: the table is never expanded to 47 MB of floats."""
    table = "inner.embeddings.word_embeddings.weight"
    producers = {node.output[0]: node for node in graph.node}
    lookup = next(node for node in graph.node if node.op_type == "Gather" and node.input[0] == table)
    scaling = producers[table]
    casting = producers[scaling.input[0]]
    at = list(graph.node).index(lookup)
    replacement = [
        helper.make_node("Gather", [casting.input[0], lookup.input[1]], ["token_rows"], axis=0),
        helper.make_node("Cast", ["token_rows"], ["token_rows_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [scaling.input[1], lookup.input[1]], ["token_scales"], axis=0),
        helper.make_node("Mul", ["token_rows_float", "token_scales"], list(lookup.output)),
    ]
    nodes = [*graph.node[:at], *replacement, *graph.node[at + 1 :]]
    nodes = [node for node in nodes if node not in (scaling, casting)]
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_token_types(graph: onnx.GraphProto) -> None:
    """Feed token types from inside: one sentence is all of type 0, so no caller needs to know of them."""
    graph.input.remove(next(value for value in graph.input if value.name == "token_type_ids"))
    zeros = [
        helper.make_node("Sub", ["input_ids", "input_ids"], ["token_type_ids"]),
    ]
    nodes = [*zeros, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
