"""What is learned from: reviewed items and the collection they are of, as columns, and one category's view of them.

Reviewers see what fired and what was uncertain, never a random sample. So the collection is divided into strata by the
present probability, each half as large as the one below it, and a reviewed item stands for its stratum. What is
assumed is only that within a stratum (and, for a head, on either side of its threshold) it did not depend on what the
item is whether it was reviewed: post-stratification (Cochran 1977, Sampling Techniques, 5A.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

LEAST_REVIEWED = 20
"""Of a category, and as many that are not of it: below that, nothing is fitted."""
_LEAST_STRATUM = 20
"""Items of the collection in the topmost stratum."""
_MOST_STRATA = 24
_BLOCK = 16_384

KINDS = ("image", "text")
NAMES = {"image": "pictures", "text": "texts"}
"""Of kinds, in sentences."""


@dataclass(frozen=True)
class Reviewed:
    """Items that a person has judged, a row each."""

    vectors: NDArray[np.float32]
    """(n, d), L2-normalised; a row that is not finite has none."""
    probabilities: NDArray[np.float32]
    """(n, categories), as the policy in force judges them (`Judgement.probabilities`); NaN where it does not."""
    labels: Bools
    """(n, categories): which categories the item is of."""
    known: Bools
    """(n, categories): for which of them that was decided."""
    images: Bools
    """(n,): which were embedded as pictures; the others are texts."""
    places: Ints | None = None
    """(n,): the item's row in the collection's columns, -1 where it is not among them. Without, none is."""
    groups: Ints | None = None
    """(n,): items of one group, such as copies of one picture, are never divided between fitting and judging."""


@dataclass(frozen=True)
class Population:
    """The collection, or a random sample of it, a row an item, reviewed or not; columns may be memory-mapped."""

    vectors: NDArray[np.float32]
    """(m, d)"""
    probabilities: NDArray[np.float32]
    """(m, categories)"""
    images: Bools
    """(m,)"""
    size: int | None = None
    """How many items the collection has, if these are a sample of them."""


@dataclass(frozen=True)
class Sample:
    """What is known for one category: the reviewed items that tell something of it, and the items they stand for."""

    kinds: tuple[str, ...]
    """Which kinds of item it is about."""
    rows: Ints
    """(r,): of the reviewed."""
    labels: Bools
    """(r,)"""
    strata: Ints
    """(r,)"""
    present: Floats
    """(r,): the present probability."""
    population_rows: Ints
    """(p,): of the collection's columns."""
    population_strata: Ints
    """(p,)"""
    population_present: Floats
    """(p,)"""
    places: Ints
    """(r,): which of those p the reviewed item is, -1 for none."""
    count: int
    """How many strata."""
    scale: float
    """How many items of the collection each of those p stands for; above 1 for a sample."""

    @property
    def other_kinds(self) -> tuple[str, ...]:
        """The kinds that it is not about."""
        return tuple(kind for kind in KINDS if kind not in self.kinds)

    @property
    def weights(self) -> Floats:
        """(r,): how many items of the collection each reviewed one stands for."""
        reviewed = np.bincount(self.strata, minlength=self.count)
        size = np.bincount(self.population_strata, minlength=self.count) * self.scale
        return np.asarray((np.maximum(size, reviewed) / np.maximum(reviewed, 1))[self.strata], dtype=np.float64)

    @property
    def unreviewed(self) -> float:
        """The share of the collection in strata of which nothing was reviewed: there, anything may be."""
        without = np.bincount(self.strata, minlength=self.count) == 0
        return float(without[self.population_strata].mean())


def check(reviewed: Reviewed, population: Population, categories: int) -> None:
    """Raises InvalidRequest where columns do not fit each other or the policy."""
    for name, given in (("reviewed items", reviewed), ("collection's items", population)):
        count = len(given.images)
        if given.vectors.ndim != 2 or given.probabilities.ndim != 2 or given.images.ndim != 1:
            raise InvalidRequest(f"The {name} need a row each of vectors and of probabilities.")
        if {len(given.vectors), len(given.probabilities)} != {count}:
            raise InvalidRequest(f"Not every column of the {name} has {count} rows.")
        if given.probabilities.shape[1] != categories:
            raise InvalidRequest(
                f"The {name} have probabilities of {given.probabilities.shape[1]} categories, not {categories}."
            )
        likely = given.probabilities[~np.isnan(given.probabilities)]
        if likely.size and not (likely.min() >= 0 and likely.max() <= 1):
            raise InvalidRequest(f"The {name} have probabilities that are not between 0 and 1.")
    if reviewed.vectors.shape[1] != population.vectors.shape[1]:
        raise InvalidRequest("The reviewed items' vectors are not of the collection's dimension.")
    if reviewed.labels.shape != reviewed.probabilities.shape or reviewed.known.shape != reviewed.labels.shape:
        raise InvalidRequest("Labels, and which are known, need a row for each reviewed item and a column a category.")
    for column in (reviewed.places, reviewed.groups):
        if column is not None and column.shape != reviewed.images.shape:
            raise InvalidRequest(f"Places and groups are one for each of the {len(reviewed.images)} reviewed items.")
    if reviewed.places is not None and (reviewed.places >= len(population.images)).any():
        raise InvalidRequest("A reviewed item's place is not among the collection's rows.")
    if population.size is not None and population.size < len(population.images):
        raise InvalidRequest("The collection cannot be smaller than the sample of it.")


def sample_of(index: int, reviewed: Reviewed, population: Population) -> Sample | str:
    """One category's view of the columns (`check`ed); or, where too little was reviewed, what is needed, in a sentence.

    Kinds of item of which too few were reviewed are left out: nothing is said of them.
    """
    usable = reviewed.known[:, index] & _usable(reviewed, index)
    everything = _usable(population, index)
    kinds, short = [], []
    for kind, images in zip(KINDS, (True, False), strict=True):
        rows = usable & (reviewed.images == images)
        positive = int(reviewed.labels[rows, index].sum())
        negative = int(rows.sum()) - positive
        if min(positive, negative) >= LEAST_REVIEWED and (everything & (population.images == images)).any():
            kinds.append(kind)
        elif rows.any() or (everything & (population.images == images)).any():
            short.append(f"of {NAMES[kind]}, {positive} that are of it and {negative} that are not")
    if not kinds:
        had = " and ".join(short) or "none"
        return (
            f"{LEAST_REVIEWED} reviewed items that are of it and {LEAST_REVIEWED} that are not are needed, of pictures "
            f"or of texts; there are {had}."
        )
    of_kinds = {kind == "image" for kind in kinds}
    rows = np.flatnonzero(usable & np.isin(reviewed.images, list(of_kinds)))
    population_rows = np.flatnonzero(everything & np.isin(population.images, list(of_kinds)))
    present = reviewed.probabilities[rows, index].astype(np.float64)
    population_present = population.probabilities[population_rows, index].astype(np.float64)
    strata, population_strata = np.zeros(len(rows), np.int64), np.zeros(len(population_rows), np.int64)
    count = 0
    for images in of_kinds:
        ours, theirs = reviewed.images[rows] == images, population.images[population_rows] == images
        edges = _edges(population_present[theirs])
        strata[ours] = count + np.searchsorted(edges, present[ours], side="right")
        population_strata[theirs] = count + np.searchsorted(edges, population_present[theirs], side="right")
        count += len(edges) + 1
    return Sample(
        kinds=tuple(kinds),
        rows=rows,
        labels=reviewed.labels[rows, index],
        strata=strata,
        present=present,
        population_rows=population_rows,
        population_strata=population_strata,
        population_present=population_present,
        places=_places(reviewed, rows, population_rows),
        count=count,
        scale=(population.size or len(population.images)) / len(population.images),
    )


def _usable(given: Reviewed | Population, index: int) -> Bools:
    """Rows with a vector and a probability."""
    usable = np.asarray(~np.isnan(given.probabilities[:, index]))
    for begin in range(0, len(usable), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        usable[rows] &= np.isfinite(given.vectors[rows]).all(axis=1)
    return usable


def _edges(present: Floats) -> Floats:
    """Where strata meet: the upper half, quarter, eighth ... of the collection's probabilities begins."""
    ordered = np.sort(present)
    ranks = [len(ordered) - (len(ordered) >> step) for step in range(1, _MOST_STRATA)]
    edges = np.unique([ordered[rank] for rank in ranks if len(ordered) - rank >= _LEAST_STRATUM])
    return np.asarray(edges[edges > ordered[0]], dtype=np.float64)


def _places(reviewed: Reviewed, rows: Ints, population_rows: Ints) -> Ints:
    if reviewed.places is None:
        return np.full(len(rows), -1, dtype=np.int64)
    wanted = reviewed.places[rows]
    found = np.minimum(np.searchsorted(population_rows, wanted), len(population_rows) - 1)
    return np.where((wanted >= 0) & (population_rows[found] == wanted), found, -1).astype(np.int64)
