"""What users would take instead of Crosslens, each behind the same small interface: build, open, search, embed.

A peer is a module with a class of two functions: `build(folder, vectors)` writes an index with the items' payloads,
`open(folder)` gives a `Searcher` over it. They run in processes of their own (`bench.peers.measure`), so that memory is
that of serving alone, and with the peers' Python, where nothing of Crosslens is installed: modules here import none of
it, apart from `crosslens.py`. An `Embedder` is a callable, see `bench.peers.texts`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Filter = tuple[str, int]
"""A field and the value it must have."""

SIZE = 10
"""Results of a search."""
QUESTIONS: dict[str, Filter | None] = {"none": None, "10 %": ("tenth", 3), "1 %": ("hundredth", 3)}
"""Filters by the share of items that they pass."""


class Searcher(Protocol):
    """An opened index. Several threads search at the same time."""

    settings: Sequence[Any]
    """Of a search: the default first, then those that find more, at more cost. Empty where there is no choice."""
    pids: Sequence[int]
    """Processes that serve, with their children; the one that asks is among them if the index is in it."""

    def use(self, setting: Any) -> None:
        """Search with this setting from now on."""

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        """Numbers of the nearest items, best first. Their payloads are fetched, too."""

    def close(self) -> None:
        """End what was started."""


class Peer(Protocol):
    """One way to keep and search vectors."""

    http: bool
    """Whether a search goes through a server's HTTP API, or the index is a library in the process that asks."""

    def build(self, folder: Path, vectors: Floats) -> None:
        """Write an index of all vectors and `payloads`; it is complete and on disk when this returns."""

    def open(self, folder: Path) -> Searcher:
        """Make it ready to search."""


SEARCHERS = {
    "Crosslens, HTTP API": "bench.peers.crosslens:Api",
    "FAISS flat in a Flask app": "bench.peers.faiss_flask:FaissFlask",
    "Crosslens, index process by its client": "bench.peers.crosslens:Index",
    "qdrant-client, local mode": "bench.peers.qdrant_local:QdrantLocal",
    "LanceDB, IVF_PQ": "bench.peers.lance:IvfPq",
    "LanceDB, IVF_HNSW_SQ": "bench.peers.lance:HnswSq",
    "Chroma": "bench.peers.chroma:Chroma",
}


def load(where: str) -> Any:
    """The thing of a module's, from `module:name`."""
    module, name = where.split(":")
    return getattr(importlib.import_module(module), name)


def classes(count: int) -> NDArray[np.int64]:
    """Which hundredth of the items each is in, by chance and the same in every process; (count,)."""
    return np.random.default_rng(2).integers(0, 100, count)


def passes(only: Filter | None, count: int) -> NDArray[np.bool_]:
    """Which items a filter passes; (count,)."""
    if only is None:
        return np.ones(count, dtype=bool)
    field, value = only
    each = classes(count)
    return (each if field == "hundredth" else each % 10) == value


def payloads(count: int) -> Iterator[dict[str, Any]]:
    """What is kept beside each vector and given back with it; the same facts as Crosslens' records have."""
    for number, hundredth in enumerate(classes(count).tolist()):
        yield {
            "number": number,
            "source": f"/photos/{number}.jpg",
            "sha256": f"{number:064x}",
            "bytes": 1000,
            "media_type": "image/jpeg",
            "year": 2000 + number % 25,
            "tenth": hundredth % 10,
            "hundredth": hundredth,
        }
