"""Golden pairs, and their scores by the reference: what a rerank bundle is held against wherever it is used.

No picture is square, no two texts are of one length, one is longer than any model reads, and one is empty. All are
pictures that decode to the very same pixels everywhere: how large ones are decoded at a reduced scale is the encoders'
certificates' business.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from indexer.models.golden import LISTING_FILE
from indexer.models.manifest import GOLDEN_FILE
from onnx_export.golden import draw_images
from onnx_export.pictures import read_rgb
from onnx_export.rerank.checkpoint import RerankCheckpoint

IMAGES = ["sunset.png", "balloon.png", "turned.png", "sliver.png", "palette.png", "grey.png"]
TEXTS = [
    "a red balloon over the fields",
    "sunset",
    "TWO CHILDREN, playing FOOTBALL in the RAIN beside a café: it's o'clock & they've 1234 re-tries!",
    "",
    "people walking through a city at night " * 60,
]
PASSAGES = [
    "The sun sets over the sea.",
    "  A red balloon,\nseen from the fields below, drifts towards the mountains. Nobody steers it. ",
    "Football is played by two teams of eleven; children play it with fewer, and in the rain.",
    "東京の夜景とラーメン",
    "",
    "A city at night: people walk through it, lamps are lit, and the last trams go home to their sheds. " * 80,
]


def write_golden_pairs(checkpoint: RerankCheckpoint, folder: Path) -> None:
    """Write the golden inputs into a bundle's folder, with the reference's scores of every pair of them."""
    if checkpoint.pictures:
        kind, names = "images", draw_images(folder / "golden", IMAGES)
        compared: list[Any] = [read_rgb(folder / "golden" / name) for name in names]
    else:
        kind, names = "passages", PASSAGES
        compared = list(names)
    listing = json.dumps({kind: names, "texts": TEXTS}, indent=2, ensure_ascii=False)
    (folder / LISTING_FILE).write_text(listing + "\n", encoding="utf-8")
    scores = [[checkpoint.reference(each, text) for text in TEXTS] for each in compared]
    matching = np.array([[each.matching for each in row] for row in scores], dtype=np.float32)
    if checkpoint.pictures:
        contrastive = np.array([[each.contrastive for each in row] for row in scores], dtype=np.float32)
        np.savez(folder / GOLDEN_FILE, matching=matching, contrastive=contrastive)
    else:
        np.savez(folder / GOLDEN_FILE, matching=matching)
