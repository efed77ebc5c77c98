"""Recall@k of cross-modal retrieval: how often the right photo, or a right caption, is among the first k answers.

"Right" is the pairing alone: a caption that happens to fit another photo too counts as a miss there. Image to text
counts a photo as found when any one of its captions is, as the retrieval literature does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KS = (1, 5, 10)
_BLOCK = 1024  # queries scored at a time: bounds memory at 1024 x answers

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Recall:
    """What a set of queries found."""

    queries: int
    at: dict[int, float]
    """Share of the queries whose right answer is among the first k, by k."""
    median_rank: float
    """1 is the top."""
    mean_reciprocal_rank: float

    def as_dict(self) -> dict[str, float]:
        """Flat, for JSON: `{"queries", "r1", "r5", "r10", "median_rank", "mean_reciprocal_rank"}`."""
        shares = {f"r{k}": share for k, share in self.at.items()}
        return {
            "queries": self.queries,
            **shares,
            "median_rank": self.median_rank,
            "mean_reciprocal_rank": self.mean_reciprocal_rank,
        }


def text_to_image(images: Vectors, texts: Vectors, image_of_text: NDArray[np.integer]) -> Recall:
    """Recall of photos by their captions.

    `images` is (n, D) and `texts` (m, D), both L2-normalised; `image_of_text` (m,) is each caption's row in `images`.
    """
    ranks = [
        _ranks(block @ images.T, owners[:, None] == np.arange(len(images)))
        for block, owners in zip(_blocks(texts), _blocks(image_of_text), strict=True)
    ]
    return _summary(np.concatenate(ranks))


def image_to_text(images: Vectors, texts: Vectors, image_of_text: NDArray[np.integer]) -> Recall:
    """Recall of captions by their photo: the best-ranked of its own counts. Arguments as `text_to_image`."""
    ranks = [
        _ranks(block @ texts.T, rows[:, None] == image_of_text)
        for block, rows in zip(_blocks(images), _blocks(np.arange(len(images))), strict=True)
    ]
    return _summary(np.concatenate(ranks))


def table(rows: Sequence[tuple[str, Recall]]) -> str:
    """The results as a Markdown table, one row a measurement."""
    head = "| | queries | " + " | ".join(f"R@{k}" for k in KS) + " | median rank |"
    lines = [head, "|---" * (len(KS) + 3) + "|"]
    for name, recall in rows:
        shares = " | ".join(f"{recall.at[k]:.3f}" for k in KS)
        lines.append(f"| {name} | {recall.queries} | {shares} | {recall.median_rank:g} |")
    return "\n".join(lines)


def _blocks(rows: NDArray[Any]) -> list[NDArray[Any]]:
    return [rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK)]


def _ranks(scores: Vectors, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank of the best right answer of each row, from 1. A wrong answer that scores the same goes before it."""
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(1 + ((scores >= best) & ~right).sum(axis=1), dtype=np.int64)


def _summary(ranks: NDArray[np.int64]) -> Recall:
    return Recall(
        queries=len(ranks),
        at={k: float((ranks <= k).mean()) for k in KS},
        median_rank=float(np.median(ranks)),
        mean_reciprocal_rank=float((1 / ranks).mean()),
    )
