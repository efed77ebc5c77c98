"""A query's terms as one vector: embedded in batches, brought to one scale, weighed and added."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequest, InvalidVector, ItemNotFound, MediaError
from indexer.items import Modality, point_id
from indexer.models.languages import spoken, uncovered
from indexer.models.templates import filled
from search_api.background import Background

if TYPE_CHECKING:
    from indexer.models.manifest import Manifest
    from indexer.store.collection import Collection
    from search_api.encoding import QueryEncoder
    from search_api.request import SearchRequest, Term

Vector = NDArray[np.float32]
Fetch = Callable[[Sequence[str]], Sequence[bytes | MediaError]]
"""What several URLs give, or why one gives nothing."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A term as it counts: its score with an item's vector x is `factor * (vector @ x - offset)`."""

    label: str
    """The text, or what kind of term it is."""
    modality: Modality | None
    """None for a bare vector."""
    raw: Vector
    """As it was embedded, L2-normalised."""
    vector: Vector
    factor: float
    offset: float
    weight: float

    def score(self, vectors: Vector) -> Vector:
        """Its part in the scores of items, float32 (n,)."""
        scores: Vector = self.factor * (vectors @ self.vector - self.offset)
        return scores


@dataclass(frozen=True, slots=True)
class Composed:
    """A query toward one modality of items."""

    vector: Vector
    """L2-normalised."""
    terms: list[Weighed]

    @property
    def modality(self) -> Modality | None:
        """What all of its terms are made of; None for a mixture or a bare vector."""
        kinds = {term.modality for term in self.terms}
        return kinds.pop() if len(kinds) == 1 else None


@dataclass(slots=True)
class Embedded:
    """Terms with their vectors, before it is known toward what they are weighed."""

    terms: Sequence[Term]
    vectors: list[Vector]
    modalities: list[Modality | None]
    items: list[str | None]
    """The ids of items that were asked with: an item is no answer to itself."""
    cut: list[bool]
    """Which texts were longer than the model reads."""
    foreign: list[str | None]
    """What is to be said of texts in a language that the model was not made for."""
    tokenize_seconds: float = 0.0
    """Of all texts that were embedded together; after `split` the first part's."""
    also_exclude: tuple[str, ...] = ()

    @property
    def exclude(self) -> list[str]:
        """The items that are no answer."""
        return [*(item for item in self.items if item is not None), *self.also_exclude]

    @property
    def warnings(self) -> list[str]:
        """What has to be said of the terms."""
        longer = [
            f"{_shortened(term.text or '')!r} is longer than the model reads: its end was cut off."
            for term, cut in zip(self.terms, self.cut, strict=True)
            if cut
        ]
        return longer + list(dict.fromkeys(warning for warning in self.foreign if warning))

    def split(self, counts: Sequence[int]) -> list[Embedded]:
        """The first so many terms, the next so many, and so on."""
        parts, at = [], 0
        for count in counts:
            of = slice(at, at + count)
            part = (self.vectors[of], self.modalities[of], self.items[of], self.cut[of], self.foreign[of])
            parts.append(Embedded(self.terms[of], *part))
            at += count
        if parts:
            parts[0].tokenize_seconds = self.tokenize_seconds
        return parts

    def frozen(self) -> list[dict[str, Any]]:
        """The terms as they can be asked with again, whatever became of items and URLs: texts, and else vectors."""
        return [
            {**term.model_dump(include={"text", "template", "weight"}, exclude_none=True)}
            if term.text is not None
            else {"vector": _written(vector), "modality": modality, "weight": term.weight}
            for term, vector, modality in zip(self.terms, self.vectors, self.modalities, strict=True)
        ]


def thawed(frozen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The terms that `Embedded.frozen` wrote, as a request has them."""
    return [
        {**term, "vector": np.frombuffer(base64.b64decode(term["vector"]), "<f4").tolist()}
        if "vector" in term
        else dict(term)
        for term in frozen
    ]


def _written(vector: Vector) -> str:
    """A vector for a page's list: a quarter of what its digits take, and of the time to write and compress them."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def embed(
    terms: Sequence[Term],
    *,
    encoder: QueryEncoder,
    collection: Collection,
    read_image: Callable[[bytes], Vector],
    fetch: Fetch | None = None,
    names: Sequence[str] = (),
) -> Embedded:
    """Every term's vector; all texts in one run, and what URLs give fetched at once. `read_image` embeds an image.

    `names` are what errors call the terms.

    Raises:
        InvalidRequest: a URL, where nothing is fetched.
        MediaError: an image that cannot be fetched or decoded, with the term named.
        InvalidVector: a vector of another dimension, or without length.
        ItemNotFound: an item that is not in the collection.
    """
    count = len(terms)
    found = Embedded(
        terms, [np.empty(0, np.float32)] * count, [None] * count, [None] * count, [False] * count, [None] * count
    )
    images = _images(terms, fetch)
    texts: list[str] = []
    rows: dict[int, list[int]] = {}
    for place, term in enumerate(terms):
        if term.text is not None:
            phrased = filled(term.text, term.template)
            rows[place] = list(range(len(texts), len(texts) + len(phrased)))
            texts += phrased
            found.modalities[place], found.foreign[place] = "text", _foreign(term.text, encoder.manifest)
        elif term.image is not None:
            with naming(names[place] if names else "query"):
                if isinstance(image := images[place], MediaError):
                    raise image
                found.vectors[place], found.modalities[place] = read_image(image), "image"
        elif term.item is not None:
            found.items[place] = point_id(collection.name, term.item)
            found.vectors[place], found.modalities[place] = _of_item(collection, term.item)
        elif term.vector is not None:
            found.vectors[place], found.modalities[place] = _unit(collection, term.vector), term.modality
    if texts:
        embedded = encoder.encode_texts(texts)
        found.tokenize_seconds = embedded.tokenize_seconds
        for place, some in rows.items():
            found.vectors[place] = _normalised(embedded.vectors[some].mean(axis=0))
            found.cut[place] = any(embedded.truncated[row] for row in some)
    return found


def names_of(requests: Sequence[SearchRequest]) -> list[str]:
    """What errors call the terms of requests: `query.1`, and of several requests `searches.3.query.1`."""
    return [
        f"searches.{number}.query.{place}" if len(requests) > 1 else f"query.{place}"
        for number, request in enumerate(requests)
        for place in range(len(request.terms))
    ]


def compose(embedded: Embedded, toward: Modality, background: Background) -> Composed:
    """The weighted sum of terms, as a unit vector toward pictures or texts.

    Terms of one modality are added as they are. Of several, each is centred and divided by its spread first.

    Raises:
        InvalidRequest: the terms cancel each other out.
    """
    mixed = len(set(embedded.modalities)) > 1
    weighed = []
    for term, vector, modality in zip(embedded.terms, embedded.vectors, embedded.modalities, strict=True):
        centred, factor, offset = vector, term.weight, 0.0
        if mixed:
            centre = background.centre(modality) if modality is not None else None
            centred = vector if centre is None else vector - centre
            if (spread := background.spread(centred, toward)) is not None:
                factor, offset = term.weight / spread.deviation, spread.mean
        weighed.append(Weighed(_label(term), modality, vector, centred, factor, offset, term.weight))
    largest = max(abs(each.factor) for each in weighed)  # by which weights that float32 has not become some that it has
    total: Vector = np.sum([each.factor / largest * each.vector for each in weighed], axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise InvalidRequest(
            "query: the terms cancel each other out.", remedy="Change a weight, or leave a term out.", field="query"
        )
    return Composed((total / length).astype(np.float32), weighed)


def _images(terms: Sequence[Term], fetch: Fetch | None) -> dict[int, bytes | MediaError]:
    """The bytes of image terms by their place; those of URLs are fetched together."""
    given = {place: term.image for place, term in enumerate(terms) if term.image is not None}
    urls = {place: image for place, image in given.items() if isinstance(image, str)}
    if urls and fetch is None:
        raise InvalidRequest("query: images by URL are not fetched here.", remedy="Send the image itself.")
    fetched = dict(zip(urls, fetch(list(urls.values())), strict=True)) if urls and fetch else {}
    return {place: image for place, image in given.items() if isinstance(image, bytes)} | fetched


@contextmanager
def naming(term: str) -> Iterator[None]:
    """Have errors of an image say of which term it is."""
    try:
        yield
    except MediaError as error:
        error.message = f"{term}: {error.message}"
        error.args = (error.message,)
        error.details.setdefault("field", term)
        raise


def _of_item(collection: Collection, name: str) -> tuple[Vector, Modality]:
    item_id = point_id(collection.name, name)
    stored = collection.get(item_id)
    if stored is None:
        raise ItemNotFound(f"The collection {collection.name!r} has no item {name!r}.")
    return collection.vector(item_id), stored.record.kind.modality


def _unit(collection: Collection, values: list[float]) -> Vector:
    """A caller's vector as a unit vector; the division comes before float32 can overflow."""
    if len(values) != collection.dimension:
        raise InvalidVector(f"The vector has {len(values)} values; {collection.model!r} has {collection.dimension}.")
    vector = np.asarray(values, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not math.isfinite(length) or length < 1e-12:
        raise InvalidVector("The vector has no length that could be normalised.")
    return (vector / length).astype(np.float32)


def _foreign(text: str, manifest: Manifest) -> str | None:
    language = uncovered(text, manifest.languages)
    if language is None or manifest.languages is None:
        return None
    return (
        f"The text {_shortened(text)!r} looks like {language}; the model {manifest.name!r} was made for "
        f"{spoken(manifest.languages)}: results may be poor. Ask in a language of the model, or use one that knows "
        "more: `crosslens models list` names some."
    )


def _normalised(vector: Vector) -> Vector:
    return vector / max(math.sqrt(vector @ vector), 1e-12)


def _label(term: Term) -> str:
    if term.text is not None:
        return _shortened(term.text)
    return term.item or ("image" if term.image is not None else "vector")


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
