"""qdrant-client's local mode: NumPy in this process, persisted in SQLite. It has no index, of vectors or of payloads."""

# ruff: noqa: D102  the protocols in bench.peers say what the functions do

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from bench.peers import Filter, Floats, payloads


class QdrantLocal:
    """The peer."""

    http = False

    def build(self, folder: Path, vectors: Floats) -> None:
        client = QdrantClient(path=str(folder))
        size = vectors.shape[1]
        client.create_collection("bench", models.VectorParams(size=size, distance=models.Distance.COSINE))
        client.upload_collection("bench", vectors, payloads(len(vectors)), ids=range(len(vectors)))
        client.close()

    def open(self, folder: Path) -> LocalSearcher:
        return LocalSearcher(folder)


class LocalSearcher:
    """Its collection, all in memory."""

    settings = ()

    def __init__(self, folder: Path) -> None:
        self.pids = [os.getpid()]
        self._client = QdrantClient(path=str(folder))

    def use(self, setting: Any) -> None:
        raise ValueError(setting)

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        among = None
        if only is not None:
            field, value = only
            among = models.Filter(must=[models.FieldCondition(key=field, match=models.MatchValue(value=value))])
        answer = self._client.query_points("bench", vector, query_filter=among, limit=k, with_payload=True)
        return [point.payload["number"] for point in answer.points]

    def close(self) -> None:
        self._client.close()
