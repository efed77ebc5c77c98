"""A bundle small enough to build in a test, and true enough to search with: it knows colours and their names.

The image tower averages the picture's colour; the text tower averages the colours that a text names. So a red picture
and "a red car" are near each other, and nothing else is known.
"""

import io
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from indexer.models.bundle import load_bundle, published_files
from indexer.models.encoder import Encoder
from indexer.models.manifest import (
    Calibration,
    Manifest,
    Padding,
    PixelRecipe,
    Resize,
    TextRecipe,
    write_manifest,
)

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (255, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}
DIMENSION = 8
SIZE = 16
CONTEXT = 12
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def picture(colour: str, size: tuple[int, int] = (60, 40), mark: int = 0, form: str = "PNG") -> bytes:
    """A picture of one colour as a file's bytes; `mark` makes its bytes its own and leaves its colour."""
    image = Image.new("RGB", size, COLOURS[colour])
    image.putpixel((mark % size[0], mark // size[0] % size[1]), (mark % 251, 128, 128))
    file = io.BytesIO()
    image.save(file, form, quality=95)
    return file.getvalue()


def make_bundle(folder: Path, name: str = "colours", *, twist: float = 0.0) -> Path:
    """Write the bundle into `folder / name`; give its path. Another `twist` is another vector space."""
    home = folder / name
    (home / "golden").mkdir(parents=True)
    # Three colour dimensions, and one that is never empty: black and unknown words have a length too.
    directions = np.zeros((3, DIMENSION), np.float32)
    directions[:, :3] = np.eye(3) * (1 + twist)
    always = np.zeros(DIMENSION, np.float32)
    always[3] = 0.2
    _save_image_tower(home / "image.onnx", directions, always)
    words = [*_SPECIAL, *COLOURS, "a", "photo", "of"]
    table = np.tile(always, (len(words), 1))
    for index, (_, colour) in enumerate(COLOURS.items(), start=len(_SPECIAL)):
        table[index] += 4 * (np.array(colour, np.float32) / 255) @ directions
    _save_text_tower(home / "text.onnx", table)
    _tokenizer(words).save(str(home / "tokenizer.json"))
    (home / "golden" / "wide.png").write_bytes(picture("blue", (50, 20)))
    (home / "golden.json").write_text(json.dumps({"images": ["wide.png"], "texts": ["a red photo", "of green"]}))
    np.savez(home / "golden.npz", image=np.zeros((1, DIMENSION), "f4"), text=np.zeros((2, DIMENSION), "f4"))
    _list_files(home, name)
    _write_golden_vectors(home, name)
    return home


def _write_golden_vectors(home: Path, name: str) -> None:
    encoder = Encoder(load_bundle(home))
    listing = json.loads((home / "golden.json").read_text())
    images = [Image.open(home / "golden" / each).convert("RGB") for each in listing["images"]]
    vectors = {"image": encoder.encode_images(images), "text": encoder.encode_texts(listing["texts"]).vectors}
    np.savez(home / "golden.npz", **vectors)  # type: ignore[arg-type]
    _list_files(home, name)


def _list_files(home: Path, name: str) -> None:
    manifest = Manifest(
        name=name,
        family="colours",
        description="Knows colours by name.",
        dimension=DIMENSION,
        precision={"image": "fp32", "text": "fp32"},
        pixels=PixelRecipe(size=SIZE, resize=Resize.SHORTEST_CROP, mean=(0, 0, 0), std=(1, 1, 1)),
        text=TextRecipe(context_length=CONTEXT, padding=Padding.LONGEST, pad_id=0),
        source="made by the test",
        licence="Apache-2.0",
        calibration={"text_to_image": Calibration(scale=10, bias=-8, fitted_on="nothing")},
        files=published_files(home),
    )
    write_manifest(manifest, home)


def _tokenizer(words: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _save_image_tower(path: Path, directions: np.ndarray, always: np.ndarray) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "sides"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "directions"], ["turned"]),
        helper.make_node("Add", ["turned", "always"], ["features"]),
    ]
    constants = {"sides": np.array([2, 3], np.int64), "directions": directions, "always": always}
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])]
    _save(path, nodes, inputs, constants)


def _save_text_tower(path: Path, table: np.ndarray) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["kept"]),
        helper.make_node("Mul", ["words", "kept"], ["read"]),
        helper.make_node("ReduceSum", ["read", "first"], ["features"], keepdims=0),
    ]
    constants = {"table": table.astype("f4"), "last": np.array([-1], np.int64), "first": np.array([1], np.int64)}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    _save(path, nodes, inputs, constants)


def _save(path: Path, nodes: list, inputs: list, constants: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    graph = helper.make_graph(
        nodes,
        "tower",
        inputs,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", DIMENSION])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
