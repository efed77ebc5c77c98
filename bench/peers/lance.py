"""LanceDB, embedded: its default index IVF_PQ and its IVF_HNSW_SQ, bitmaps over the fields that filters use."""

# ruff: noqa: D102  the protocols in bench.peers say what the functions do

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import lancedb
import pyarrow as pa
from lancedb.index import Bitmap
from lancedb.index import HnswSq as HnswSqConfig
from lancedb.index import IvfPq as IvfPqConfig

from bench.peers import Filter, Floats, payloads

_METRIC = "cosine"


class _Lance:
    """What both indexes share: the table, and that a filter comes before the search, which is LanceDB's default."""

    http = False
    config: ClassVar[Any]
    settings: ClassVar[Sequence[dict[str, int]]]

    def build(self, folder: Path, vectors: Floats) -> None:
        columns = pa.Table.from_pylist(list(payloads(len(vectors))))
        flat = pa.array(vectors.reshape(-1))
        rows = columns.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        table = lancedb.connect(folder).create_table("bench", rows)
        table.create_index("vector", config=self.config)
        for field in ("tenth", "hundredth"):
            table.create_index(field, config=Bitmap())
        table.wait_for_index([each.name for each in table.list_indices()])

    def open(self, folder: Path) -> LanceSearcher:
        return LanceSearcher(folder, self.settings)


class IvfPq(_Lance):
    """What `create_index` makes unasked; `refine_factor` reads the vectors of so many times more and scores again."""

    config = IvfPqConfig(distance_type=_METRIC)
    settings = (
        {},
        {"refine_factor": 5},
        {"refine_factor": 10},
        {"refine_factor": 20},
        {"refine_factor": 20, "nprobes": 40},
        {"refine_factor": 50, "nprobes": 80},
        {"refine_factor": 50, "nprobes": 320},
    )


class HnswSq(_Lance):
    """A graph in each partition; as its docstring recommends, there is one."""

    config = HnswSqConfig(distance_type=_METRIC, num_partitions=1)
    settings = (
        {},
        {"ef": 64},
        {"ef": 64, "refine_factor": 2},
        {"ef": 128, "refine_factor": 2},
        {"ef": 256, "refine_factor": 4},
        {"ef": 512, "refine_factor": 4},
        {"ef": 1024, "refine_factor": 10},
    )


class LanceSearcher:
    """The table."""

    def __init__(self, folder: Path, settings: Sequence[dict[str, int]]) -> None:
        self.settings = settings
        self.pids = [os.getpid()]
        self._setting: dict[str, int] = {}
        self._table = lancedb.connect(folder).open_table("bench")
        names = [field.name for field in self._table.schema if field.name != "vector"]
        self._columns = [*names, "_distance"]

    def use(self, setting: dict[str, int]) -> None:
        self._setting = setting

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        query = self._table.search(vector).distance_type(_METRIC).select(self._columns).limit(k)
        for name, value in self._setting.items():
            query = getattr(query, name)(value)
        if only is not None:
            query = query.where(f"{only[0]} = {only[1]}")
        return [row["number"] for row in query.to_list()]

    def close(self) -> None:
        """Nothing to end."""
