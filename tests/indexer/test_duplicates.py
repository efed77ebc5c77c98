"""Duplicates: nothing within the threshold is missed, groups are as defined, and a killed search goes on."""

import io
import signal
import subprocess
import sys
import threading
import tracemalloc
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.duplicates import By, Duplicates, Entry, HashIndex, compare, find_duplicates, gather, hashes, search
from indexer.duplicates.hashes import as_words, compare_all
from indexer.edge.files import FileLock
from indexer.errors import InvalidRequest, InvalidVector, TooBusy
from indexer.media.decode import decode
from indexer.media.pdq import pdq

MEDIA = Path(__file__).resolve().parents[2] / "examples" / "media"
START = datetime(2024, 5, 1, tzinfo=UTC)


# What is known to be right, and slow.


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.bitwise_count(left[:, None, :] ^ right[None, :, :]).sum(axis=-1, dtype=int)


def flip(value: np.ndarray, bits: Sequence[int]) -> np.ndarray:
    changed = np.unpackbits(value)
    changed[list(bits)] ^= 1
    return np.packbits(changed)


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def crowd(count: int, seed: int = 0) -> np.ndarray:
    """A third alone; the others are versions of those, up to 45 bits apart."""
    chance = np.random.default_rng(seed)
    alone = random_hashes(max(1, count // 3), seed)
    rest = [
        flip(alone[chance.integers(len(alone))], chance.choice(256, chance.integers(0, 46), replace=False))
        for _ in range(count - len(alone))
    ]
    return np.concatenate((alone, np.array(rest, dtype=np.uint8).reshape(-1, 32)))


def as_defined(entries: list[Entry], distance: np.ndarray, threshold: float) -> dict[str, list[tuple[str, float]]]:
    """Groups by the definition, word for word."""
    order = sorted(range(len(entries)), key=lambda i: (-entries[i].pixels, entries[i].added_at, entries[i].id))
    representatives: list[int] = []
    groups: dict[str, list[tuple[str, float]]] = {}
    for item in order:
        near = [(distance[item, each], place) for place, each in enumerate(representatives)]
        near = [(far, place) for far, place in near if far <= threshold]
        if not near:
            representatives.append(item)
            continue
        far, place = min(near)
        groups.setdefault(entries[representatives[place]].id, []).append((entries[item].id, float(far)))
    return {owner: sorted(groups[owner], key=lambda m: (m[1], m[0])) for owner in sorted(groups)}


def entries_of(values: np.ndarray, seed: int = 0) -> list[Entry]:
    """Items with these hashes; few sizes and times, so that ties are decided."""
    chance = np.random.default_rng(seed)
    return [
        Entry(
            str(uuid.UUID(bytes=chance.bytes(15) + b"\0")),  # NumPy is fond of dropping that zero
            int(chance.integers(1, 4)) * 1000,
            START + timedelta(seconds=int(chance.integers(4))),
            pdq=value.tobytes().hex(),
            pdq_quality=100,
        )
        for value in values
    ]


def batches(entries: Sequence[Entry], size: int = 50) -> Iterator[Sequence[Entry]]:
    for at in range(0, len(entries), size):
        yield entries[at : at + size]


def groups_of(found: Duplicates | None) -> dict[str, list[tuple[str, float]]]:
    assert found is not None
    groups = {group.representative: group.members for group in found}
    assert len(groups) == found.groups_count
    assert list(groups) == sorted(groups)
    return groups


# One hash against many.


@pytest.fixture
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables from 8 hashes on, and few comparisons at once."""
    monkeypatch.setattr(hashes, "_TAIL", 8)
    monkeypatch.setattr(hashes, "_AT_ONCE", 64)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_neighbours_at_the_threshold_are_found_and_one_bit_beyond_are_not(data: st.DataObject) -> None:
    threshold = data.draw(st.sampled_from([31, 31, 0, 7, 16, 40, 47]))
    base = random_hashes(12, data.draw(st.integers(0, 999)))
    places = st.permutations(range(256))
    planted = []
    for value in base[:6]:
        bits = data.draw(places)
        planted += [flip(value, bits[:threshold]), flip(value, bits[: threshold + 1])]
    stored = np.concatenate((base, np.array(planted)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "_TAIL", data.draw(st.sampled_from([4, 2048])))
        index = HashIndex()
        for at in range(0, len(stored), 5):
            index.add(np.arange(at, min(at + 5, len(stored))), stored[at : at + 5])
        found = index.within_each(base, threshold)
    expected = distances(base, stored)
    pairs = set(zip(found.query.tolist(), found.key.tolist(), found.distance.tolist(), strict=True))
    assert len(pairs) == len(found.key)
    assert pairs == {(q, k, int(expected[q, k])) for q, k in zip(*np.nonzero(expected <= threshold), strict=True)}


@pytest.mark.parametrize("threshold", [15, 16, 30, 31, 32, 46, 47])
@pytest.mark.parametrize("spared", range(16))
def test_bits_spread_over_the_bands_as_evenly_as_can_be_are_found(
    small_tables: None, threshold: int, spared: int
) -> None:
    # The worst case of the pigeonhole argument: every band but one has its share and one more.
    counts = [threshold // 16 + (band < threshold % 16) for band in range(16)]
    bits = [16 * ((band + spared) % 16) + place for band, count in enumerate(counts) for place in range(count)]
    stored = np.concatenate((random_hashes(40), [flip(random_hashes(1, 7)[0], bits)]))
    index = HashIndex()
    index.add(np.arange(41), stored)
    assert index.within(random_hashes(1, 7)[0].tobytes(), threshold) == [(40, threshold)]
    assert index.within(random_hashes(1, 7)[0].tobytes(), threshold - 1) == []


def test_all_pairs_of_five_thousand_are_those_of_brute_force() -> None:
    values = crowd(5000)
    index = HashIndex()
    index.add(np.arange(5000), values)
    for threshold in (0, 10, 31, 47):
        found = index.within_each(values, threshold)
        pairs = {*zip(found.query.tolist(), found.key.tolist(), found.distance.tolist(), strict=True)}
        expected = set()
        for left, right, bits in compare_all(as_words(values), as_words(values), threshold):
            expected |= {*zip(left.tolist(), right.tolist(), bits.tolist(), strict=True)}
        assert pairs == expected
        assert len(pairs) == len(found.key) > 5000 - (threshold > 0)
    some = distances(values[:200], values)  # what brute force itself is measured by
    assert {(q, k) for q, k, _ in pairs if q < 200} == set(
        zip(*map(np.ndarray.tolist, np.nonzero(some <= 47)), strict=True)
    )


def test_a_threshold_too_wide_for_the_tables_is_exact_too(small_tables: None) -> None:
    values = random_hashes(60)
    index = HashIndex()
    index.add(np.arange(60), values)
    expected = distances(values[:1], values)[0]
    for threshold in (48, 120, 128, 256):
        found = index.within(values[0].tobytes(), threshold)
        assert sorted(found) == [(key, int(far)) for key, far in enumerate(expected) if far <= threshold]


def test_hashes_are_removed_and_keys_may_be_shared(small_tables: None) -> None:
    values = random_hashes(50)
    index = HashIndex()
    for key, value in enumerate(values):
        index.add([key // 2], [value.tobytes()])
    assert len(index) == 50
    assert index.within(values[7].tobytes(), 0) == [(3, 0)]
    assert index.remove([3, 999]) == 2
    assert index.remove([3]) == 0
    assert len(index) == 48
    assert index.within(values[7].tobytes(), 0) == []
    assert index.within(values[8].tobytes(), 0) == [(4, 0)]
    index.add([3], [values[7].tobytes()])
    assert index.within(values[7].tobytes(), 0) == [(3, 0)]


def test_an_index_is_saved_without_what_was_removed_and_loaded(tmp_path: Path, small_tables: None) -> None:
    values = random_hashes(30)
    index = HashIndex()
    index.add(np.arange(30), values)
    index.remove([4])
    index.save(tmp_path / "hashes.npy")
    assert (tmp_path / "hashes.npy").stat().st_size < 29 * 40 + 256
    loaded = HashIndex.load(tmp_path / "hashes.npy")
    assert len(loaded) == 29
    assert loaded.within(values[5].tobytes()) == [(5, 0)]
    assert loaded.within(values[4].tobytes()) == []


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array at all", None])
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "hashes.npy"
    if content is None:
        np.save(path, np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest):
        HashIndex.load(path)


def test_what_is_no_hash_is_refused() -> None:
    index = HashIndex()
    for keys, values in [([1], [b"short"]), ([1, 2], [bytes(32)]), ([1], np.zeros((1, 31), np.uint8))]:
        with pytest.raises(InvalidRequest):
            index.add(keys, values)
    for threshold in (-1, 257):
        with pytest.raises(InvalidRequest):
            index.within(bytes(32), threshold)
    assert len(index) == 0
    assert index.within(bytes(32)) == []


def test_a_bucket_of_twenty_thousand_takes_bounded_memory() -> None:
    values = random_hashes(20_000)
    values[:, :8] = 7  # four bands are the same in all
    index = HashIndex()
    index.add(np.arange(20_000), values)
    tracemalloc.start()
    try:
        found = index.within_each(values[:500], 31)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.key) == 500
    assert most < 30 * 2**20  # all candidates at once would be 40 million of them


# Groups over a collection.


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch, small_tables: None) -> None:
    """Blocks of 16 items, saved after each."""
    monkeypatch.setattr(search, "_BLOCK", 16)
    monkeypatch.setattr(search, "_SAVE_SECONDS", 0.0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 150), block=st.sampled_from([1, 16, 2048]))
def test_groups_of_pictures_are_as_defined(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, block: int
) -> None:
    values = crowd(count, seed) if count else np.empty((0, 32), np.uint8)
    entries = entries_of(values, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_BLOCK", block)
        patch.setattr(hashes, "_TAIL", 16)
        patch.setattr(compare, "_TRIANGLE", 8)
        found = find_duplicates(batches(entries), by=By.PICTURE, folder=tmp_path_factory.mktemp("search"))
    assert groups_of(found) == as_defined(entries, distances(values, values), 31)


def test_the_answer_does_not_depend_on_the_order_of_the_items(tmp_path: Path, small_blocks: None) -> None:
    entries = entries_of(crowd(200))
    answers = []
    for run in range(3):
        shuffled = [entries[i] for i in np.random.default_rng(run).permutation(len(entries))]
        answers.append(groups_of(find_duplicates(batches(shuffled), by=By.PICTURE, folder=tmp_path / str(run))))
    assert answers[0] == answers[1] == answers[2] != {}


def test_groups_do_not_grow_by_chains(tmp_path: Path) -> None:
    first = random_hashes(1)[0]
    chain = [flip(first, range(20 * link)) for link in range(5)]
    entries = [
        replace(entry, pixels=1000, added_at=START + timedelta(seconds=age))
        for age, entry in enumerate(entries_of(np.array(chain)))
    ]
    found = groups_of(find_duplicates([entries], by=By.PICTURE, folder=tmp_path))
    # 0 has 1; 2 is 40 bits from 0 and stands for itself and 3; 4 is 40 from 2.
    assert found == {entries[0].id: [(entries[1].id, 20.0)], entries[2].id: [(entries[3].id, 20.0)]}


def test_the_largest_then_the_oldest_stands_for_the_group(tmp_path: Path) -> None:
    one, two, three = entries_of(np.repeat(random_hashes(1), 3, axis=0))
    one, two, three = (
        replace(one, pixels=100, added_at=START),
        replace(two, pixels=900, added_at=START + timedelta(days=2)),
        replace(three, pixels=900, added_at=START + timedelta(days=1)),
    )
    found = groups_of(find_duplicates([[one, two, three]], by=By.PICTURE, folder=tmp_path))
    assert {owner: {member for member, _ in members} for owner, members in found.items()} == {
        three.id: {one.id, two.id}
    }


def test_flat_pictures_and_those_without_a_hash_are_left_out_and_counted(tmp_path: Path) -> None:
    entries = entries_of(np.repeat(random_hashes(1), 6, axis=0))
    entries[2] = replace(entries[2], pdq_quality=49)
    entries[3] = replace(entries[3], pdq_quality=None)
    entries[4] = replace(entries[4], pdq=None)
    entries[5] = replace(entries[5], pdq="zz" * 32)
    found = find_duplicates([entries], by=By.PICTURE, folder=tmp_path)
    assert found is not None
    assert (found.compared, found.left_out, found.exact) == (2, 4, True)
    assert [{group.representative, *dict(group.members)} for group in found] == [{entries[0].id, entries[1].id}]


@pytest.mark.parametrize("by", By)
def test_nothing_has_no_duplicates(tmp_path: Path, by: By) -> None:
    found = find_duplicates(iter([[]]), by=by, folder=tmp_path)
    assert found is not None
    assert (found.compared, list(found)) == (0, [])


def test_an_item_that_comes_twice_is_no_duplicate_of_itself(tmp_path: Path) -> None:
    entries = entries_of(random_hashes(3))
    found = find_duplicates([entries, entries], by=By.PICTURE, folder=tmp_path)
    assert found is not None
    assert found.compared == 3
    assert groups_of(found) == {}


def test_groups_of_the_same_bytes(tmp_path: Path, small_blocks: None) -> None:
    digests = ["%064x" % (place % 23 << 8) for place in range(60)]
    entries = [
        replace(entry, sha256=digest) for entry, digest in zip(entries_of(random_hashes(60)), digests, strict=True)
    ]
    same = np.array([[0.0 if one == other else 1.0 for other in digests] for one in digests])
    found = find_duplicates(batches(entries), by=By.BYTES, folder=tmp_path)
    assert groups_of(found) == as_defined(entries, same, 0)


def vectors_of(count: int, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(count // 4 + 1, 24))
    return (centres[chance.integers(0, len(centres), count)] + 0.35 * chance.normal(size=(count, 24))).astype(
        np.float32
    )


def with_vectors(vectors: np.ndarray) -> tuple[list[Entry], np.ndarray]:
    entries = [
        replace(entry, vector=vector)
        for entry, vector in zip(entries_of(random_hashes(len(vectors))), vectors, strict=True)
    ]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return entries, 1 - unit @ unit.T


def rounded(groups: dict[str, list[tuple[str, float]]]) -> dict[str, dict[str, float]]:
    return {owner: {member: round(far, 4) for member, far in members} for owner, members in groups.items()}


def test_groups_of_what_is_alike(tmp_path: Path, small_blocks: None) -> None:
    entries, distance = with_vectors(vectors_of(200))
    found = find_duplicates(batches(entries), by=By.ALIKE, threshold=0.9, folder=tmp_path)
    assert found is not None
    assert found.exact
    expected = as_defined(entries, distance, 0.1)
    assert rounded(groups_of(found)) == rounded(expected) != {}


@pytest.mark.parametrize("one_sided", [False, True])
def test_neighbours_of_the_index_give_the_same_groups_if_they_miss_nothing(
    tmp_path: Path, small_blocks: None, one_sided: bool
) -> None:
    entries, distance = with_vectors(vectors_of(150))
    places = {entry.id: place for place, entry in enumerate(entries)}

    def neighbours(ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        lists = []
        for each in ids:
            near = [place for place in range(150) if not one_sided or place > places[each]]
            found = [(entries[place].id, 1 - float(distance[places[each], place])) for place in near]
            lists.append([*found, (str(uuid.uuid4()), 0.99)])  # one that came into the index since
        return lists

    found = find_duplicates(batches(entries), by=By.ALIKE, threshold=0.9, folder=tmp_path, neighbours=neighbours)
    assert found is not None
    assert not found.exact
    assert rounded(groups_of(found)) == rounded(as_defined(entries, distance, 0.1))


def test_of_two_representatives_as_near_the_better_one_has_the_member(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_BLOCK", 1)
    best, second, member = (
        replace(entry, pixels=pixels)
        for entry, pixels in zip(entries_of(random_hashes(3)), (900, 500, 100), strict=True)
    )
    # The best does not have the member in its list; so the second one, whose turn comes earlier, has it first.
    lists = {best.id: [], second.id: [(member.id, 0.96)], member.id: [(best.id, 0.96)]}
    found = find_duplicates(
        [[member, second, best]], by=By.ALIKE, folder=tmp_path, neighbours=lambda ids: [lists[each] for each in ids]
    )
    assert {owner: [each for each, _ in members] for owner, members in groups_of(found).items()} == {
        best.id: [member.id]
    }


def test_what_belongs_to_a_group_is_not_compared_with_again(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[HashIndex] = []

    def watched() -> HashIndex:
        made.append(HashIndex())
        return made[-1]

    monkeypatch.setattr(compare, "HashIndex", watched)
    values = random_hashes(5)[np.arange(300) % 5]
    found = find_duplicates(batches(entries_of(values)), by=By.PICTURE, folder=tmp_path)
    assert found is not None
    assert [len(index) for index in made] == [found.groups_count] == [5]


def test_a_vector_equals_itself_at_a_threshold_of_one(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 77)).astype(np.float32)
    entries, _ = with_vectors(np.repeat(vectors, 2, axis=0))
    found = find_duplicates([entries], by=By.ALIKE, threshold=1.0, folder=tmp_path)
    assert len(groups_of(found)) == 200


def test_too_many_vectors_are_refused_and_a_vector_without_length_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, _ = with_vectors(vectors_of(20))
    monkeypatch.setattr(gather, "EXACT_VECTORS", 19)
    with pytest.raises(InvalidRequest, match="19"):
        find_duplicates([entries], by=By.ALIKE, folder=tmp_path)
    entries[0] = replace(entries[0], vector=np.zeros(24, np.float32))
    entries[1] = replace(entries[1], vector=np.full(24, np.nan, np.float32))
    found = find_duplicates([entries], by=By.ALIKE, folder=tmp_path)
    assert found is not None
    assert (found.compared, found.left_out) == (18, 2)


@pytest.mark.parametrize("vector", [None, np.ones(23, np.float32)])
def test_vectors_of_another_dimension_or_none_are_refused(tmp_path: Path, vector: np.ndarray | None) -> None:
    entries, _ = with_vectors(vectors_of(4))
    entries[2] = replace(entries[2], vector=vector)
    with pytest.raises(InvalidVector):
        find_duplicates([entries], by=By.ALIKE, folder=tmp_path)


@pytest.mark.parametrize(
    ("by", "threshold"),
    [(By.BYTES, 3), (By.PICTURE, -1), (By.PICTURE, 48), (By.PICTURE, 3.5), (By.ALIKE, 0), (By.ALIKE, 1.1),
     (By.ALIKE, float("nan")), (By.PICTURE, float("nan"))],
)  # fmt: skip
def test_a_threshold_without_sense_is_refused(tmp_path: Path, by: By, threshold: float) -> None:
    with pytest.raises(InvalidRequest):
        find_duplicates([], by=by, threshold=threshold, folder=tmp_path)


def test_groups_are_paged_from_any_id_on(tmp_path: Path, small_blocks: None) -> None:
    found = find_duplicates(batches(entries_of(crowd(300))), by=By.PICTURE, folder=tmp_path)
    assert found is not None
    whole = list(found)
    assert len(whole) > 10
    paged, after = [], None
    while page := [group for group, _ in zip(found.groups(after), range(7), strict=False)]:
        paged += page
        after = page[-1].representative
    assert paged == whole
    assert list(found.groups("00000000-0000-0000-0000-000000000000")) == whole
    with pytest.raises(InvalidRequest):
        found.groups("not an id")


# Stopped, killed, resumed.


def never_read() -> Iterator[Sequence[Entry]]:
    raise AssertionError("the stream was read again")
    yield []


def test_a_stopped_search_goes_on_and_a_finished_one_answers_at_once(tmp_path: Path, small_blocks: None) -> None:
    entries = entries_of(crowd(200))
    expected = groups_of(find_duplicates(batches(entries), by=By.PICTURE, folder=tmp_path / "whole"))
    stop = threading.Event()
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        assert total == 200
        seen.append(done)
        if len(seen) % 4 == 0:
            stop.set()

    folder, runs, found = tmp_path / "stopped", 0, None
    while found is None:
        stop.clear()
        items = batches(entries) if not runs else never_read()
        found = find_duplicates(items, by=By.PICTURE, folder=folder, progress=progress, stop=stop)
        runs += 1
    assert runs == 4
    assert seen == [*range(16, 200, 16), 200]
    assert groups_of(found) == expected
    assert groups_of(find_duplicates(never_read(), by=By.PICTURE, folder=folder)) == expected
    assert {path.suffix for path in folder.iterdir()} <= {".npy", ".json", ""}
    assert len(list(folder.glob("claims-*"))) == 1


def test_a_stream_that_was_stopped_is_read_again(tmp_path: Path) -> None:
    entries, stop = entries_of(crowd(100)), threading.Event()

    def interrupted() -> Iterator[Sequence[Entry]]:
        yield entries[:50]
        stop.set()
        yield entries[50:]

    assert find_duplicates(interrupted(), by=By.PICTURE, folder=tmp_path, stop=stop) is None
    with pytest.raises(InvalidRequest, match="no finished search"):
        Duplicates(tmp_path)
    found = find_duplicates(batches(entries), by=By.PICTURE, folder=tmp_path)
    assert found is not None
    assert found.compared == 100


KILLED = """
import os, signal, sys
from pathlib import Path
from indexer.duplicates import By, find_duplicates, search
from tests.indexer.test_duplicates import batches, crowd, entries_of
search._BLOCK, search._SAVE_SECONDS = 16, 0.0
def progress(done, total):
    if done >= total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
find_duplicates(batches(entries_of(crowd(400))), by=By.PICTURE, folder=Path(sys.argv[1]), progress=progress)
"""


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path, small_blocks: None) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed")], check=False, cwd=MEDIA.parents[1])
    assert done.returncode == -signal.SIGKILL
    seen: list[int] = []
    found = find_duplicates(
        never_read(), by=By.PICTURE, folder=tmp_path / "killed", progress=lambda at, _: seen.append(at)
    )
    assert 150 < seen[0] < 250
    entries = entries_of(crowd(400))
    assert groups_of(found) == groups_of(find_duplicates([entries], by=By.PICTURE, folder=tmp_path / "whole"))


def test_a_folder_holds_one_search_and_one_process(tmp_path: Path) -> None:
    entries = entries_of(crowd(20))
    find_duplicates([entries], by=By.PICTURE, folder=tmp_path)
    for by, threshold in [(By.PICTURE, 30), (By.BYTES, None)]:
        with pytest.raises(InvalidRequest, match="another search"):
            find_duplicates([entries], by=by, threshold=threshold, folder=tmp_path)
    (tmp_path / "state.json").write_text('{"of": "another version"}')
    with pytest.raises(InvalidRequest, match="this version"):
        find_duplicates([entries], by=By.PICTURE, folder=tmp_path)
    lock = FileLock(tmp_path / "lock")
    assert lock.try_acquire()
    with pytest.raises(TooBusy):
        find_duplicates([entries], by=By.PICTURE, folder=tmp_path)
    lock.close()


# From photos to groups.


def test_versions_of_photos_come_together_and_nothing_else(tmp_path: Path) -> None:
    entries, versions = [], {}
    for place, name in enumerate(["cat.jpg", "pagoda.jpg", "rocket.jpg", "admiral.jpg"]):
        image = decode((MEDIA / name).read_bytes(), max_pixels=10**8).image
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60)
        small = image.resize((image.width // 2, image.height // 2))
        turned = image.transpose(Image.Transpose.ROTATE_90)
        for version in (image, Image.open(file).convert("RGB"), small, turned):
            found, quality = pdq(version)
            entry = Entry(
                str(uuid.uuid4()), version.width * version.height, START + timedelta(seconds=len(entries)),
                pdq=found.hex(), pdq_quality=quality,
            )  # fmt: skip
            versions[entry.id] = (place, version is turned)
            entries.append(entry)
    found = find_duplicates([entries], by=By.PICTURE, folder=tmp_path)
    assert found is not None
    groups = [[versions[each] for each in (group.representative, *dict(group.members))] for group in found]
    assert sorted(groups) == [[(place, False)] * 3 for place in range(4)]
