"""The copy in columns is what the engine holds after every write, and is never believed after a crash."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.edge import columns as module
from indexer.edge.files import sync_files
from indexer.edge.generations import EdgeCollection
from indexer.edge.places import Places
from indexer.edge.wire import Refused
from indexer.moderation.facts import FACTS, THERE, WITHHELD, Names, facts_of

SIZE = 4
ITEMS = 12


def item(number: int) -> str:
    return str(uuid.UUID(int=number << 8))  # ends in zeros, which NumPy takes off


def payload(number: int, action: str | None = None, parent: int | None = None) -> dict[str, Any]:
    record: dict[str, Any] = {"kind": "image", "sha256": f"{number:064x}", "locations": []}
    if parent is not None:
        record["parent"] = item(parent)
    if action is not None:
        finding = {"score": 0.0, "probability": 0.25 + number / 100, "fired": number % 2 == 0}
        record["verdict"] = {
            "action": action, "categories": {"cats": finding, f"c{number}": finding},
            "policy": "p", "version": "0123456789abcdef", "by": "policy", "at": "2026-01-01T00:00:00Z",
        }  # fmt: skip
    return {"tag": number % 3, "crosslens": record}


def upsert(*points: tuple[int, int, dict[str, Any]]) -> dict[str, Any]:
    """Points of a number, a seed of the vector, and a payload."""
    return {
        "upsert": {
            "batch": {
                "ids": [item(number) for number, _, _ in points],
                "vectors": [np.random.default_rng(seed).normal(size=SIZE).tolist() for _, seed, _ in points],
                "payloads": [each for _, _, each in points],
            }
        }
    }


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[EdgeCollection]:
    made = EdgeCollection.create(tmp_path / "c", size=SIZE, distance="Cosine", metadata={}, optimize_after=10**9)
    yield made
    made.close()


def asked(collection: EdgeCollection) -> dict[str, Any]:
    """What the collection tells of its copy, once it is ready."""
    deadline = time.monotonic() + 30
    while not (told := collection.columns.ask())["ready"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return told


def copied(told: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What is in the files, by id; categories by their names."""
    folder, names = Path(told["folder"]), list(told["names"])
    facts = np.fromfile(folder / "facts", dtype=FACTS)
    vectors = np.fromfile(folder / "vectors", dtype="<f4").reshape(-1, told["size"])
    assert len(facts) == len(vectors) == told["rows"]
    rows = {}
    for row in np.flatnonzero(facts["bits"] & THERE):
        each = {name: facts[name][row : row + 1].tobytes() for name in FACTS.names or () if name != "fired"}
        fired = {name for place, name in enumerate(names) if int(facts["fired"][row]) >> place & 1}
        key = str(uuid.UUID(bytes=each["id"]))
        assert key not in rows
        rows[key] = (each, fired, vectors[row].tobytes())
    return rows


def held(collection: EdgeCollection) -> dict[str, tuple[Any, ...]]:
    """What ought to be there, by what the engine holds."""
    import qdrant_edge as edge

    asked = edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True)
    records, _ = collection.read(lambda shard: shard.scroll(asked))
    rows = {}
    for record in records:
        names = Names()
        row = facts_of([record.id.bytes], [record.payload or {}], names)
        each = {name: row[name][:1].tobytes() for name in FACTS.names or () if name != "fired"}
        fired = {name for place, name in enumerate(names) if int(row["fired"][0]) >> place & 1}
        rows[str(record.id)] = (each, fired, np.array(record.vector, dtype="<f4").tobytes())
    return rows


NUMBERS = st.integers(1, ITEMS)
ACTIONS = st.sampled_from([None, "allow", "flag", "block"])
POINTS = st.lists(
    st.tuples(NUMBERS, st.integers(0, 9), NUMBERS, ACTIONS), min_size=1, max_size=4, unique_by=lambda p: p[0]
)
TAGS = st.integers(0, 2).map(lambda tag: {"must": [{"key": "tag", "match": {"value": tag}}]})
WHICH = st.one_of(
    st.lists(NUMBERS, min_size=1, max_size=4, unique=True).map(lambda some: {"points": [item(each) for each in some]}),
    TAGS.map(lambda filter: {"filter": filter}),
)
WRITES = st.one_of(
    POINTS.map(lambda points: upsert(*((n, seed, payload(m, action)) for n, seed, m, action in points))),
    WHICH.map(lambda which: {"delete": which}),
    st.tuples(WHICH, st.booleans()).map(
        lambda each: {"set_payload": {**each[0], "payload": {"withheld": each[1]}, "key": "crosslens"}}
    ),
    st.tuples(WHICH, ACTIONS).map(lambda each: {"set_payload": {**each[0], "payload": payload(7, each[1], parent=3)}}),
    st.tuples(WHICH, st.integers(0, 2)).map(lambda each: {"set_payload": {**each[0], "payload": {"tag": each[1]}}}),
    st.tuples(WHICH, ACTIONS).map(lambda each: {"overwrite_payload": {**each[0], "payload": payload(5, each[1])}}),
    WHICH.map(lambda which: {"delete_payload": {**which, "keys": ["crosslens.verdict"]}}),
    WHICH.map(lambda which: {"clear_payload": which}),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(WRITES, max_size=4), batches=st.lists(st.lists(WRITES, min_size=1, max_size=3), max_size=8))
def test_it_follows_every_write(tmp_path: Path, before: list[Any], batches: list[list[Any]]) -> None:
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    collection = EdgeCollection.create(tmp_path / "c", size=SIZE, distance="Cosine", metadata={}, optimize_after=10**9)

    def write(operations: list[Any]) -> None:
        try:
            collection.write(operations)
        except Refused as refusal:  # of a point that is not there
            assert "No point with id" in str(refusal)

    for operation in before:
        write([operation])
    assert copied(asked(collection)) == held(collection)
    for operations in batches:
        write(operations)
        assert copied(asked(collection)) == held(collection)
    collection.close()
    opened = EdgeCollection(tmp_path / "c", optimize_after=10**9)
    told = opened.columns.ask()
    assert told["ready"]
    assert copied(told) == held(opened)
    opened.write([upsert((1, 1, payload(1)), (ITEMS + 1, 1, payload(2)))])
    assert copied(asked(opened)) == held(opened)
    opened.close()


def test_it_is_made_beside_writes(collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    collection.write([upsert(*((n, n, payload(n, "flag")) for n in range(1, 41)))])
    collection.columns.ask()
    for number in range(1, 41, 2):
        collection.write([upsert((number, 99, payload(number, "block"))), {"delete": {"points": [item(41 - number)]}}])
    assert copied(asked(collection)) == held(collection)


def test_nothing_is_copied_unasked(collection: EdgeCollection) -> None:
    collection.write([upsert((1, 1, payload(1)))])
    collection.columns.tend()
    assert not (collection.folder / "columns").exists()
    asked(collection)
    collection.columns.drop()
    assert not (collection.folder / "columns").exists()
    collection.write([upsert((2, 1, payload(1)))])
    assert len(copied(asked(collection))) == 2


def test_the_rows_of_what_is_deleted_are_used_again(collection: EdgeCollection) -> None:
    collection.write([upsert(*((n, n, payload(n)) for n in range(1, 9)))])
    asked(collection)
    for _ in range(3):
        collection.write([{"delete": {"points": [item(n) for n in range(1, 9)]}}])
        assert copied(asked(collection)) == {}
        collection.write([upsert(*((n, n, payload(n)) for n in range(1, 9)))])
    assert asked(collection)["rows"] == 8


@pytest.mark.parametrize(
    "spoilt", ["nothing said", "facts cut off", "vectors cut off", "another format", "no names", "no JSON"]
)
def test_what_a_crash_left_is_made_anew(tmp_path: Path, collection: EdgeCollection, spoilt: str) -> None:
    collection.write([upsert((1, 1, payload(1, "allow")), (2, 2, payload(2)))])
    folder = Path(asked(collection)["folder"])
    collection.columns._settle()
    assert (folder / "head.json").exists()
    if spoilt == "nothing said":
        collection.write([{"set_payload": {"payload": {"withheld": True}, "points": [item(1)], "key": "crosslens"}}])
        assert not (folder / "head.json").exists()
    crashed = tmp_path / "crashed"
    shutil.copytree(collection.folder, crashed)
    left = crashed / "columns"
    facts = np.fromfile(left / "facts", dtype=FACTS)
    facts["action"] = 4
    facts.tofile(left / "facts")
    match spoilt:
        case "facts cut off":
            os.truncate(left / "facts", FACTS.itemsize)
        case "vectors cut off":
            os.truncate(left / "vectors", 5)
        case "another format":
            head = json.loads((left / "head.json").read_text())
            (left / "head.json").write_text(json.dumps({**head, "format": 0}))
        case "no names":
            (left / "head.json").write_text((left / "head.json").read_text().replace("names", "nouns"))
        case "no JSON":
            (left / "head.json").write_text("[")
    opened = EdgeCollection(crashed, optimize_after=10**9)
    opened.columns.tend()
    assert copied(asked(opened)) == held(opened)
    opened.close()


def test_it_is_called_whole_when_nobody_writes(collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.write([upsert((1, 1, payload(1)))])
    folder = Path(asked(collection)["folder"])
    collection.columns.tend()
    assert not (folder / "head.json").exists()  # somebody has just written
    monkeypatch.setattr(module, "_QUIET_SECONDS", -1.0)
    collection.columns.tend()
    assert json.loads((folder / "head.json").read_text())["rows"] == 1


def test_a_full_disk_costs_the_copy_alone(collection: EdgeCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.write([upsert((1, 1, payload(1)))])
    folder = Path(asked(collection)["folder"])

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        collection.write([upsert((2, 2, payload(2)))])
    assert len(held(collection)) == 2
    assert not folder.exists()
    with pytest.raises(Refused):
        collection.columns.ask()  # not at once again
    monkeypatch.setattr(collection.columns, "_not_before", 0.0)
    assert len(copied(asked(collection))) == 2


def test_a_folder_that_somebody_removed_is_let_go_of(tmp_path: Path) -> None:
    made = EdgeCollection.create(tmp_path / "c", size=SIZE, distance="Cosine", metadata={}, optimize_after=10**9)
    made.write([upsert((1, 1, payload(1)))])
    asked(made)
    shutil.rmtree(tmp_path / "c" / "columns")
    made.close()
    with pytest.raises(FileNotFoundError):
        sync_files(tmp_path / "gone")


def test_points_that_are_no_items_have_no_columns(collection: EdgeCollection) -> None:
    collection.write([{"upsert": {"points": [{"id": 7, "vector": [1.0, 0, 0, 0]}]}}])
    with pytest.raises(Refused):  # at the first question, or once its thread has seen it
        while not collection.columns.ask()["ready"]:
            time.sleep(0.01)


def test_a_write_that_is_refused_halfway_is_copied_as_far_as_it_went(collection: EdgeCollection) -> None:
    collection.write([upsert((1, 1, payload(1)))])
    asked(collection)
    missing = {"set_payload": {"payload": {"a": 1}, "points": [item(99)]}}
    with pytest.raises(Refused):
        collection.write([upsert((2, 2, payload(2))), missing])
    assert copied(asked(collection)) == held(collection)
    assert len(held(collection)) == 2


def test_it_outlives_a_generation(tmp_path: Path) -> None:
    made = EdgeCollection.create(tmp_path / "c", size=128, distance="Cosine", metadata={}, optimize_after=10**9)
    vectors = np.random.default_rng(0).normal(size=(2500, 128))
    points = [{"id": item(n + 1), "vector": v.tolist(), "payload": payload(n)} for n, v in enumerate(vectors)]
    made.write([{"upsert": {"points": points}}])
    asked(made)
    made.build_all()
    assert made.description["generation"] == 2
    made.write([{"set_payload": {"payload": {"withheld": True}, "key": "crosslens", "points": [item(5)]}}])
    assert copied(asked(made)) == held(made)
    made.close()
    opened = EdgeCollection(tmp_path / "c", optimize_after=10**9)
    assert opened.columns.ask()["ready"]
    assert copied(asked(opened))[item(5)][0]["bits"][0] & WITHHELD
    opened.close()


IDS = st.integers(0, 40).map(lambda number: (number << 8).to_bytes(16))


@given(
    first=st.sets(IDS, max_size=8), steps=st.lists(st.tuples(st.booleans(), IDS), max_size=60), few=st.integers(0, 9)
)
def test_places_are_a_dictionary(first: set[bytes], steps: list[tuple[bool, bytes]], few: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.edge.places._FEW", few)
        known = {each: place for place, each in enumerate(sorted(first, key=hash))}
        places = Places(np.array(list(known), dtype="S16"), np.array(list(known.values()), dtype=np.int64))
        for number, (adds, each) in enumerate(steps, len(first)):
            if not adds:
                assert places.remove(each) == known.pop(each, None)
            elif each not in known:
                known[each] = number
                places.add(each, number)
            every = [(each << 8).to_bytes(16) for each in range(41)]
            assert places.find(np.array(every, dtype="S16")).tolist() == [known.get(each, -1) for each in every]
