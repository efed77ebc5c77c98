"""When the next generation is built, and what it takes in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.edge import generations
from indexer.edge.generations import EdgeCollection

SIZE = 128
"""So that 2,500 points are more than the engine leaves unindexed."""


def upsert(first: int, last: int) -> dict[str, Any]:
    vectors = np.random.default_rng(first).normal(size=(last - first, SIZE))
    return {"upsert": {"points": [{"id": n, "vector": v.tolist()} for n, v in enumerate(vectors, first)]}}


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[EdgeCollection]:
    made = EdgeCollection.create(tmp_path / "c", size=SIZE, distance="Cosine", metadata={}, optimize_after=3000)
    yield made
    made.close()


def indexed(collection: EdgeCollection) -> tuple[int, int]:
    info = collection.read(lambda shard: shard.info())
    return info.points_count, info.indexed_vectors_count


def settle(collection: EdgeCollection) -> None:
    collection.build_if_quiet()
    if collection._builder is not None:
        collection._builder.join()


def test_what_the_last_build_did_not_see_is_built_in_once_it_is_quiet(
    collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.write([upsert(0, 3500)])
    collection.build_all()
    assert indexed(collection) == (3500, 3500)
    collection.write([upsert(3500, 6000)])
    settle(collection)
    assert indexed(collection) == (6000, 3500)  # somebody has just written
    monkeypatch.setattr(generations, "_QUIET_SECONDS", -1.0)
    settle(collection)
    assert indexed(collection) == (6000, 6000)
    number = collection.description["generation"]
    settle(collection)
    collection.write([upsert(6000, 6100)])  # too few to be worth it
    settle(collection)
    assert collection.description["generation"] == number


def test_a_small_collection_is_never_built(collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "_QUIET_SECONDS", -1.0)
    collection.write([upsert(0, 2900)])
    settle(collection)
    assert collection.description["generation"] == 1


def test_one_that_was_left_so_is_built_by_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = EdgeCollection.create(tmp_path / "c", size=SIZE, distance="Cosine", metadata={}, optimize_after=10**9)
    made.write([upsert(0, 3500)])
    made.close()
    monkeypatch.setattr(generations, "_QUIET_SECONDS", -1.0)
    opened = EdgeCollection(tmp_path / "c", optimize_after=3000)
    settle(opened)
    assert indexed(opened) == (3500, 3500)
    opened.close()
    opened.build_if_quiet()  # removed while others looked at it


def test_build_all_takes_in_what_came_while_another_build_ran(collection: EdgeCollection) -> None:
    collection.write([upsert(0, 2500)])
    underway = collection.build()
    collection.write([upsert(2500, 5000)])
    collection.build_all()
    assert underway is not None
    assert not underway.is_alive()
    assert indexed(collection) == (5000, 5000)
