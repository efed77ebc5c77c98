"""The media store, in a folder and in object stores: whole or not there, and away is not missing."""

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import MediaGone, MediaStoreUnavailable, MissingExtra, UsageError
from indexer.items import sha256_hex
from indexer.media import blobs as blobs_module
from indexer.media import remote
from indexer.media.blobs import IN_MEMORY, Blobs, Folder, blob_key, content_at, hash_of, open_blobs
from indexer.settings import Settings
from tests.s3 import BUCKET, s3_server

DATA = b"a picture, or what is taken for one"
LARGE = os.urandom(IN_MEMORY + 1)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as url:
        yield url


@pytest.fixture(params=["folder", "memory", "s3"])
def media(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    match request.param:
        case "folder":
            return None
        case "memory":
            return f"memory://{uuid.uuid4().hex}/below"
        case _:
            request.getfixturevalue("s3")
            return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def blobs(media: str | None, tmp_path: Path) -> Blobs:
    return open_blobs(Settings(data=tmp_path / "data", media_url=media))


def given_back(blobs: Blobs, sha256: str) -> bytes | None:
    with blobs.whole(sha256) as content:
        return content.read_bytes() if isinstance(content, Path) else content


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("from_file", [False, True])
def test_what_is_put_is_given_back_until_it_is_removed(
    blobs: Blobs, data: bytes, from_file: bool, tmp_path: Path
) -> None:
    sha256 = sha256_hex(data)
    assert given_back(blobs, sha256) is None
    assert blobs.size(blob_key(sha256)) is None
    content: bytes | Path = data
    if from_file:
        content = tmp_path / "original"
        content.write_bytes(data)
    assert blobs.put(content, sha256)
    assert not blobs.put(content, sha256)
    assert blobs.size(blob_key(sha256)) == len(data)
    assert given_back(blobs, sha256) == data
    assert blobs.read(blob_key(sha256), max_bytes=9) == data[:10]
    with blobs.whole(sha256) as whole:
        assert isinstance(whole, Path if data is LARGE else bytes)
    blobs.remove([blob_key(sha256), blob_key("0" * 64)])
    assert given_back(blobs, sha256) is None
    blobs.remove([blob_key(sha256)])
    blobs.remove([])
    blobs.check()


def test_the_same_store_opened_again_has_it(blobs: Blobs, media: str | None, tmp_path: Path) -> None:
    blobs.put(DATA, sha256_hex(DATA))
    other = open_blobs(Settings(data=tmp_path / "data", media_url=media))
    assert given_back(other, sha256_hex(DATA)) == DATA
    other.remove([blob_key(sha256_hex(DATA))])
    assert given_back(blobs, sha256_hex(DATA)) is None


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_what_was_damaged_is_not_given_and_is_put_right(blobs: Blobs, data: bytes) -> None:
    sha256 = sha256_hex(data)
    blobs.put(data, sha256)
    blobs.write(blob_key(sha256), data[:-1])
    assert given_back(blobs, sha256) is None
    blobs.put(data, sha256)
    assert given_back(blobs, sha256) == data
    blobs.write(blob_key(sha256), data[:-1] + b"?")
    assert given_back(blobs, sha256) is None
    if isinstance(blobs, Folder):  # which can afford to look
        blobs.put(data, sha256)
        assert given_back(blobs, sha256) == data


def test_a_file_that_changed_since_it_was_hashed_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    file = tmp_path / "original"
    file.write_bytes(b"another")
    with pytest.raises(MediaGone, match="changed"):
        blobs.put(file, sha256_hex(DATA))
    with pytest.raises(MediaGone, match="went"):
        blobs.put(tmp_path / "gone", sha256_hex(DATA))
    assert given_back(blobs, sha256_hex(DATA)) is None


def test_many_at_once_write_the_same_and_readers_find_it_whole(blobs: Blobs) -> None:
    sha256 = sha256_hex(LARGE)
    with ThreadPoolExecutor(4) as pool:
        puts = [pool.submit(blobs.put, LARGE, sha256) for _ in range(4)]
        found = [pool.submit(given_back, blobs, sha256) for _ in range(4)]
        for each in puts:
            each.result()
        assert {each.result() for each in found} <= {None, LARGE}
    assert given_back(blobs, sha256) == LARGE


@given(st.text(max_size=80) | st.sampled_from(["../" * 3 + "etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n"]))
def test_no_name_leads_elsewhere(name: str) -> None:
    if name == name.lower() and len(name) == 64 and all(each in "0123456789abcdef" for each in name):
        return
    with pytest.raises(MediaGone):
        blob_key(name)


class TestFolder:
    def test_a_write_that_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = Folder(tmp_path / "store")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(blobs_module.os, "fsync", full)
        with pytest.raises(MediaStoreUnavailable, match="No space left"):
            folder.put(DATA, sha256_hex(DATA))
        assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []

    def test_it_is_on_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []
        fsync, replace = os.fsync, Path.replace
        monkeypatch.setattr(blobs_module.os, "fsync", lambda fd: done.append("fsync") or fsync(fd))
        monkeypatch.setattr(Path, "replace", lambda self, to: done.append("replace") or replace(self, to))
        Folder(tmp_path).put(DATA, sha256_hex(DATA))
        assert done == ["fsync", "replace", "fsync"]

    def test_what_killed_writers_left_is_swept(self, tmp_path: Path) -> None:
        incoming = tmp_path / "incoming"
        incoming.mkdir()
        old, new = incoming / "old", incoming / "new"
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (0, time.time() - 2 * 24 * 3600))
        Folder(tmp_path).put(DATA, sha256_hex(DATA))
        assert [path.name for path in incoming.iterdir()] == ["new"]

    def test_a_folder_that_is_not_mounted_is_away_not_empty(self, tmp_path: Path) -> None:
        sha256, missing = sha256_hex(DATA), tmp_path / "nfs"
        folder = open_blobs(Settings(data=tmp_path, media_url=str(missing)))
        for ask in (
            folder.check,
            lambda: given_back(folder, sha256),
            lambda: folder.size(blob_key(sha256)),
            lambda: folder.read(blob_key(sha256), max_bytes=9),
            lambda: folder.put(DATA, sha256),
            lambda: folder.remove([blob_key(sha256)]),
        ):
            with pytest.raises(MediaStoreUnavailable, match="no folder"):
                ask()
        assert not missing.exists()
        missing.mkdir()
        folder.put(DATA, sha256)
        assert given_back(folder, sha256) == DATA

    def test_a_file_in_its_way_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_bytes(b"")
        with pytest.raises(MediaStoreUnavailable):
            Folder(tmp_path / "store").put(DATA, sha256_hex(DATA))
        with pytest.raises(MediaStoreUnavailable):
            Folder(tmp_path / "store").size(blob_key(sha256_hex(DATA)))

    def test_trimming_takes_the_longest_unused(self, tmp_path: Path) -> None:
        folder = Folder(tmp_path)
        keys = [f"thumbnails/{number:02}/x" for number in range(10)]
        for age, key in enumerate(keys):
            folder.write(key, bytes(100))
            os.utime(tmp_path / key, (0, 10_000 - age))
        folder.put(DATA, sha256_hex(DATA))
        folder.touch(keys[-1])
        assert folder.trim("thumbnails", 1000, down_to=500) == 1000
        assert folder.trim("thumbnails", 999, down_to=500) == 500
        assert [key for key in keys if folder.size(key)] == [*keys[:4], keys[-1]]
        assert given_back(folder, sha256_hex(DATA)) == DATA
        assert folder.trim("nothing", 1, down_to=0) == 0


class TestContentAt:
    def test_a_large_file_is_believed_by_size_and_mtime_and_else_hashed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed: list[object] = []
        digest = hashlib.file_digest
        monkeypatch.setattr(blobs_module.hashlib, "file_digest", lambda *each: hashed.append(each) or digest(*each))
        path = tmp_path / "film"
        path.write_bytes(LARGE)
        known = (path.stat().st_size, path.stat().st_mtime_ns)
        assert content_at(path, "whatever it was then", known) == path
        assert hashed == []
        assert content_at(path, sha256_hex(LARGE), (1, 2)) == path
        assert content_at(path, sha256_hex(LARGE)) == path
        assert len(hashed) == 1
        assert content_at(path, sha256_hex(DATA)) is None
        os.utime(path, ns=(0, 5))
        path.write_bytes(LARGE[:-1] + b"?")
        assert content_at(path, sha256_hex(LARGE), (1, 2)) is None
        assert len(hashed) == 2

    def test_a_small_file_is_always_hashed(self, tmp_path: Path) -> None:
        path = tmp_path / "photo"
        path.write_bytes(DATA)
        known = (path.stat().st_size, path.stat().st_mtime_ns)
        assert content_at(path, sha256_hex(DATA), known) == DATA
        assert content_at(path, sha256_hex(LARGE), known) is None

    def test_a_pipe_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert content_at(tmp_path / "pipe", sha256_hex(DATA)) is None

    def test_a_file_that_changes_under_its_name_has_its_own_hash(self, tmp_path: Path) -> None:
        path, other = tmp_path / "a", tmp_path / "b"
        path.write_bytes(b"1")
        other.write_bytes(b"2")
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        before = hash_of(path)
        other.replace(path)
        assert hash_of(path) != before


class TestRemote:
    @pytest.mark.parametrize("url", ["ftp://host/folder", "simplecache::s3://x", "https://example.org/", "file:///tmp"])
    def test_other_kinds_of_urls_are_refused(self, url: str, tmp_path: Path) -> None:
        with pytest.raises((UsageError, MediaStoreUnavailable)):
            open_blobs(Settings(data=tmp_path, media_url=url)).check()

    def test_a_missing_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(remote.SCHEMES, "s3", "s3fs_that_is_not_installed")
        with pytest.raises(MissingExtra, match=r"crosslens\[cloud\]"):
            open_blobs(Settings(data=tmp_path, media_url="s3://bucket"))

    def test_objects_are_named_by_their_hash_below_the_prefix(self, s3: str) -> None:
        open_blobs(Settings(media_url=f"s3://{BUCKET}/a/b/")).put(DATA, sha256_hex(DATA))
        listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="a/")["Contents"]
        assert f"a/b/{blob_key(sha256_hex(DATA))}" in {each["Key"] for each in listed}

    def test_a_bucket_that_is_not_there_is_away_not_empty(self, s3: str) -> None:
        store = open_blobs(Settings(media_url="s3://nobody-made-this/x"))
        for ask in (
            store.check,
            lambda: given_back(store, sha256_hex(DATA)),
            lambda: store.read(blob_key(sha256_hex(DATA)), max_bytes=9),
            lambda: store.put(DATA, sha256_hex(DATA)),
        ):
            with pytest.raises(MediaStoreUnavailable, match="no bucket 'nobody-made-this'"):
                ask()

    def test_a_store_that_does_not_answer_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with s3_server(monkeypatch):
            store = open_blobs(Settings(media_url=f"s3://{BUCKET}/{uuid.uuid4().hex}"))
            store.put(DATA, sha256_hex(DATA))
        for ask in (store.check, lambda: given_back(store, sha256_hex(DATA)), lambda: store.put(DATA, "0" * 64)):
            with pytest.raises(MediaStoreUnavailable, match="cannot be reached"):
                ask()

    def test_nothing_of_a_failed_request_is_told_to_the_asker(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        store = remote.Remote(f"s3://{BUCKET}/x")

        def fail(*_: object, **__: object) -> None:
            raise ValueError("https://host/?X-Amz-Signature=secret")

        monkeypatch.setattr(store._files, "info", fail)
        with pytest.raises(MediaStoreUnavailable) as caught:
            store.size("x")
        assert "secret" not in caught.value.message

    def test_threads_share_it(self, s3: str) -> None:
        store = open_blobs(Settings(media_url=f"s3://{BUCKET}/{uuid.uuid4().hex}"))
        contents = [os.urandom(1000) for _ in range(16)]
        barrier = threading.Barrier(4)

        def put_some(number: int) -> None:
            barrier.wait(10)
            for data in contents[number::4]:
                store.put(data, sha256_hex(data))

        with ThreadPoolExecutor(4) as pool:
            for each in [pool.submit(put_some, number) for number in range(4)]:
                each.result()
        assert [given_back(store, sha256_hex(data)) for data in contents] == contents
