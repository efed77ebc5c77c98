"""The search engine: from a request to ranked answers, without a word of HTTP.

A query is the weighted sum of its terms' unit vectors, normalised again. It is answered only by a collection in whose
vector space it was made: another model's fingerprint is refused.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from indexer.errors import InvalidRequest, InvalidVector, ItemNotFound, ModelMismatch
from indexer.items import Kind, Modality, Record, point_id
from search_api.filters import no_texts, of_kind, parse_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from qdrant_client.models import Filter

    from indexer.media.decode import Decoded
    from indexer.models.encoder import TextEmbeddings
    from indexer.models.manifest import Manifest, PixelRecipe
    from indexer.store.collection import Collection, Hit
    from search_api.request import SearchRequest, Term


class QueryEncoder(Protocol):
    """What the engine needs of an encoder; `indexer.models.encoder.Encoder` is one."""

    @property
    def fingerprint(self) -> str:
        """Names the vector space."""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""

    @property
    def pixels(self) -> PixelRecipe:
        """How images are prepared."""

    @property
    def devices(self) -> dict[str, str]:
        """Where its towers run."""

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit vectors, float32 (n, D), and which texts were cut."""

    def encode_images(self, images: Sequence[Image.Image | Decoded]) -> NDArray[np.float32]:
        """Unit vectors, float32 (n, D)."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One item found.

    `score` is the cosine with the query; `relevance` the probability that a person would call it a match, where the
    model's bundle is calibrated for this direction, else None.
    """

    id: str
    """The name that the caller gave the item, else its UUID."""
    score: float
    relevance: float | None
    record: Record
    payload: dict[str, Any]

    @property
    def source(self) -> str:
        """Where the item was first seen."""
        return self.record.locations[0].source

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON.

        `text` is there for texts and pages that have one; `seconds`, `page` and `parent` for frames and pages.
        """
        answer = {
            "id": self.id,
            "score": round(self.score, 6),
            "relevance": None if self.relevance is None else round(self.relevance, 4),
            "kind": self.record.kind.value,
            "source": self.source,
            "payload": self.payload,
        }
        more = {name: getattr(self.record, name) for name in ("text", "seconds", "page", "parent")}
        return answer | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a search found, best first, and how."""

    results: list[SearchResult]
    took_ms: float
    """Inside the engine: embedding and index."""
    model: str
    devices: dict[str, str] = field(default_factory=dict)
    """Where the model's towers run, those that are open."""
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON."""
        return {
            "results": [result.as_dict() for result in self.results],
            "took_ms": round(self.took_ms, 2),
            "model": self.model,
            "devices": self.devices,
            "warnings": self.warnings,
            "cursor": None,
        }


@dataclass(frozen=True, slots=True)
class _Query:
    vector: NDArray[np.float32]
    modality: Modality | None
    """What all of its terms are made of; None for a mixture or a bare vector."""
    exclude: tuple[str, ...]
    warnings: list[str]


class SearchEngine:
    """Searches one collection with the encoder that filled it.

    Usage:
        engine = SearchEngine(encoder, collection, max_pixels=settings.max_pixels)
        answer = engine.search(SearchRequest.parse({"query": [{"text": "a dog on a beach"}]}))

    Raises:
        ModelMismatch: the encoder's vector space is not the collection's.
    """

    def __init__(self, encoder: QueryEncoder, collection: Collection, *, max_pixels: int) -> None:
        if encoder.fingerprint != collection.fingerprint:
            raise ModelMismatch(
                f"The collection {collection.name!r} was made with {collection.model!r} "
                f"({collection.fingerprint}); this is {encoder.manifest.name!r} ({encoder.fingerprint})."
            )
        self._encoder = encoder
        self._collection = collection
        self._max_pixels = max_pixels

    def search(self, request: SearchRequest) -> SearchAnswer:
        """Answer a request.

        Raises:
            InvalidRequest: the filter is none, or the terms cancel each other out.
            InvalidVector: a vector term of another dimension, or without length.
            ItemNotFound: an item term names nothing in the collection.
            MediaError: an image term that cannot be decoded.
            IndexUnavailable: the index does not answer.
        """
        started = time.perf_counter()
        among = parse_filter(request.filter)
        query = self._compose(request.query)
        if request.kind is not None:
            hits = self._hits(query, request.limit, of_kind(request.kind, among))
        else:
            hits = self._both_kinds(query, request.limit, among)
        return SearchAnswer(
            results=[self._result(hit, query.modality) for hit in hits],
            took_ms=(time.perf_counter() - started) * 1000,
            model=self._collection.model,
            devices=self._encoder.devices,
            warnings=query.warnings,
        )

    def _compose(self, terms: Sequence[Term]) -> _Query:
        """The weighted sum of the terms; texts and images are each embedded in one run."""
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(terms)
        modalities: set[Modality | None] = set()
        warnings: list[str] = []

        texts = [(place, term.text) for place, term in enumerate(terms) if term.text is not None]
        if texts:
            modalities.add("text")
            embedded = self._encoder.encode_texts([text for _, text in texts])
            for (place, text), vector, cut in zip(texts, embedded.vectors, embedded.truncated, strict=True):
                vectors[place] = vector
                if cut:
                    warnings.append(f"{_shortened(text)!r} is longer than the model reads: its end was cut off.")

        images = [(place, term.image) for place, term in enumerate(terms) if term.image is not None]
        if images:
            modalities.add("image")
            decoded = [self._decode(data) for _, data in images]
            for (place, _), vector in zip(images, self._encoder.encode_images(decoded), strict=True):
                vectors[place] = vector

        for place, term in enumerate(terms):
            if term.item is not None:
                vectors[place], kind = self._item(term.item)
                modalities.add(kind.modality)
            elif term.vector is not None:
                vectors[place] = self._checked(term.vector)
                modalities.add(None)

        total = np.sum([term.weight * vector for term, vector in zip(terms, vectors, strict=True)], axis=0)
        length = float(np.linalg.norm(total))
        if length < 1e-6:
            raise InvalidRequest(
                "query: the terms cancel each other out.", remedy="Change a weight, or leave a term out.", field="query"
            )
        alone = terms[0].item if len(terms) == 1 else None
        return _Query(
            vector=(total / length).astype(np.float32),
            modality=modalities.pop() if len(modalities) == 1 else None,
            exclude=(point_id(self._collection.name, alone),) if alone is not None else (),
            warnings=warnings,
        )

    def _decode(self, data: bytes) -> Decoded:
        from indexer.media.decode import decode  # noqa: PLC0415  a text search never loads an image library
        from indexer.models.preprocess import decode_target  # noqa: PLC0415

        return decode(data, target=decode_target(self._encoder.pixels), max_pixels=self._max_pixels)

    def _item(self, name: str) -> tuple[NDArray[np.float32], Kind]:
        item_id = point_id(self._collection.name, name)
        stored = self._collection.get(item_id)
        if stored is None:
            raise ItemNotFound(f"The collection {self._collection.name!r} has no item {name!r}.")
        return self._collection.vector(item_id), stored.record.kind

    def _checked(self, values: list[float]) -> NDArray[np.float32]:
        """A caller's vector as a unit vector; the division comes before float32 can overflow."""
        if len(values) != self._collection.dimension:
            raise InvalidVector(
                f"The vector has {len(values)} values; {self._collection.model!r} has {self._collection.dimension}."
            )
        vector = np.asarray(values, dtype=np.float64)
        length = float(np.linalg.norm(vector))
        if not math.isfinite(length) or length < 1e-12:
            raise InvalidVector("The vector has no length that could be normalised.")
        return (vector / length).astype(np.float32)

    def _hits(self, query: _Query, limit: int, among: Filter | None) -> list[Hit]:
        return self._collection.search(query.vector, limit, filter=among, exclude_ids=query.exclude)

    def _both_kinds(self, query: _Query, limit: int, among: Filter | None) -> list[Hit]:
        """The best pictures and the best texts by turns; one kind alone when the other has nothing."""
        pictures = self._hits(query, limit, no_texts(among))
        texts = self._hits(query, limit, of_kind(Kind.TEXT, among))
        turns = itertools.chain.from_iterable(itertools.zip_longest(pictures, texts))
        return [hit for hit in turns if hit is not None][:limit]

    def _result(self, hit: Hit, asked_with: Modality | None) -> SearchResult:
        return SearchResult(
            id=hit.record.name or hit.id,
            score=hit.score,
            relevance=self._relevance(hit.score, asked_with, hit.record.kind),
            record=hit.record,
            payload=hit.payload,
        )

    def _relevance(self, score: float, asked_with: Modality | None, found: Kind) -> float | None:
        if asked_with is None:
            return None
        calibration = self._encoder.manifest.calibration.get(f"{asked_with}_to_{found.modality}")  # type: ignore[call-overload]
        if calibration is None:
            return None
        return 1 / (1 + math.exp(-(calibration.scale * score + calibration.bias)))


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
