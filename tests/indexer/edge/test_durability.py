"""What a power cut leaves of the embedded index: the log as it was acknowledged, and of the segments anything."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from indexer.edge import generations
from indexer.edge.files import sync_files
from indexer.edge.generations import EdgeCollection

SIZE = 8
FIELDS = {"word": "keyword", "number": "integer", "time": "datetime"}


def upsert(first: int, last: int, word: str) -> dict[str, Any]:
    vectors = np.random.default_rng(first).normal(size=(last - first, SIZE))
    points = [
        {
            "id": number,
            "vector": vector.tolist(),
            "payload": {
                "word": f"{word}{number % 7}",
                "number": number,
                "time": "2024-01-01T00:00:00Z",
                "x": "x" * number,
            },
        }
        for number, vector in zip(range(first, last), vectors, strict=True)
    ]
    return {"upsert": {"points": points}}


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EdgeCollection]:
    """A collection whose first writes are flushed, and whose further ones will not be for an hour."""
    monkeypatch.setattr(generations, "_FLUSH_SECONDS", -1.0)
    made = EdgeCollection.create(tmp_path / "c", size=SIZE, distance="Cosine", metadata={}, optimize_after=10**9)
    for field, schema in FIELDS.items():
        made.write([{"create_index": {"field_name": field, "field_schema": schema}}])
    made.write([upsert(0, 400, "old")])
    monkeypatch.setattr(generations, "_FLUSH_SECONDS", 3600.0)
    yield made
    made.close()


def change(collection: EdgeCollection) -> None:
    """Replace, add, remove and alter points."""
    collection.write([upsert(300, 700, "new")])
    collection.write(
        [{"delete": {"points": list(range(20))}}, {"set_payload": {"points": [30], "payload": {"word": "s"}}}]
    )
    collection.write([{"overwrite_payload": {"points": [31], "payload": {"number": -1}}}])


def content(collection: EdgeCollection) -> Any:
    """Every point, and what the payload indexes find."""

    def count(shard: edge.EdgeShard, condition: edge.FieldCondition) -> int:
        return shard.count(edge.CountRequest(True, edge.Filter(must=[condition])))

    def ask(shard: edge.EdgeShard) -> Any:
        records, _ = shard.scroll(edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True))
        points = {record.id: (record.payload, np.round(record.vector, 5).tolist()) for record in records}  # type: ignore[arg-type]
        matches = [edge.MatchValue(word) for word in ("new3", "old3", "s")]
        below = edge.RangeFloat(lt=10)
        return (
            points,
            [count(shard, edge.FieldCondition("word", match=match)) for match in matches],
            count(shard, edge.FieldCondition("number", range=below)),
        )

    return collection.read(ask)


def test_a_write_is_acknowledged_when_its_log_is_on_disk(
    collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    log = collection.folder / "1" / "wal"
    collection.write([upsert(0, 5, "word")])
    assert {str(path) for path in log.iterdir()} | {str(log)} == set(synced)


def test_files_that_are_renamed_while_they_are_synced_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine makes the log's next file in the background, and gives it its name when it is ready."""
    (tmp_path / "tmp-2").write_text("2")
    (tmp_path / "open-1").write_text("1")
    list_folder = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        paths = sorted(list_folder(folder))
        if (tmp_path / "tmp-2").exists():
            (tmp_path / "tmp-2").rename(tmp_path / "open-2")
        return iter(paths)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    sync_files(tmp_path)
    assert synced[-3:] == ["open-1", "open-2", tmp_path.name]


def test_after_a_power_cut_nothing_acknowledged_is_missing(collection: EdgeCollection, tmp_path: Path) -> None:
    """Of the files that the kernel was not told to write, any may have been written: whole old ones and new ones mixed."""
    flushed = tmp_path / "flushed"
    shutil.copytree(collection.folder, flushed)
    change(collection)
    right = content(collection)
    written = {path.relative_to(collection.folder) for path in collection.folder.rglob("*") if path.is_file()}
    log = {path for path in written if "wal" in path.parts}
    changed = sorted(
        path
        for path in written - log
        if not (flushed / path).exists() or (flushed / path).read_bytes() != (collection.folder / path).read_bytes()
    )
    assert len(changed) > 5  # else there is nothing to mix
    chance = random.Random(1)
    for luck in [0.0, 1.0, *[0.5] * 12]:
        cut = tmp_path / "cut"
        shutil.rmtree(cut, ignore_errors=True)
        shutil.copytree(flushed, cut)
        for path in log | {path for path in changed if chance.random() < luck}:
            (cut / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(collection.folder / path, cut / path)
        opened = EdgeCollection(cut, optimize_after=10**9)
        assert content(opened) == right
        opened.close()


def test_the_segments_follow_and_the_log_is_cut_off(
    collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(collection)
    monkeypatch.setattr(generations, "_FLUSH_SECONDS", -1.0)
    collection.write([upsert(0, 1, "last")])
    right = content(collection)
    left = tmp_path / "left"
    shutil.copytree(collection.folder, left)
    opened = EdgeCollection(left, optimize_after=10**9)
    assert content(opened) == right
    opened.close()
