"""Features are kept in memory and on disk, within their caps; what is damaged is looked at again."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import MediaStoreUnavailable
from indexer.items import Kind, Location, Record, now
from indexer.media.blobs import Folder
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.reranker import Features, Reranker
from indexer.rerank.features import FeatureCache, discard_features, feature_key
from indexer.settings import Settings
from tests.rerankers import DEPTH, QUERIES, TOKENS, WIDTH, make_reranker

SIZE = 2 * (TOKENS * WIDTH + QUERIES * DEPTH)
ON_DISK = SIZE + 32


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    return Reranker(load_rerank_bundle(make_reranker(tmp_path_factory.mktemp("rerankers"))))


@pytest.fixture
def cache(reranker: Reranker, settings: Settings) -> FeatureCache:
    return FeatureCache(reranker, settings)


def features(seed: int) -> Features:
    chance = np.random.default_rng(seed)
    return Features(
        chance.standard_normal((TOKENS, WIDTH)).astype(np.float16),
        chance.standard_normal((QUERIES, DEPTH)).astype(np.float16),
    )


def same(one: Features | None, other: Features) -> bool:
    return (
        one is not None
        and np.array_equal(one.features, other.features)
        and np.array_equal(one.queries, other.queries)
        and one.features.dtype == one.queries.dtype == np.float16
    )


def key(number: int) -> str:
    return f"{number:064x}"


def record(**changes: object) -> Record:
    location = Location(source="/a.png")
    given: dict[str, object] = {"kind": Kind.IMAGE, "sha256": "ab" * 32, "locations": [location], "bytes": 1}
    return Record(**{**given, "media_type": "image/png", "added_at": now(), **changes})  # type: ignore[arg-type]


def files(settings: Settings) -> list[Path]:
    return [path for path in settings.rerank_folder.rglob("*") if path.is_file()]


def test_what_was_put_comes_back_from_memory_and_from_disk(
    cache: FeatureCache, reranker: Reranker, settings: Settings
) -> None:
    assert cache.get(key(1)) is None
    assert not cache.has(key(1))
    cache.put(key(1), features(1))
    assert same(cache.get(key(1)), features(1))
    later = FeatureCache(reranker, settings)
    assert later.has(key(1))
    assert same(later.get(key(1)), features(1))
    assert later.nbytes == SIZE
    (path,) = files(settings)
    assert path.parts[-3] == reranker.fingerprint
    assert path.stat().st_size == ON_DISK


def test_another_bundle_has_features_of_its_own(cache: FeatureCache, settings: Settings, tmp_path: Path) -> None:
    other = Reranker(load_rerank_bundle(make_reranker(tmp_path, weight=0.5)))
    cache.put(key(1), features(1))
    assert FeatureCache(other, settings).get(key(1)) is None


def test_the_longest_unused_leave_memory_first(reranker: Reranker, settings: Settings) -> None:
    small = settings.model_copy(update={"rerank_memory_bytes": 3 * SIZE, "rerank_cache_bytes": 0})
    cache = FeatureCache(reranker, small)
    for number in range(3):
        cache.put(key(number), features(number))
    assert cache.get(key(0)) is not None
    cache.put(key(3), features(3))
    assert [cache.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    cache.put(key(3), features(4))  # again: counted once
    assert cache.nbytes == 3 * SIZE
    assert all(cache.get(key(number)) is not None for number in (0, 2, 3))
    assert files(settings) == []


def test_memory_that_holds_none_keeps_none(reranker: Reranker, settings: Settings) -> None:
    cache = FeatureCache(reranker, settings.model_copy(update={"rerank_memory_bytes": SIZE - 1}))
    cache.put(key(1), features(1))
    assert cache.nbytes == 0
    assert same(cache.get(key(1)), features(1))  # from the disk


def test_the_longest_unused_leave_the_disk_first(reranker: Reranker, settings: Settings) -> None:
    tight = settings.model_copy(update={"rerank_cache_bytes": 10 * ON_DISK, "rerank_memory_bytes": 0})
    cache = FeatureCache(reranker, tight)
    for number in range(10):
        cache.put(key(number), features(number))
        path = next(each for each in files(settings) if each.name == key(number))
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    assert cache.get(key(0)) is not None  # used just now
    cache.put(key(10), features(10))
    there = {number for number in range(11) if cache.has(key(number))}
    assert there == {0, *range(3, 11)}  # 0.9 of the cap is left
    assert sum(path.stat().st_size for path in files(settings)) <= 10 * ON_DISK


def test_what_is_for_later_is_on_disk_alone(cache: FeatureCache, reranker: Reranker, settings: Settings) -> None:
    cache.write(key(1), features(1))
    assert cache.nbytes == 0
    assert cache.has(key(1))
    assert same(FeatureCache(reranker, settings).get(key(1)), features(1))


@pytest.mark.parametrize("cap", [0, 5 * ON_DISK])
def test_what_was_kept_under_a_larger_cap_goes(
    cache: FeatureCache, reranker: Reranker, settings: Settings, cap: int
) -> None:
    for number in range(10):
        cache.put(key(number), features(number))
    FeatureCache(reranker, settings.model_copy(update={"rerank_cache_bytes": 11 * ON_DISK})).trim()
    assert len(files(settings)) == 10
    smaller = FeatureCache(reranker, settings.model_copy(update={"rerank_cache_bytes": cap}))
    smaller.trim()
    assert sum(path.stat().st_size for path in files(settings)) <= cap
    assert smaller.takes == bool(cap)


def test_what_is_used_from_memory_alone_is_used_on_disk_too(cache: FeatureCache, settings: Settings) -> None:
    cache.put(key(1), features(1))
    (path,) = files(settings)
    os.utime(path, (1_000_000, 1_000_000))
    assert cache.get(key(1)) is not None
    assert path.stat().st_mtime > 1_000_000


def test_features_of_former_bundles_count_and_go_too(reranker: Reranker, settings: Settings) -> None:
    folder = Folder(settings.rerank_folder)
    folder.write("0123456789abcdef/00/" + key(0), bytes(5 * ON_DISK))
    os.utime(settings.rerank_folder / "0123456789abcdef/00" / key(0), (1_000_000, 1_000_000))
    cache = FeatureCache(reranker, settings.model_copy(update={"rerank_cache_bytes": 5 * ON_DISK}))
    cache.put(key(1), features(1))
    assert [path.name for path in files(settings)] == [key(1)]


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "empty", "another's", "not finite"])
def test_what_is_damaged_is_a_miss(cache: FeatureCache, reranker: Reranker, settings: Settings, damage: str) -> None:
    cache.put(key(1), features(1))
    (path,) = files(settings)
    content = bytearray(path.read_bytes())
    match damage:
        case "cut":
            path.write_bytes(content[:-1])
        case "longer":
            path.write_bytes(content + b"\0")
        case "flipped":
            content[7] ^= 1
            path.write_bytes(content)
        case "empty":
            path.write_bytes(b"")
        case "another's":  # whole, but of another picture
            path.rename(path.with_name(key(2)))
        case "not finite":  # by somebody who knows how the hash is made
            values = np.frombuffer(content[:SIZE], "<f2").copy()
            values[5] = np.inf
            path.write_bytes(values.tobytes() + cache._digest(key(1), values.tobytes()))
    wanted = key(2) if damage == "another's" else key(1)
    later = FeatureCache(reranker, settings)
    assert later.get(wanted) is None
    later.put(wanted, features(2))
    assert same(FeatureCache(reranker, settings).get(wanted), features(2))


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=2 * ON_DISK))
def test_any_bytes_are_a_miss(cache: FeatureCache, settings: Settings, content: bytes) -> None:
    Folder(settings.rerank_folder).write(f"{cache._fingerprint}/{key(9)[:2]}/{key(9)}", content)
    assert cache.get(key(9)) is None


def test_a_disk_that_is_full_is_a_warning_and_no_error(
    cache: FeatureCache, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []

    def full(self: Folder, path: str, content: object) -> None:
        writes.append(path)
        raise MediaStoreUnavailable("No space left on device.")

    monkeypatch.setattr(Folder, "write", full)
    with structlog.testing.capture_logs() as logs:
        for number in range(20):
            cache.put(key(number), features(number))
    assert [entry["event"] for entry in logs] == ["features not kept on disk"]  # once, not once a picture
    assert len(writes) == 1
    assert not cache.takes
    assert same(cache.get(key(7)), features(7))


def test_a_folder_that_cannot_be_read_is_a_warning_and_no_error(reranker: Reranker, settings: Settings) -> None:
    settings.rerank_folder.parent.mkdir(parents=True, exist_ok=True)
    settings.rerank_folder.write_bytes(b"a file where the folder should be")
    cache = FeatureCache(reranker, settings)
    with structlog.testing.capture_logs() as logs:
        assert cache.get(key(1)) is None
        assert not cache.has(key(1))
        cache.put(key(1), features(1))
    assert {entry["log_level"] for entry in logs} == {"warning"}
    assert same(cache.get(key(1)), features(1))


def test_several_caches_share_a_folder(reranker: Reranker, settings: Settings) -> None:
    tight = settings.model_copy(update={"rerank_cache_bytes": 40 * ON_DISK, "rerank_memory_bytes": 5 * SIZE})
    caches = [FeatureCache(reranker, tight) for _ in range(4)]
    start = threading.Barrier(4)

    def work(cache: FeatureCache) -> int:
        start.wait()
        found = 0
        for number in range(60):
            cache.put(key(number), features(number))
            got = cache.get(key(59 - number))
            assert got is None or same(got, features(59 - number))
            found += got is not None
        return found

    with ThreadPoolExecutor(4) as threads:
        assert min(threads.map(work, caches)) > 0
    assert sum(path.stat().st_size for path in files(settings)) <= 44 * ON_DISK
    assert all(cache.nbytes <= 5 * SIZE for cache in caches)


def test_an_item_with_other_content_has_another_key() -> None:
    one = record()
    assert feature_key(one) == feature_key(record(name="other", locations=[]))  # the picture is the same
    frames = [record(kind=Kind.VIDEO, parent="p", seconds=at) for at in (0.0, 2.5)]
    pages = [record(kind=Kind.PAGE, parent="p", page=at) for at in (1, 2)]
    others = [record(sha256="cd" * 32), record(sha256="../../../etc/passwd")]
    keys = {feature_key(each) for each in [one, *frames, *pages, *others]}
    assert len(keys) == 7
    assert all(len(each) == 64 and set(each) <= set("0123456789abcdef") for each in keys)


def test_features_of_removed_items_go_from_the_disk(
    cache: FeatureCache, reranker: Reranker, settings: Settings
) -> None:
    one, other = record(), record(sha256="cd" * 32)
    discard_features([one], settings)  # nothing is there yet
    cache.put(feature_key(one), features(1))
    cache.put(feature_key(other), features(2))
    discard_features([one, record(kind=Kind.TEXT, sha256="cd" * 32)], settings)
    later = FeatureCache(reranker, settings)
    assert later.get(feature_key(one)) is None
    assert same(later.get(feature_key(other)), features(2))
