"""Pictures of two things side by side, which a bag of words or colours cannot tell from their mirror images, and a
matching model that is trained on some of them and asked about others.

What a picture shows is colour x shape x position; `COMPOSITIONS` are all, and some are held out: the model meets none
of these while it is trained. It is one linear detector for each word in each place (ridge regression in closed form
over a grid of the picture: three colours and whether there is anything), and a text's score with a picture is the sum
of its words' detectors: so it has to put what it learned of parts together.
"""

import io
import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from indexer.models.bundle import RERANK
from indexer.models.manifest import Padding, PixelRecipe, Resize, TextRecipe
from indexer.models.preprocess import prepare
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.manifest import MATCH_FILE, VISION_FILE, FeatureShapes, RerankManifest
from indexer.models.rerank.reranker import Reranker
from tests.bundles import COLOURS
from tests.rerankers import _publish, _save

SIZE, GRID = 32, 16
CELLS, WIDTH = GRID * GRID, 4
SHAPES = ("circle", "square", "triangle")
_COLOURS = ("red", "green", "blue", "yellow")
Thing = tuple[str, str]
Composition = tuple[Thing, Thing]
COMPOSITIONS: list[Composition] = [
    (left, right)
    for left, right in itertools.product(itertools.product(_COLOURS, SHAPES), repeat=2)
    if left[0] != right[0]
]
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = [*_SPECIAL, *_COLOURS, *SHAPES, "and"]
_SLOTS = {1: _COLOURS, 2: SHAPES, 4: _COLOURS, 5: SHAPES}
"""Which words matter at which place of "[CLS] red circle and blue square [SEP]"."""
_LENGTH = 8
Floats = NDArray[np.float32]


def held_out(share: float = 1 / 3) -> list[Composition]:
    """Those that are not trained on."""
    order = np.random.default_rng(7).permutation(len(COMPOSITIONS))
    return [COMPOSITIONS[at] for at in order[: int(share * len(COMPOSITIONS))]]


def words(composition: Composition) -> str:
    """Left to right."""
    return " and ".join(" ".join(thing) for thing in composition)


def drawn(composition: Composition, chance: np.random.Generator) -> Image.Image:
    """A picture of it; sizes and places are by chance."""
    image = Image.new("RGB", (96, 96))
    draw = ImageDraw.Draw(image)
    for side, (colour, shape) in enumerate(composition):
        radius = int(chance.integers(15, 20))
        x, y = 24 + 48 * side + int(chance.integers(-4, 5)), 48 + int(chance.integers(-5, 6))
        fill = COLOURS[colour]
        if shape == "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        elif shape == "square":
            draw.rectangle((x - radius + 2, y - radius + 2, x + radius - 2, y + radius - 2), fill=fill)
        else:
            draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    return image


def as_file(image: Image.Image) -> bytes:
    """A picture as a PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def make_matcher(folder: Path, name: str = "blip2-itm", *, noise: bool = False) -> Path:
    """Train the model on what is not held out, and write it as a rerank bundle; `noise`: its detectors are chance."""
    home = folder / name
    (home / "golden").mkdir(parents=True)
    table = _noise() if noise else _trained()
    _save_vision(home / VISION_FILE)
    _save_match(home / MATCH_FILE, table)
    _tokenizer().save(str(home / "tokenizer.json"))
    picture = drawn(COMPOSITIONS[0], np.random.default_rng(0))
    (home / "golden" / "one.png").write_bytes(as_file(picture))
    text = words(COMPOSITIONS[0])
    (home / "golden.json").write_text(json.dumps({"images": ["one.png"], "texts": [text]}), encoding="utf-8")
    manifest = RerankManifest(
        task=RERANK,
        name=name,
        family="blip2-itm",
        description="Knows which colours and shapes are where.",
        precision={"vision": "fp32", "match": "fp32"},
        pixels=_RECIPE,
        shapes=FeatureShapes(features=(CELLS, WIDTH), queries=(1, WIDTH)),
        text=TextRecipe(context_length=_LENGTH, padding=Padding.LONGEST, pad_id=0),
        source="made by the test",
        licence="Apache-2.0",
        files={},
    )
    _publish(home, manifest, {"matching": np.zeros((1, 1), "f4"), "contrastive": np.zeros((1, 1), "f4")})
    reranker = Reranker(load_rerank_bundle(home))
    scores = reranker.scores(text, reranker.features([picture]))
    assert scores.contrastive is not None
    _publish(home, manifest, {"matching": scores.matching[:, None], "contrastive": scores.contrastive[:, None]})
    return home


_RECIPE = PixelRecipe(size=SIZE, resize=Resize.SQUASH, mean=(0, 0, 0), std=(1, 1, 1))


def _grid(image: Image.Image) -> Floats:
    """As the vision graph sees it: (cells * width,)."""
    pixels = prepare(image, _RECIPE)
    pooled = pixels.reshape(3, GRID, SIZE // GRID, GRID, SIZE // GRID).mean(axis=(2, 4))
    cells = np.concatenate([pooled, pooled.max(axis=0, keepdims=True)]).reshape(WIDTH, CELLS)
    return np.ascontiguousarray(cells.T).reshape(-1)


def _trained(copies: int = 4, ridge: float = 10.0) -> Floats:
    """A row for each place of a text and each word: its detector, and a constant behind it."""
    chance = np.random.default_rng(1)
    hidden = set(held_out())
    shown = [each for each in COMPOSITIONS if each not in hidden for _ in range(copies)]
    grids = np.stack([_grid(drawn(each, chance)) for each in shown])
    design = np.concatenate([grids, np.ones((len(grids), 1), np.float32)], axis=1)
    said = [_ids(each) for each in shown]
    slots = [(place, _WORDS.index(word)) for place, some in _SLOTS.items() for word in some]
    right = np.array([[1.0 if ids[place] == word else -1.0 for place, word in slots] for ids in said])
    weights = design.T @ np.linalg.solve(design @ design.T + ridge * np.eye(len(design)), right)
    table = np.zeros((_LENGTH, len(_WORDS), CELLS * WIDTH + 1), np.float32)
    for (place, word), column in zip(slots, weights.T, strict=True):
        table[place, word] = column
    return table.reshape(_LENGTH * len(_WORDS), -1)


def _noise() -> Floats:
    shape = (_LENGTH * len(_WORDS), CELLS * WIDTH + 1)
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def _ids(composition: Composition) -> list[int]:
    return [_WORDS.index("[CLS]"), *(_WORDS.index(word) for word in words(composition).split())]


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _save_vision(path: Path) -> None:
    step = SIZE // GRID
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[step, step], strides=[step, step]),
        helper.make_node("ReduceMax", ["pooled", "channels"], ["there"], keepdims=1),
        helper.make_node("Concat", ["pooled", "there"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "flat"], ["by_width"]),
        helper.make_node("Transpose", ["by_width"], ["features"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["features", "channels"], ["mean"], keepdims=1),
        helper.make_node("LpNormalization", ["mean"], ["queries"], axis=-1, p=2),
    ]
    constants = {"channels": np.array([1], np.int64), "flat": np.array([0, WIDTH, CELLS], np.int64)}
    outputs: dict[str, list[int | str]] = {"features": ["n", CELLS, WIDTH], "queries": ["n", 1, WIDTH]}
    _save(path, nodes, {"pixels": (TensorProto.FLOAT, ["n", 3, SIZE, SIZE])}, outputs, constants)


def _save_match(path: Path, table: Floats) -> None:
    """The sum of the words' detectors, by where each word stands, over what is in the picture."""
    nodes = [
        helper.make_node("Add", ["input_ids", "offsets_here"], ["where"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["offsets", "zero", "length"], ["offsets_here"]),
        helper.make_node("Gather", ["table", "where"], ["detectors"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["kept"]),
        helper.make_node("Mul", ["detectors", "kept"], ["read"]),
        helper.make_node("ReduceSum", ["read", "one"], ["texts"], keepdims=0),
        helper.make_node("Gather", ["texts", "rows"], ["text"], axis=0),
        helper.make_node("Reshape", ["features", "flat"], ["cells"]),
        helper.make_node("Pad", ["cells", "pads", "always"], ["seen"]),
        helper.make_node("Mul", ["text", "seen"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "last"], ["matching"], keepdims=0),
        helper.make_node("Sub", ["matching", "matching"], ["contrastive_of_features"]),
        helper.make_node("ReduceSum", ["queries", "both"], ["touched"], keepdims=0),
        helper.make_node("Mul", ["touched", "nothing"], ["untouched"]),
        helper.make_node("Add", ["contrastive_of_features", "untouched"], ["contrastive"]),
    ]
    nodes = [nodes[1], nodes[2], nodes[0], *nodes[3:]]
    constants = {
        "table": table,
        "offsets": np.arange(_LENGTH, dtype=np.int64) * len(_WORDS),
        "zero": np.array([0], np.int64),
        "last": np.array([-1], np.int64),
        "one": np.array([1], np.int64),
        "both": np.array([1, 2], np.int64),
        "flat": np.array([0, CELLS * WIDTH], np.int64),
        "pads": np.array([0, 0, 0, 1], np.int64),
        "always": np.array(1, np.float32),
        "nothing": np.array(0, np.float32),
    }
    inputs: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (TensorProto.INT64, ["t", "length"]),
        "attention_mask": (TensorProto.INT64, ["t", "length"]),
        "rows": (TensorProto.INT64, ["n"]),
        "features": (TensorProto.FLOAT, ["n", CELLS, WIDTH]),
        "queries": (TensorProto.FLOAT, ["n", 1, WIDTH]),
    }
    _save(path, nodes, inputs, {"matching": ["n"], "contrastive": ["n"]}, constants)
