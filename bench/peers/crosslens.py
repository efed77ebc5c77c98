"""Crosslens itself, twice: its HTTP API, and the index process as its own code asks it, through qdrant-client."""

# ruff: noqa: D102  the protocols in bench.peers say what the functions do

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from qdrant_client import models

from bench.common import points
from bench.peers import Filter, Floats, classes
from bench.peers.http_json import Server
from indexer.edge.client import attach
from indexer.models.encoder import load_encoder
from indexer.settings import Settings
from indexer.store import open_store

_NAME = "media"


def build(folder: Path, vectors: Floats) -> None:
    """A collection in the built-in model's space with two declared fields, optimized."""
    settings = Settings(data=folder, optimize_after=10**9)
    encoder = load_encoder(settings)
    attached = attach(settings)
    with open_store(settings, attached) as store:
        store.create(_NAME, encoder.name, encoder.fingerprint, encoder.dimension)
        collection = store.declare(_NAME, {"tenth": "integer", "hundredth": "integer"})
        every = iter(classes(len(vectors)).tolist())
        for batch in points(vectors):
            for point, hundredth in zip(batch, every, strict=False):
                point.payload.update(tenth=hundredth % 10, hundredth=hundredth)
            collection.upsert(batch)
        url = f"{attached.url}/collections/{_NAME}/optimize"
        httpx.post(url, json={}, headers={"api-key": attached.secret}, timeout=3600).raise_for_status()


class Api:
    """`crosslens serve`, asked by raw vector."""

    http = True

    def build(self, folder: Path, vectors: Floats) -> None:
        build(folder, vectors)

    def open(self, folder: Path) -> ApiSearcher:
        return ApiSearcher(folder)


class ApiSearcher:
    """The server and its index process."""

    settings: Sequence[Any] = (None, {"exact": True})

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "CROSSLENS_DATA": str(folder), "CROSSLENS_LOG_LEVEL": "warning"}
        command = [sys.executable, "-c", "from indexer.cli import main; main()", "serve", "--port", "0", "--json"]
        self._server = Server(command, environment)
        self.pids = [self._server.pid]
        self._setting: dict[str, Any] = {}

    def use(self, setting: dict[str, Any] | None) -> None:
        self._setting = setting or {}

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        body = {"query": [{"vector": vector.tolist()}], "limit": k, **self._setting}
        if only is not None:
            body["filter"] = {"must": [{"key": only[0], "match": {"value": only[1]}}]}
        answer = self._server.post(f"/v1/collections/{_NAME}/search", body)
        return [UUID(each["id"]).int - 1 for each in answer["results"]]

    def close(self) -> None:
        self._server.close()


class Index:
    """The index process, without the HTTP API in front of it."""

    http = False

    def build(self, folder: Path, vectors: Floats) -> None:
        build(folder, vectors)

    def open(self, folder: Path) -> IndexSearcher:
        return IndexSearcher(folder)


class IndexSearcher:
    """A collection as the code that searches has it."""

    settings: Sequence[Any] = (None, {"exact": True})

    def __init__(self, folder: Path) -> None:
        self.pids = [os.getpid()]  # the index process is its child
        self._open = ExitStack()
        self._collection = self._open.enter_context(open_store(Settings(data=folder))).get(_NAME)
        self._exact = False

    def use(self, setting: dict[str, Any] | None) -> None:
        self._exact = setting is not None

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        among = None
        if only is not None:
            among = models.Filter(
                must=[models.FieldCondition(key=only[0], match=models.MatchValue(value=only[1]))],
            )
        hits = self._collection.search(vector, k, filter=among, exact=self._exact)
        return [UUID(hit.id).int - 1 for hit in hits]

    def close(self) -> None:
        self._open.close()
