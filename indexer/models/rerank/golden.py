"""Does this machine give pairs the scores that the rerank bundle's makers gave them?

The files, which whoever exports a bundle writes:

`golden.json`   {"images": [names], "texts": [...]}; of a cross-encoder {"passages": [...], "texts": [...]}
`golden/NAME`   each of the images, a file as it would be indexed
`golden.npz`    `matching` float32 (images, texts) and `contrastive`, the same; of a cross-encoder `matching` float32
                (passages, texts) alone. They are the reference's own, not the graphs'.

Both the pictures and the texts should differ in shape and length, so that what is resized or padded wrongly shows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.errors import GoldenMismatch, InvalidBundle
from indexer.models.golden import LISTING_FILE, golden_picture, parsing
from indexer.models.manifest import GOLDEN_FILE
from indexer.models.preprocess import decode_target
from indexer.models.rerank.bundle import RerankBundle

if TYPE_CHECKING:
    from indexer.models.rerank.reranker import PairScores, Reranker, TextReranker

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GoldenPairs:
    """A rerank bundle's golden pairs and their scores."""

    names: list[str]
    """Of the images; of a cross-encoder the passages."""
    images: list[bytes]
    """None of a cross-encoder."""
    texts: list[str]
    matching: Floats
    """(images or passages, texts)."""
    contrastive: Floats | None


@dataclass(frozen=True)
class RerankReport:
    """By how much this machine's scores differ from the golden ones at most, by golden text."""

    matching: dict[str, float]
    contrastive: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest difference."""
        return max([*self.matching.values(), *self.contrastive.values()])


def read_golden_pairs(bundle: RerankBundle) -> GoldenPairs:
    """A rerank bundle's golden pairs and scores.

    Raises:
        InvalidBundle: a file is missing, changed, or not what it should be.
    """
    of_pictures = bundle.manifest.pixels is not None
    with parsing(bundle.manifest.name):
        listing = json.loads(bundle.path(LISTING_FILE).read_bytes())
        names = [str(name) for name in listing["images" if of_pictures else "passages"]]
        with np.load(io.BytesIO(bundle.path(GOLDEN_FILE).read_bytes()), allow_pickle=False) as arrays:
            golden = GoldenPairs(
                names=names,
                images=[bundle.path(f"golden/{name}").read_bytes() for name in names] if of_pictures else [],
                texts=[str(text) for text in listing["texts"]],
                matching=np.asarray(arrays["matching"], dtype=np.float32),
                contrastive=np.asarray(arrays["contrastive"], dtype=np.float32) if of_pictures else None,
            )
    shape = (len(golden.names), len(golden.texts))
    shapes = {scores.shape for scores in (golden.matching, golden.contrastive) if scores is not None}
    if shapes != {shape} or 0 in shape:
        raise InvalidBundle(f"The golden scores of {bundle.manifest.name!r} are not those of its golden pairs.")
    return golden


def check_golden_pairs(reranker: Reranker | TextReranker, *, canary: bool = False) -> RerankReport:
    """Score the golden pairs (with `canary` the first alone) and compare.

    Raises:
        GoldenMismatch: a score differs by more than the manifest's `golden_error`; it names the text.
        InvalidBundle: the golden files are missing or broken.
    """
    bundle = reranker.bundle
    golden = read_golden_pairs(bundle)
    count = 1 if canary else None
    texts = golden.texts[:count]
    scores = _scores(reranker, golden, texts, count)
    matching = [each.matching for each in scores]
    contrastive = [each.contrastive for each in scores if each.contrastive is not None]
    report = RerankReport(
        matching=_differences(texts, matching, golden.matching),
        contrastive={} if golden.contrastive is None else _differences(texts, contrastive, golden.contrastive),
    )
    most = bundle.manifest.golden_error
    for which, by_text in (("matching", report.matching), ("contrastive", report.contrastive)):
        for text, difference in by_text.items():
            if not difference <= most:  # so that NaN fails too
                raise GoldenMismatch(
                    f"{bundle.manifest.name!r} gives other scores here than where it was made: {which} differs by "
                    f"{difference:.2g} for the golden text {text[:40]!r}, {most:.2g} is the most.",
                    remedy=f"Run `crosslens models verify {bundle.manifest.name} --json` and report what it prints: "
                    "scores made here would be wrong.",
                    score=which,
                    input=text[:200],
                    difference=difference,
                )
    return report


def _scores(
    reranker: Reranker | TextReranker, golden: GoldenPairs, texts: list[str], count: int | None
) -> list[PairScores]:
    from indexer.models.rerank.reranker import Reranker  # noqa: PLC0415  which checks itself with this module

    if not isinstance(reranker, Reranker):
        return [reranker.scores(text, golden.names[:count]) for text in texts]
    target = decode_target(reranker.pixels)
    features = []
    for name, data in zip(golden.names[:count], golden.images, strict=False):  # one by one: some are large
        features += reranker.features([golden_picture(reranker.name, name, data, target)])
    return [reranker.scores(text, features) for text in texts]


def _differences(texts: Sequence[str], ours: Sequence[Floats], golden: Floats) -> dict[str, float]:
    return {
        text: float(np.abs(column - golden[: len(column), at]).max())
        for at, (text, column) in enumerate(zip(texts, ours, strict=True))
    }
