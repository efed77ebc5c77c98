"""Build `bridge`: class vectors, heads, graphs, golden vectors, manifest and model card, from a fixed seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.models.bundle import published_files
from indexer.models.manifest import (
    Calibration,
    Manifest,
    Padding,
    PixelRecipe,
    Resize,
    TextRecipe,
    write_manifest,
)
from indexer.models.recall import Recall, image_to_text, text_to_image
from onnx_export.bridge import reference
from onnx_export.bridge.calibrate import fit_calibration
from onnx_export.bridge.card import NOTICE, model_card
from onnx_export.bridge.classes import as_belief, conse, prototypes
from onnx_export.bridge.golden import IMAGES, TEXTS
from onnx_export.bridge.graphs import export_image_graph, join_text_graph
from onnx_export.bridge.head import Head, TrainingData, average, choose_strength, train
from onnx_export.bridge.quantize import quantize, quantize_texts
from onnx_export.bridge.reference import Vectors, unit
from onnx_export.bridge.towers import (
    ImageGraph,
    SentenceEncoder,
    classifier,
    image_tower,
    minilm_graph,
    tokenizer_file,
)
from onnx_export.golden import draw_images, write_golden

SEEDS = (0, 1, 2)
HIDDEN = 256
STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_INPUT_SCALE = 36.0  # about the square root of 1280: brings the features to the length of one ConSE vector
_GOLDEN_COSINE = 0.99
_LICENCE = Path(__file__).resolve().parents[2] / "LICENSE"
"""Apache 2.0: the project's, and both towers'."""


@dataclass(frozen=True)
class Features:
    """`flickr8k_features.npz`: what the frozen towers say of photos and captions."""

    image: Vectors
    image_flip: Vectors
    image_crop: Vectors
    text: Vectors
    text_image: NDArray[np.int32]
    split: NDArray[np.str_]

    @classmethod
    def load(cls, folder: Path) -> Features:
        """The arrays of the file in `folder`, in float32."""
        with np.load(folder / "flickr8k_features.npz", allow_pickle=False) as arrays:
            floats = {name: arrays[name].astype(np.float32) for name in ("image", "image_flip", "image_crop", "text")}
            return cls(**floats, text_image=arrays["text_image"], split=arrays["split"])


@dataclass(frozen=True)
class Space:
    """What both sides of the joint space are measured from, fixed before any head is trained."""

    weights: Vectors
    biases: Vectors
    centred: Vectors
    """Class vectors less their mean, (1000, 384)."""
    classes: Vectors
    """Class vectors as texts, (1000, 384)."""
    centre: Vectors
    """What is subtracted from every text, (384,)."""
    mean: Vectors
    scale: Vectors

    def logits(self, features: Vectors) -> Vectors:
        """The classifier's logits."""
        return np.asarray(features @ self.weights.T + self.biases, dtype=np.float32)

    def inputs(self, features: Vectors) -> Vectors:
        """The image head's inputs: scaled features beside the ConSE vector."""
        named = conse(self.logits(features), self.centred)
        return np.concatenate([(features - self.mean) * self.scale, named], axis=1).astype(np.float32)

    def texts(self, texts: Vectors) -> Vectors:
        """Centred texts."""
        return unit(texts - self.centre)


def build(train_folder: Path, out: Path, *, eval_folder: Path | None, say: Callable[[str], None]) -> Manifest:
    """Build the bundle into `out`, replacing what is there; `say` is told what happens."""
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    building = out.with_name(out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    _write_tokenizer(building)
    say("Embedding the class names")
    tower = image_tower()
    features = Features.load(train_folder)
    space = _space(features, tower, SentenceEncoder(building / "tokenizer.json"))
    data = _training_data(features, space)
    heads = []
    for seed in SEEDS:
        say(f"Training the head, seed {seed}")
        heads.append(train(data, hidden=HIDDEN, seed=seed))
    head = average(heads)
    strength, validation, images, texts, owners = _validate(features, space, head)
    say(f"Strength {strength}, by the one-standard-error rule on the validation photos")
    say("Writing the graphs")
    _write_graphs(building, tower, space, head, strength)
    names = draw_images(building / "golden", IMAGES)
    tokenizer = reference.open_tokenizer(building / "tokenizer.json")
    golden = {
        "image": reference.encode_images(building / "image.onnx", [building / "golden" / name for name in names]),
        "text": np.concatenate([reference.encode_texts(building / "text.onnx", tokenizer, [text]) for text in TEXTS]),
    }
    write_golden(building, names, TEXTS, golden)
    measured = _evaluate(building, eval_folder) if eval_folder else {}
    card = model_card(strength, validation, measured)
    (building / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    (building / "NOTICE").write_text(NOTICE, encoding="utf-8")
    shutil.copy(_LICENCE, building / "LICENSE")
    say(card)
    scale = float(head.log_scale.exp().detach())
    manifest = _manifest(building, scale, fit_calibration(images, texts, owners))
    write_manifest(manifest, building)
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
    return manifest


def _write_tokenizer(folder: Path) -> None:
    """MiniLM's tokenizer, without its own limits: the manifest says where a text is cut."""
    tokenizer = json.loads(tokenizer_file().read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def _space(features: Features, tower: Any, embed: SentenceEncoder) -> Space:
    weights, biases = classifier(tower)
    classes = prototypes(embed)
    of_train = features.split == "train"
    captions = features.text[of_train[features.text_image]]
    centre = (captions.mean(axis=0) + classes.mean(axis=0)) / 2
    images = features.image[of_train]
    return Space(
        weights=weights,
        biases=biases,
        centred=classes - classes.mean(axis=0),
        classes=unit(classes - centre),
        centre=centre.astype(np.float32),
        mean=images.mean(axis=0),
        scale=(1 / (images.std(axis=0) + 1e-3) / _INPUT_SCALE).astype(np.float32),
    )


def _training_data(features: Features, space: Space) -> TrainingData:
    rows = np.flatnonzero(features.split == "train")
    captions = np.stack([np.flatnonzero(features.text_image == row) for row in rows])
    views = (features.image, features.image_flip, features.image_crop)
    plain, flipped, cropped = (space.inputs(view[rows]) for view in views)
    return TrainingData(
        views=(plain, flipped, cropped),
        captions=space.texts(features.text)[captions],
        belief=as_belief(space.logits(features.image[rows])),
        classes=space.classes,
    )


def _validate(
    features: Features, space: Space, head: Head
) -> tuple[float, dict[str, Recall], Vectors, Vectors, NDArray[np.int64]]:
    """The chosen strength, its recall, and the validation vectors with each caption's photo."""
    rows = np.flatnonzero(features.split == "val")
    of_val = np.isin(features.text_image, rows)
    owners = np.searchsorted(rows, features.text_image[of_val])
    inputs = torch.from_numpy(space.inputs(features.image[rows]))
    captions = torch.from_numpy(space.texts(features.text[of_val]))
    vectors: dict[float, tuple[Vectors, Vectors]] = {}
    hits: dict[float, NDArray[np.float64]] = {}
    with torch.inference_mode():
        for strength in STRENGTHS:
            images, texts = head.images(inputs, strength).numpy(), head.texts(captions, strength).numpy()
            vectors[strength] = images, texts
            scores = texts @ images.T
            ranks = (scores > scores[np.arange(len(texts)), owners][:, None]).sum(axis=1)
            each = np.mean([ranks < k for k in (1, 5, 10)], axis=0)
            hits[strength] = np.array([each[owners == photo].mean() for photo in range(len(rows))])
    strength = choose_strength(hits)
    images, texts = vectors[strength]
    recall = {
        "Flickr8k validation, text to image": text_to_image(images, texts, owners),
        "Flickr8k validation, image to text": image_to_text(images, texts, owners),
    }
    return strength, recall, images, texts, owners


def _write_graphs(folder: Path, tower: Any, space: Space, head: Head, strength: float) -> None:
    graph = ImageGraph(tower, space.centred, space.mean, space.scale, head, strength)
    whole = folder / "fp32.onnx"
    export_image_graph(graph, reference.SIZE, whole)
    quantize(whole, folder / "image.onnx")
    whole.unlink()
    weight = np.eye(len(space.centre), dtype=np.float32) + strength * head.text.weight.detach().numpy().T
    bias = strength * head.text.bias.detach().numpy()
    joined = folder / "joined.onnx"
    join_text_graph(minilm_graph(), centre=space.centre, weight=np.ascontiguousarray(weight), bias=bias, path=joined)
    quantize_texts(joined, folder / "text.onnx")
    joined.unlink()


def _evaluate(bundle: Path, folder: Path) -> dict[str, Recall]:
    """Recall of the finished graphs on captioned photos, `captions.jsonl` of `{"file", "captions"}`."""
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    images = reference.encode_images(bundle / "image.onnx", [folder / row["file"] for row in rows])
    captions = [caption for row in rows for caption in row["captions"]]
    tokenizer = reference.open_tokenizer(bundle / "tokenizer.json")
    texts = reference.encode_texts(bundle / "text.onnx", tokenizer, captions)
    owners = np.repeat(np.arange(len(rows)), [len(row["captions"]) for row in rows])
    return {
        f"{len(rows)} photos of COCO, text to image": text_to_image(images, texts, owners),
        f"{len(rows)} photos of COCO, image to text": image_to_text(images, texts, owners),
    }


def _manifest(folder: Path, scale: float, calibration: Calibration) -> Manifest:
    return Manifest(
        name="bridge",
        family="bridge",
        description="EfficientNet-Lite2 and MiniLM, joined by class names and a small head; English.",
        dimension=384,
        precision={"image": "int8", "text": "int8"},
        pixels=PixelRecipe(
            size=reference.SIZE,
            resize=Resize.SHORTEST_CROP,
            resize_to=reference.RESIZE_TO,
            mean=(reference.MEAN / 255,) * 3,
            std=(reference.STD / 255,) * 3,
        ),
        text=TextRecipe(context_length=reference.CONTEXT_LENGTH, padding=Padding.LONGEST, pad_id=0),
        source="crosslens models build-bridge",
        licence="Apache-2.0",
        languages=("en",),
        golden_cosine=_GOLDEN_COSINE,
        logit_scale=round(scale, 4),
        calibration={"text_to_image": calibration},
        files=published_files(folder),
    )
