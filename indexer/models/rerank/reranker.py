"""Pairs of a text and a picture, or of two texts, in; how well they match out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import InvalidBundle, ModelError, NoFeatures
from indexer.media.decode import Decoded
from indexer.models.devices import Plan
from indexer.models.manifest import PixelRecipe
from indexer.models.preprocess import prepare
from indexer.models.rerank.bundle import RerankBundle
from indexer.models.rerank.golden import check_golden_pairs
from indexer.models.rerank.graphs import Graphs
from indexer.models.rerank.manifest import FeatureShapes, RerankManifest
from indexer.models.rerank.manifest import Graph as GraphName
from indexer.models.rerank.pairs import PairTokenizer
from indexer.models.sessions import Feed, Tensors
from indexer.models.tokenize import Tokenizer

Floats = NDArray[np.float32]

_TENSORS: Mapping[GraphName, Tensors] = {
    "vision": Tensors(frozenset({"pixels"}), ("features", "queries")),
    "match": Tensors(
        frozenset({"input_ids", "attention_mask", "rows", "features", "queries"}), ("matching", "contrastive")
    ),
}


@dataclass(frozen=True, eq=False)
class Features:
    """What is kept of a picture, so that a pair costs one run of the small graph."""

    features: NDArray[np.float16]
    """(tokens, width): what the matching head attends to."""
    queries: NDArray[np.float16]
    """(q, d): what the contrastive cosine is taken with."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.features.nbytes + self.queries.nbytes


@dataclass(frozen=True, eq=False)
class PairScores:
    """How well one text matches each of n pictures or texts."""

    matching: Floats
    """(n,): the logit of a match."""
    contrastive: Floats | None
    """(n,): cosines; None of texts."""
    score: Floats
    """(n,): matching + the manifest's weight * contrastive; what ranks, higher is better."""
    truncated: bool
    """Whether the text, or of a cross-encoder any pair, was longer than the model reads, and was cut."""


class _Scorer:
    """What rerankers of pictures and of texts have in common."""

    def __init__(self, bundle: RerankBundle, graphs: Graphs) -> None:
        self.bundle = bundle
        self._graphs = graphs

    @property
    def manifest(self) -> RerankManifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    @property
    def fingerprint(self) -> str:
        """Names the scores, and what features of pictures are kept under."""
        return self.manifest.fingerprint

    @property
    def devices(self) -> dict[str, str]:
        """The device of each graph that is open."""
        return self._graphs.devices

    @property
    def is_gpu(self) -> bool:
        """Whether it runs on a GPU, where runs are best one at a time; until it runs, whether it probably will."""
        return self._graphs.is_gpu

    @property
    def max_batch(self) -> int:
        """Pairs per run."""
        return self._graphs.batch("match")

    @property
    def _remedy(self) -> str:
        return f"Run `crosslens models verify {self.name}`."

    def _every_length(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        """One text that says nothing, int64 (1, length) each, of every length that a device prepares for."""
        recipe = self.manifest.text
        for length in self._graphs.lengths(recipe):
            yield {
                "input_ids": np.full((1, length), recipe.pad_id, dtype=np.int64),
                "attention_mask": np.ones((1, length), dtype=np.int64),
                "token_type_ids": np.zeros((1, length), dtype=np.int64),
            }

    def _column(self, scores: Floats, wanted: int) -> Floats:
        """Scores, if they are finite and as many as wanted."""
        if scores.shape != (wanted,) or not np.isfinite(scores).all():
            raise ModelError(
                f"{self.name!r} gave {scores.shape} scores, not finite ones of shape ({wanted},).", remedy=self._remedy
            )
        return scores


class Reranker(_Scorer):
    """Scores pairs of a text and a picture. Graphs open when first used. Thread-safe.

    Usage:
        reranker = load_reranker(Settings())
        features = reranker.features([image])           # kept, so that the picture is looked at once
        scores = reranker.scores("a red circle left of a square", features).score
    """

    def __init__(self, bundle: RerankBundle, plan: Plan | None = None) -> None:
        """Of a bundle with `pixels`.

        Raises:
            InvalidBundle: it has none: it is a cross-encoder's.
        """
        if bundle.manifest.pixels is None or bundle.manifest.shapes is None:
            raise InvalidBundle(f"{bundle.manifest.name!r} reads texts only.")
        super().__init__(bundle, Graphs(bundle, _TENSORS, plan, lambda: check_golden_pairs(self, canary=True)))
        self.pixels: PixelRecipe = bundle.manifest.pixels
        """How pictures are prepared."""
        self.shapes: FeatureShapes = bundle.manifest.shapes
        """Of `Features`."""
        self._opening = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    @property
    def vision_batch(self) -> int:
        """Pictures per run."""
        return self._graphs.batch("vision")

    def warm_up(self) -> None:
        """Open all; on a GPU also run every shape of a batch once, so that no request waits for its preparation.

        Raises:
            ModelError: a graph does not open or does not run.
        """
        picture = np.full((3, self.pixels.size, self.pixels.size), 0.5, dtype=np.float32)
        features: list[Features] = []
        for count in self._graphs.sizes("vision"):
            features = self.features_of([picture] * count)
        self._tokens()
        for count in self._graphs.sizes("match"):
            for tokens in self._every_length():
                self._match(tokens, features[:1] * count)

    def prepare(self, image: Image.Image | Decoded) -> Floats:
        """One RGB image, or decoded file, as the vision graph's input, float32 (3, size, size)."""
        return prepare(image, self.pixels)

    def features(self, images: Sequence[Image.Image | Decoded]) -> list[Features]:
        """What is kept of RGB images, or decoded files.

        Raises:
            NoFeatures: what the graph gives for one of them is not finite.
            ModelError: the graph does not open, does not run, or gives something else than the manifest says.
        """
        return self.features_of([self.prepare(image) for image in images])

    def features_of(self, pixels: Sequence[Floats]) -> list[Features]:
        """The same of what `prepare` gave."""
        found: list[Features] = []
        batch = self.vision_batch
        for at in range(0, len(pixels), batch):
            some = pixels[at : at + batch]
            feed, count = self._graphs.filled({"pixels": np.stack(some)})
            features, queries = self._graphs.run("vision", feed)
            wanted = (self.shapes.features, self.shapes.queries)
            if (features.shape[1:], queries.shape[1:]) != wanted:
                raise ModelError(
                    f"{self.name!r} gave features of {features.shape[1:]} and {queries.shape[1:]}, not {wanted}.",
                    remedy=self._remedy,
                )
            found += [Features(self._half(features[row]), self._half(queries[row])) for row in range(count)]
        return found

    def scores(self, text: str, features: Sequence[Features]) -> PairScores:
        """How well a text matches each of the pictures that these are the features of.

        Raises:
            ModelError: the graph does not open, does not run, or gives something else than scores.
        """
        read = self._tokens().encode([text])
        sequence = {"input_ids": read.input_ids, "attention_mask": read.attention_mask}
        tokens = self._graphs.padded(sequence, self.manifest.text)
        matching, contrastive = np.empty((2, len(features)), dtype=np.float32)
        batch = self.max_batch
        for at in range(0, len(features), batch):
            rows = slice(at, at + batch)
            matching[rows], contrastive[rows] = self._match(tokens, features[rows])
        score = matching + np.float32(self.manifest.contrastive_weight) * contrastive
        return PairScores(matching, contrastive, score, truncated=read.truncated[0])

    def _match(self, tokens: Feed, features: Sequence[Features]) -> list[Floats]:
        """One run: logits and cosines of a text with some pictures."""
        pictures, count = self._graphs.filled(
            {
                "rows": np.zeros(len(features), dtype=np.int64),
                "features": np.stack([each.features for each in features], dtype=np.float32),
                "queries": np.stack([each.queries for each in features], dtype=np.float32),
            }
        )
        given = self._graphs.run("match", {**tokens, **pictures})
        return [self._column(each, len(pictures["rows"]))[:count] for each in given]

    def _half(self, rows: Floats) -> NDArray[np.float16]:
        with np.errstate(over="ignore"):
            half = rows.astype(np.float16)
        if not np.isfinite(half).all():
            raise NoFeatures("The features of a picture are not finite in half precision.", remedy=self._remedy)
        return half

    def _tokens(self) -> Tokenizer:
        with self._opening:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer(self.bundle)
            return self._tokenizer


class TextReranker(_Scorer):
    """Scores pairs of two texts: a cross-encoder. The graph opens when first used. Thread-safe.

    Usage:
        reranker = load_text_reranker(Settings())
        scores = reranker.scores("how do cats land", ["Cats turn in the air.", "Dogs bark."]).score
    """

    def __init__(self, bundle: RerankBundle, plan: Plan | None = None) -> None:
        """Of a bundle without `pixels`.

        Raises:
            InvalidBundle: it has some: it is a reranker of pictures.
        """
        if bundle.manifest.pixels is not None:
            raise InvalidBundle(f"{bundle.manifest.name!r} compares texts with pictures, not with texts.")
        inputs = {"input_ids", "attention_mask"} | ({"token_type_ids"} if bundle.manifest.token_types else set())
        tensors = Tensors(frozenset(inputs), ("matching",))
        super().__init__(
            bundle, Graphs(bundle, {"match": tensors}, plan, lambda: check_golden_pairs(self, canary=True))
        )
        self._opening = threading.Lock()
        self._tokenizer: PairTokenizer | None = None

    def warm_up(self) -> None:
        """Open all; on a GPU also run every shape of a batch once, of pairs that are not longer than most are.

        Raises:
            ModelError: the graph does not open or does not run.
        """
        self._tokens()
        for count in self._graphs.sizes("match"):
            for tokens in self._every_length():
                self._graphs.run("match", {name: np.repeat(row, count, axis=0) for name, row in tokens.items()})

    def scores(self, text: str, texts: Sequence[str]) -> PairScores:
        """How well a text matches each of others.

        Raises:
            ModelError: the graph does not open, does not run, or gives something else than scores.
        """
        pairs = self._tokens().encode(text, texts)
        matching = np.empty(len(texts), dtype=np.float32)
        # Pairs of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda index: len(pairs.encodings[index]))
        batch = self.max_batch  # which is another one once a run has shown that there is no GPU
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            feed, count = self._graphs.filled(self._graphs.padded(pairs.batch(some), self.manifest.text))
            matching[some] = self._column(self._graphs.run("match", feed)[0], len(feed["input_ids"]))[:count]
        return PairScores(matching, None, matching, truncated=pairs.truncated)

    def _tokens(self) -> PairTokenizer:
        with self._opening:
            if self._tokenizer is None:
                self._tokenizer = PairTokenizer(self.bundle)
            return self._tokenizer
