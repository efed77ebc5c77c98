"""Both graphs in int8: pictures per channel, calibrated, with weights of seven bits; texts in blocks, as they come.

The calibration pictures are samples of scikit-image and scikit-learn, mirrored too; no other set has any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import UnidentifiedImageError

from onnx_export.bridge.reference import read_pixels, scale
from onnx_export.graphs import weights_in_int8

_PACKAGES = ("scikit-image", "scikit-learn")


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter(
            [{"pixels": scale(pixels[at : at + 4])} for at in range(0, len(pixels), 4)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def calibration_pictures() -> NDArray[np.uint8]:
    """uint8 (n, 260, 260, 3), each picture and its mirror image."""
    paths = [
        Path(str(path.locate()))
        for package in _PACKAGES
        for path in files(package) or ()
        if path.suffix in {".png", ".jpg"} and path.parent.name in {"data", "images"}
    ]
    pixels = []
    for path in sorted(paths):
        try:
            pixels.append(read_pixels(path))
        except (UnidentifiedImageError, OSError):
            continue  # a file that is no picture, or one that this Pillow does not read
    plain = np.stack(pixels)
    return np.concatenate([plain, plain[:, :, ::-1]])


def quantize_texts(source: Path, target: Path) -> None:
    """Write the text graph at `source`, whose weights are int8 and whose products are not, with products in int8.

    ONNX Runtime expands such weights to floats when it opens the graph, and a short text is then a walk through 40 MB
    of them: 3.2 ms on one core with VNNI, 1.3 ms in int8. Scales are of 64 values each, in weights and activations: one
    for a whole batch, as dynamic quantization has it, would let a text's vector depend on what it is embedded with
    (cosines down to .987).
    """
    with TemporaryDirectory() as folder:
        options = SessionOptions()
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC  # folds the expansion alone
        options.optimized_model_filepath = str(Path(folder) / "floats.onnx")
        InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        weights_in_int8(Path(options.optimized_model_filepath), target)


def quantize(source: Path, target: Path) -> None:
    """Write the image graph at `source` in int8 to `target`: convolutions, additions and clips; heads stay in fp32.

    The reduced range (7-bit weights) gives the same answers on processors without VNNI, whose 8-bit products saturate.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Pictures(calibration_pictures()),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "Clip"],
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
