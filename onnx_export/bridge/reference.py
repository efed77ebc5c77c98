"""How `bridge` reads its inputs, written down once more beside the runtime.

The builder makes the golden vectors with this, not with the runtime's own code: two independent readings of one recipe
that must agree, or `crosslens models verify` fails.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from onnx_export.pictures import read_rgb

RESIZE_TO = 292
SIZE = 260
MEAN = 127.0
STD = 128.0
CONTEXT_LENGTH = 128

Vectors = NDArray[np.float32]


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as the tower was trained to see it, before scaling: RGB uint8 (260, 260, 3)."""
    image = read_rgb(path)
    width, height = image.size
    short = min(width, height)
    image = image.resize((width * RESIZE_TO // short, height * RESIZE_TO // short), Image.Resampling.BICUBIC)
    left, top = round((image.width - SIZE) / 2), round((image.height - SIZE) / 2)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def scale(pixels: NDArray[np.uint8]) -> Vectors:
    """uint8 (batch, 260, 260, 3) to the tower's input, float32 (batch, 3, 260, 260)."""
    return np.ascontiguousarray(((pixels.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2))


def open_session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    """The graph at `path`, on the CPU, warnings off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def encode_images(graph: Path, paths: Iterable[Path], *, batch: int = 16) -> Vectors:
    """Features of the pictures at `paths`, L2-normalised float32 (n, D)."""
    pixels = np.stack([read_pixels(path) for path in paths])
    session = open_session(graph)
    parts = [session.run(None, {"pixels": scale(pixels[at : at + batch])})[0] for at in range(0, len(pixels), batch)]
    return unit(np.concatenate(parts))


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at `path`, cutting at the context length and padding a batch to its longest."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding()
    return tokenizer


def encode_texts(graph: Path, tokenizer: Tokenizer, texts: Sequence[str], *, batch: int = 64) -> Vectors:
    """Features of `texts`, L2-normalised float32 (n, D)."""
    session = open_session(graph)
    wanted = {value.name for value in session.get_inputs()}
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # like lengths together: less padding
    parts: list[Vectors] = []
    for at in range(0, len(texts), batch):
        encodings = tokenizer.encode_batch([texts[index] for index in order[at : at + batch]])
        fed = {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
            "token_type_ids": np.zeros((len(encodings), len(encodings[0].ids)), np.int64),
        }
        parts.append(session.run(None, {name: value for name, value in fed.items() if name in wanted})[0])
    vectors = np.empty((len(texts), *parts[0].shape[1:]), np.float32)
    vectors[order] = np.concatenate(parts)
    return unit(vectors)


def unit(vectors: Vectors) -> Vectors:
    """Rows of unit length."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)
