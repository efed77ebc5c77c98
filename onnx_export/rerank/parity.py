"""A rerank bundle's parity certificate: the finished bundle against its source library, pair by pair.

Two comparisons, both by the runtime that users run. In the first the vision graph's features go into the matching graph
as they are: that is what the export lost. In the second they are kept in half precision between the graphs, as the
runtime keeps them: that is what users get, and what `crosslens models verify` sees again on their machines.
"""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.errors import ParityFailed
from indexer.models.devices import Device, Kind, Plan, cpu_count
from indexer.models.manifest import GOLDEN_FILE, Precision
from indexer.models.rerank.bundle import RerankBundle, load_rerank_bundle
from indexer.models.rerank.golden import GoldenPairs, read_golden_pairs
from indexer.models.rerank.manifest import VISION_FILE
from indexer.models.rerank.reranker import Features, PairScores, Reranker, TextReranker
from indexer.models.sessions import Graph, Tensors
from onnx_export.pictures import read_rgb

_CPU = Plan(candidates=((Device(Kind.CPU),),), threads=cpu_count())


@dataclass(frozen=True)
class Bounds:
    """What is required of a precision."""

    graphs: float
    """The most that a score of the two graphs in sequence may differ."""
    kept: float
    """The most that it may with features in half precision between them: the manifest's `golden_error`."""
    rank: float
    """The least rank correlation, of either."""


_EXACT = 1e-4
_SHARES: dict[Precision, float] = {"fp32": 0.02, "fp16": 0.02, "int8": 0.2}
"""Of the golden scores' standard deviation: the most that one may differ where numbers are rounded. What is lost grows
with the scores themselves: at any depth and width that was tried, fp16 lost up to 0.006 of it, int8 0.085. fp32 has as
much as fp16, for GPUs that multiply at ten bits (TF32)."""
_RANKS: dict[Precision, float] = {"fp32": 0.999, "fp16": 0.999, "int8": 0.99}


@dataclass(frozen=True)
class Agreement:
    """How well scores agree with the reference's."""

    difference: float
    """The greatest of a score."""
    rank: float
    """Spearman's correlation over all pairs."""


@dataclass(frozen=True)
class RerankCertificate:
    """What was compared, and how well it agreed."""

    reference: str
    """Library and version."""
    reads: Literal["pictures", "texts"]
    precision: Precision
    bounds: Bounds
    pairs: int
    graphs: Agreement
    """Of the two graphs in sequence; of a cross-encoder, of its one graph."""
    kept: Agreement
    """The same with features in half precision between them."""

    def as_dict(self) -> dict[str, object]:
        """As `certificate.json` holds it."""
        return asdict(self)


def bounds_of(folder: Path, precision: Precision, rank: float | None = None) -> Bounds:
    """The bounds of a precision for the bundle whose golden scores are in `folder`.

    Whoever gives a least rank correlation below fp32 cares for the order: then scores may differ by their deviation.
    """
    with np.load(folder / GOLDEN_FILE, allow_pickle=False) as golden:
        spread = float(np.std(sum(golden[name] for name in golden.files)))
    if precision == "fp32":
        return Bounds(_EXACT, _SHARES["fp32"] * spread, _RANKS["fp32"])
    most = spread * (_SHARES[precision] if rank is None else 1)
    return Bounds(most, most, _RANKS[precision] if rank is None else rank)


def certify(folder: Path, reference: str, precision: Precision, bounds: Bounds) -> RerankCertificate:
    """Compare the bundle in `folder` with its golden scores, on the CPU.

    Raises:
        ParityFailed: a score differs by more than the bound, or the order by more than its.
    """
    gc.collect()  # what the bundle was made of lies in cycles, and is gigabytes
    bundle = load_rerank_bundle(folder)
    golden = read_golden_pairs(bundle)
    weight = bundle.manifest.contrastive_weight
    wanted = golden.matching + weight * (0 if golden.contrastive is None else golden.contrastive)
    if bundle.manifest.pixels is None:
        of_texts = TextReranker(bundle, _CPU)
        graphs = kept = _agreement(_columns([of_texts.scores(text, golden.names) for text in golden.texts]), wanted)
    else:
        exact = _exact_features(bundle, golden)
        reranker = Reranker(bundle, _CPU)
        graphs = _agreement(_columns([reranker.scores(text, exact) for text in golden.texts]), wanted)
        halves = reranker.features([read_rgb(folder / "golden" / name) for name in golden.names])
        kept = _agreement(_columns([reranker.scores(text, halves) for text in golden.texts]), wanted)
    reads: Literal["pictures", "texts"] = "pictures" if bundle.manifest.pixels else "texts"
    certificate = RerankCertificate(reference, reads, precision, bounds, wanted.size, graphs, kept)
    for what, agreement, most in (("", graphs, bounds.graphs), (", features kept in half,", kept, bounds.kept)):
        if not (agreement.difference <= most and agreement.rank >= bounds.rank):  # so that NaN fails too
            raise ParityFailed(
                f"{bundle.manifest.name!r}{what} does not agree with {reference}: scores differ by up to "
                f"{agreement.difference:.2g}, {most:.2g} is the most; their ranks correlate at {agreement.rank:.4f}, "
                f"{bounds.rank} is the least.",
                certificate=certificate.as_dict(),
            )
    return certificate


def _exact_features(bundle: RerankBundle, golden: GoldenPairs) -> list[Features]:
    """Features of the golden pictures as the graph gives them, float32. Its session is gone before the next opens."""
    manifest = bundle.manifest
    reranker = Reranker(bundle, _CPU)  # to prepare pictures by; it opens nothing
    tensors = Tensors(frozenset({"pixels"}), ("features", "queries"))
    graph = Graph(bundle.folder / VISION_FILE, tensors, manifest.precision["vision"], _CPU, _CPU.candidates[0])
    found = []
    for name in golden.names:
        pixels = reranker.prepare(read_rgb(bundle.folder / "golden" / name))
        features, queries = graph.compute({"pixels": pixels[None]})
        found.append(Features(features[0], queries[0]))
    return found


def _columns(scores: list[PairScores]) -> NDArray[np.float32]:
    """(images or passages, texts), as the golden scores are."""
    return np.stack([each.score for each in scores], axis=1)


def _agreement(ours: NDArray[np.float32], wanted: NDArray[np.float32]) -> Agreement:
    return Agreement(float(np.abs(ours - wanted).max()), rank_correlation(ours.ravel(), wanted.ravel()))


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's: the correlation of the two rankings. Equal scores share their rank."""
    ranks = []
    for scores in (one, other):
        _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
        rank = (np.cumsum(counts) - (counts - 1) / 2)[places]
        ranks.append(rank - rank.mean())
    first, second = ranks
    with np.errstate(invalid="ignore"):  # scores that are all the same have no order: NaN
        return float(first @ second / np.sqrt((first @ first) * (second @ second)))
