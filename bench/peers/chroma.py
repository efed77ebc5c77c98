"""Chroma's PersistentClient: an HNSW graph over float vectors and SQLite, in this process."""

# ruff: noqa: D102  the protocols in bench.peers say what the functions do

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import chromadb
from chromadb.config import Settings

from bench.peers import Filter, Floats, payloads


def _client(folder: Path) -> chromadb.ClientAPI:
    return chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))


class Chroma:
    """The peer, with the graph's default parameters."""

    http = False

    def build(self, folder: Path, vectors: Floats) -> None:
        client = _client(folder)
        collection = client.create_collection(
            "bench", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        every = payloads(len(vectors))
        at_once = client.get_max_batch_size()
        for at in range(0, len(vectors), at_once):
            some = vectors[at : at + at_once]
            ids = [str(number) for number in range(at, at + len(some))]
            collection.add(ids, embeddings=some, metadatas=list(islice(every, len(some))))

    def open(self, folder: Path) -> ChromaSearcher:
        return ChromaSearcher(folder)


class ChromaSearcher:
    """The collection. Its `ef_search` is a setting of the collection; 100 is the default."""

    settings = (100, 200, 400, 800)

    def __init__(self, folder: Path) -> None:
        self.pids = [os.getpid()]
        self._folder = folder
        self._collection = _client(folder).get_collection("bench", embedding_function=None)

    def use(self, setting: int) -> None:
        self._collection.modify(configuration={"hnsw": {"ef_search": setting}})

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        answer = self._collection.query(
            query_embeddings=[vector],
            n_results=k,
            where=dict([only]) if only else None,
            include=["metadatas", "distances"],
        )
        return [each["number"] for each in answer["metadatas"][0]]

    def close(self) -> None:
        """Nothing to end."""
