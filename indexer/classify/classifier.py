"""A label set at work: labels embedded once, vectors of items compared with all of them in one product."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from indexer.classify.labels import LabelSet
from indexer.classify.scoring import OTHERS, Floats, Origin, each_of, one_of, scale_of
from indexer.errors import InvalidVector
from indexer.flow import batched
from indexer.items import Modality

if TYPE_CHECKING:
    from indexer.models.encoder import TextEmbeddings
    from indexer.models.manifest import Manifest

_KEPT = 64
"""Label sets whose vectors are kept: 256 labels of 640 dimensions are 640 KiB."""
_AT_ONCE = 32
"""Texts of a run; a shared encoder lets others in between."""
_LEAST_OTHERS = 8
_METHOD = 1
"""Raised whenever the same labels come to give other probabilities, so that tags are written anew."""


class TextEncoder(Protocol):
    """What classifying needs of an encoder; `models.encoder.Encoder` is one."""

    @property
    def fingerprint(self) -> str:
        """Names the vector space."""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit vectors, float32 (n, D), and which texts were cut."""


@dataclass(frozen=True)
class LabelVectors:
    """A set's labels as vectors."""

    labels: Floats
    """float32 (k, D), L2-normalised."""
    others: Floats
    """float32 (m, D): texts about other things, without those that mean one of the labels."""
    cut: tuple[str, ...]
    """Labels with a prompt that was longer than the model reads."""


class LabelCache:
    """The vectors of label sets by model and texts, the latest used ones. Thread-safe."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, ...], LabelVectors] = OrderedDict()

    def of(self, encoder: TextEncoder, labels: LabelSet) -> LabelVectors:
        """A set's vectors, embedded at the first use."""
        key = (encoder.fingerprint, hashlib.sha256(repr(labels.texts).encode()).hexdigest())
        with self._lock:
            if key in self._vectors:
                self._vectors.move_to_end(key)
                return self._vectors[key]
        vectors = embed_labels(encoder, labels)  # twice, should two ask at once: better than that all others wait
        with self._lock:
            self._vectors[key] = vectors
            while len(self._vectors) > self._kept:
                self._vectors.popitem(last=False)
        return vectors


def embed_labels(encoder: TextEncoder, labels: LabelSet) -> LabelVectors:
    """A set's vectors: for each label the mean of its prompts' unit vectors, normalised again.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 3.1.4.
    """
    texts = [text for some in labels.texts for text in some] + list(OTHERS)
    embedded = [encoder.encode_texts(some) for some in batched(texts, _AT_ONCE)]
    vectors = np.concatenate([each.vectors for each in embedded])
    truncated = [cut for each in embedded for cut in each.truncated]
    means, cut, at = [], [], 0
    for label, some in zip(labels.labels, labels.texts, strict=True):
        means.append(_unit(vectors[at : at + len(some)].mean(axis=0)))
        if any(truncated[at : at + len(some)]):
            cut.append(label.name)
        at += len(some)
    stacked = np.stack(means)
    return LabelVectors(stacked, _not_meant(vectors[at:], stacked), tuple(cut))


def _not_meant(others: Floats, labels: Floats) -> Floats:
    """The other things without those that are nearer to a label than any two of them are to each other."""
    among = others @ others.T
    np.fill_diagonal(among, -1)
    kept = others[(others @ labels.T).max(axis=1) <= among.max()]
    return kept if len(kept) >= _LEAST_OTHERS else others


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


@dataclass(frozen=True)
class Judged:
    """What was found of some items of one modality."""

    names: tuple[str, ...]
    cosines: Floats
    """float32 (n, k)."""
    probabilities: Floats
    """float32 (n, k): of each label."""
    none: Floats
    """float32 (n,): that it is none of them."""
    origin: Origin
    """What the probabilities rest on."""

    def tags(self, threshold: float, *, multi: bool) -> list[list[str]]:
        """The labels that each item is given, the most probable first."""
        given = []
        for row in self.probabilities:
            best = np.argsort(-row, kind="stable")[: None if multi else 1]
            given.append([self.names[each] for each in best if row[each] >= threshold])
        return given


class Classifier:
    """A label set for one model's vectors. Thread-safe.

    Usage:
        classifier = Classifier(encoder, of_names(["cat", "dog"]))
        judged = classifier.judge(vectors, "image")
        judged.probabilities, judged.none
    """

    def __init__(self, encoder: TextEncoder, labels: LabelSet, *, cache: LabelCache | None = None) -> None:
        self.labels = labels
        self.vectors = (cache or LabelCache()).of(encoder, labels)
        of_kinds: tuple[Modality, ...] = ("image", "text")
        self._scales = {kind: scale_of(kind, encoder.manifest, len(self.vectors.others)) for kind in of_kinds}
        decisive = (_METHOD, encoder.fingerprint, labels.digest, sorted(self._scales.items()))
        self.stamp = hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]
        """Names everything that decides an item's labels: 16 hex digits."""

    def judge(self, vectors: Floats, modality: Modality) -> Judged:
        """The labels' probabilities for items of one modality; `vectors` is float32 (n, D), L2-normalised.

        Raises:
            InvalidVector: the vectors are of another dimension.
        """
        if vectors.shape[1:] != self.vectors.labels.shape[1:]:
            raise InvalidVector(f"The vectors have {vectors.shape[-1]} values, not {self.vectors.labels.shape[-1]}.")
        scale = self._scales[modality]
        cosines = vectors @ self.vectors.labels.T
        others = vectors @ self.vectors.others.T if scale.needs_others else cosines
        logits = scale.logits(cosines, others)
        probabilities, none = each_of(logits) if self.labels.multi else one_of(logits, scale.base_rate)
        names = tuple(label.name for label in self.labels.labels)
        return Judged(names, cosines, probabilities, none, scale.origin)
