"""Rerank bundles small enough to build in a test, and true enough to rerank with.

That of pictures knows which colour is where: the score of "red left" is high for a picture whose left half is red,
which an encoder that averages colours cannot tell from one whose right half is. That of texts counts the words that
query and text have in common.
"""

import io
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from indexer.items import Kind, Location, Record, now, sha256_hex
from indexer.models.bundle import RERANK, published_files
from indexer.models.manifest import Padding, PixelRecipe, Precision, Resize, TextRecipe, write_manifest
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.manifest import MATCH_FILE, VISION_FILE, FeatureShapes, RerankManifest
from indexer.models.rerank.reranker import Reranker, TextReranker
from indexer.store.points import Stored
from tests.bundles import COLOURS

SIZE = 16
PLACES = ("left", "right", "top", "bottom")
TOKENS = 4
"""Of a picture: one for each of `PLACES`."""
WIDTH = 4
"""Of a token: red, green, blue, and what is always 1."""
QUERIES, DEPTH = 2, 4
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = [*_SPECIAL, *PLACES, *COLOURS, "a", "and", "photo", "of", "cat", "dog", "bird", "car"]


def halves(left: str, right: str, mark: int = 0) -> bytes:
    """A picture of two colours side by side as a file's bytes; `mark` makes its bytes its own."""
    image = Image.new("RGB", (64, 64), COLOURS[left])
    image.paste(COLOURS[right], (32, 0, 64, 64))
    image.putpixel((mark % 64, 63), (mark % 251, 128, 128))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def item(sha256: str, source: str = "", text: str | None = None) -> Stored:
    """A picture at a source, or a text, as an index would give it."""
    kind = Kind.IMAGE if text is None else Kind.TEXT
    record = Record(
        kind=kind, sha256=sha256, locations=[Location(source=source)], bytes=1, media_type="image/png", text=text,
        added_at=now(),
    )  # fmt: skip
    return Stored(sha256, record, {"note": "a caller's own"})


def twelve_pictures(folder: Path) -> list[Stored]:
    """Pictures of two of three colours each, `0.png` to `11.png`, and what an index would give of them."""
    colours = ("red", "green", "blue")
    items = []
    for number in range(12):
        content = halves(colours[number % 3], colours[number // 3 % 3], mark=number)
        path = folder / f"{number}.png"
        path.write_bytes(content)
        items.append(item(sha256_hex(content), str(path)))
    return items


def make_reranker(
    folder: Path, name: str = "blip2-itm", *, context: int = 12, precision: Precision = "fp32", weight: float = 1.0
) -> Path:
    """Write a rerank bundle of pictures into `folder / name`; give its path. It is the default reranker's name."""
    home = folder / name
    (home / "golden").mkdir(parents=True)
    _save_vision(home / VISION_FILE)
    _save_match(home / MATCH_FILE)
    _tokenizer().save(str(home / "tokenizer.json"))
    (home / "golden" / "sides.png").write_bytes(halves("red", "blue"))
    (home / "golden" / "other.png").write_bytes(halves("green", "white"))
    _write(home / "golden.json", {"images": ["sides.png", "other.png"], "texts": ["red left", "a photo of blue right"]})
    manifest = RerankManifest(
        task=RERANK,
        name=name,
        family="blip2-itm",
        description="Knows where colours are.",
        precision={"vision": precision, "match": precision},
        pixels=PixelRecipe(size=SIZE, resize=Resize.SQUASH, mean=(0, 0, 0), std=(1, 1, 1)),
        shapes=FeatureShapes(features=(TOKENS, WIDTH), queries=(QUERIES, DEPTH)),
        text=TextRecipe(context_length=context, padding=Padding.LONGEST, pad_id=0),
        contrastive_weight=weight,
        source="made by the test",
        licence="Apache-2.0",
        files={},
    )
    _publish(home, manifest, {"matching": np.zeros((2, 2), "f4"), "contrastive": np.zeros((2, 2), "f4")})
    reranker = Reranker(load_rerank_bundle(home))
    listing = json.loads((home / "golden.json").read_text())
    features = reranker.features([Image.open(home / "golden" / each).convert("RGB") for each in listing["images"]])
    scores = [reranker.scores(text, features) for text in listing["texts"]]
    matching = np.stack([each.matching for each in scores], axis=1)
    contrastive = np.stack([each.contrastive for each in scores if each.contrastive is not None], axis=1)
    _publish(home, manifest, {"matching": matching, "contrastive": contrastive})
    return home


def make_text_reranker(
    folder: Path, name: str = "cross-encoder", *, context: int = 16, token_types: bool = True
) -> Path:
    """Write a cross-encoder into `folder / name`; give its path. It is the default text reranker's name.

    Its score is the number of the query's words that the text has, less a tenth for each of the text's words.
    """
    home = folder / name
    home.mkdir(parents=True)
    _save_cross(home / MATCH_FILE, token_types=token_types)
    _tokenizer().save(str(home / "tokenizer.json"))
    _write(home / "golden.json", {"passages": ["a cat", "a dog and a bird"], "texts": ["cat", "a bird"]})
    manifest = RerankManifest(
        task=RERANK,
        name=name,
        family="cross-encoder",
        description="Counts common words.",
        precision={"match": "fp32"},
        text=TextRecipe(context_length=context, padding=Padding.LONGEST, pad_id=0),
        token_types=token_types,
        source="made by the test",
        licence="Apache-2.0",
        files={},
    )
    _publish(home, manifest, {"matching": np.zeros((2, 2), "f4")})
    reranker = TextReranker(load_rerank_bundle(home))
    listing = json.loads((home / "golden.json").read_text())
    scores = [reranker.scores(text, listing["passages"]).matching for text in listing["texts"]]
    _publish(home, manifest, {"matching": np.stack(scores, axis=1)})
    return home


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _publish(home: Path, manifest: RerankManifest, golden: dict[str, np.ndarray]) -> None:
    np.savez(home / "golden.npz", **golden)  # type: ignore[arg-type]
    write_manifest(manifest.model_copy(update={"files": published_files(home)}), home)  # type: ignore[arg-type]


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _save_vision(path: Path) -> None:
    """A token for each place: the mean colour there, and 1. Queries: the left's and the right's, of unit length."""
    regions = np.zeros((TOKENS, SIZE, SIZE), np.float32)
    middle = SIZE // 2
    regions[0, :, :middle], regions[1, :, middle:], regions[2, :middle], regions[3, middle:] = (1,) * 4
    regions /= regions.sum(axis=(1, 2), keepdims=True)
    nodes = [
        helper.make_node("Reshape", ["pixels", "flat"], ["points"]),  # (n, 3, size * size)
        helper.make_node("MatMul", ["points", "regions"], ["by_colour"]),  # (n, 3, places)
        helper.make_node("Transpose", ["by_colour"], ["by_place"], perm=[0, 2, 1]),
        helper.make_node("Pad", ["by_place", "pads", "one"], ["features"]),
        helper.make_node("Slice", ["features", "from", "to", "axis"], ["sides"]),
        helper.make_node("LpNormalization", ["sides"], ["queries"], axis=-1, p=2),
    ]
    constants = {
        "flat": np.array([0, 3, SIZE * SIZE], np.int64),
        "regions": regions.reshape(TOKENS, -1).T,
        "pads": np.array([0, 0, 0, 0, 0, 1], np.int64),
        "one": np.array(1, np.float32),
        "from": np.array([0], np.int64),
        "to": np.array([QUERIES], np.int64),
        "axis": np.array([1], np.int64),
    }
    outputs = {"features": ["n", TOKENS, WIDTH], "queries": ["n", QUERIES, DEPTH]}
    _save(path, nodes, {"pixels": (TensorProto.FLOAT, ["n", 3, SIZE, SIZE])}, outputs, constants)


def _save_match(path: Path) -> None:
    """matching: colours of the text (-1..1 a channel) times the colours (-1..1) at the places it names, summed.

    A text without a place looks at all of them, a quarter each. contrastive: the text's colour times the picture's
    nearest side.
    """
    colours = np.zeros((len(_WORDS), WIDTH), np.float32)
    places = np.zeros((len(_WORDS), TOKENS), np.float32)
    for word, colour in COLOURS.items():
        colours[_WORDS.index(word), :3] = np.array(colour, np.float32) / 127.5 - 1
    colours[0, 0], places[0, 0] = 1, 1  # so that padding shows where it is read
    for at, word in enumerate(PLACES):
        places[_WORDS.index(word), at] = 1
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["kept"]),
        *_read("colours", "colour"),
        *_read("places", "place"),
        # Without a place: a quarter of each.
        helper.make_node("ReduceSum", ["place", "last"], ["named"], keepdims=1),
        helper.make_node("Less", ["named", "half"], ["nowhere"]),
        helper.make_node("Where", ["nowhere", "quarter", "place"], ["looked_at"]),
        helper.make_node("Gather", ["looked_at", "rows"], ["where"], axis=0),  # (n, places)
        helper.make_node("Gather", ["colour", "rows"], ["what"], axis=0),  # (n, width)
        helper.make_node("Mul", ["features", "two"], ["doubled"]),
        helper.make_node("Sub", ["doubled", "one"], ["signed"]),
        helper.make_node("Unsqueeze", ["what", "last"], ["column"]),
        helper.make_node("MatMul", ["signed", "column"], ["fits"]),  # (n, places, 1)
        helper.make_node("Squeeze", ["fits", "last"], ["fit"]),
        helper.make_node("Mul", ["fit", "where"], ["there"]),
        helper.make_node("ReduceSum", ["there", "last"], ["matching"], keepdims=0),
        helper.make_node("LpNormalization", ["what"], ["direction"], axis=-1, p=2),
        helper.make_node("Unsqueeze", ["direction", "last"], ["ray"]),
        helper.make_node("MatMul", ["queries", "ray"], ["cosines"]),
        helper.make_node("Squeeze", ["cosines", "last"], ["cosine"]),
        helper.make_node("ReduceMax", ["cosine", "last"], ["contrastive"], keepdims=0),
    ]
    constants = {
        "colours": colours,
        "places": places,
        "last": np.array([-1], np.int64),
        "tokens_axis": np.array([1], np.int64),
        "half": np.array(0.5, np.float32),
        "quarter": np.full(TOKENS, 0.25, np.float32),
        "one": np.array(1, np.float32),
        "two": np.array(2, np.float32),
    }
    inputs = {
        "input_ids": (TensorProto.INT64, ["t", "length"]),
        "attention_mask": (TensorProto.INT64, ["t", "length"]),
        "rows": (TensorProto.INT64, ["n"]),
        "features": (TensorProto.FLOAT, ["n", TOKENS, WIDTH]),
        "queries": (TensorProto.FLOAT, ["n", QUERIES, DEPTH]),
    }
    _save(path, nodes, inputs, {"matching": ["n"], "contrastive": ["n"]}, constants)


def _read(table: str, into: str) -> list[onnx.NodeProto]:
    """The sum of a table's rows over the words that are no padding."""
    return [
        helper.make_node("Gather", [table, "input_ids"], [f"{into}_words"], axis=0),
        helper.make_node("Mul", [f"{into}_words", "kept"], [f"{into}_read"]),
        helper.make_node("ReduceSum", [f"{into}_read", "tokens_axis"], [into], keepdims=0),
    ]


def _save_cross(path: Path, *, token_types: bool) -> None:
    """Words as one-hot rows; which are the text's, token types say, or the first [SEP] where there are none."""
    one_hot = np.eye(len(_WORDS), dtype=np.float32)
    one_hot[: len(_SPECIAL)] = 0
    one_hot[0] = one_hot[_WORDS.index("bird")]  # so that padding shows where it is read
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Equal", ["input_ids", "sep"], ["ends"]),
        helper.make_node("Cast", ["ends"], ["end"], to=TensorProto.FLOAT),
        helper.make_node("CumSum", ["end", "along"], ["behind"]),
        helper.make_node("Min", ["behind", "one"], ["second_by_end"]),
        helper.make_node("Cast", ["token_type_ids"], ["second_by_type"], to=TensorProto.FLOAT)
        if token_types
        else helper.make_node("Identity", ["second_by_end"], ["second_by_type"]),
        helper.make_node("Mul", ["second_by_type", "mask"], ["second"]),
        helper.make_node("Sub", ["mask", "second"], ["first"]),
        helper.make_node("Gather", ["one_hot", "input_ids"], ["words"], axis=0),
        helper.make_node("Unsqueeze", ["first", "tokens_axis"], ["first_row"]),
        helper.make_node("Unsqueeze", ["second", "tokens_axis"], ["second_row"]),
        helper.make_node("MatMul", ["first_row", "words"], ["query"]),  # (n, 1, words)
        helper.make_node("MatMul", ["second_row", "words"], ["text"]),
        helper.make_node("Min", ["query", "text"], ["common"]),
        helper.make_node("ReduceSum", ["common", "axes"], ["shared"], keepdims=0),
        helper.make_node("ReduceSum", ["text", "axes"], ["length_of_text"], keepdims=0),
        helper.make_node("Mul", ["length_of_text", "tenth"], ["penalty"]),
        helper.make_node("Sub", ["shared", "penalty"], ["matching"]),
    ]
    constants = {
        "one_hot": one_hot,
        "sep": np.array(_SPECIAL.index("[SEP]"), np.int64),
        "along": np.array(1, np.int64),
        "tokens_axis": np.array([1], np.int64),
        "axes": np.array([1, 2], np.int64),
        "one": np.array(1, np.float32),
        "tenth": np.array(0.1, np.float32),
    }
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    inputs = {name: (TensorProto.INT64, ["n", "length"]) for name in names}
    _save(path, nodes, inputs, {"matching": ["n"]}, constants)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, list[int | str]],
    constants: dict[str, np.ndarray],
) -> None:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
