"""Originals: given from wherever they still are, proven by their hash, and from the store when they are gone."""

import hashlib
import io
import os
import threading
import uuid
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from indexer.errors import FetchFailed, MediaGone, MediaStoreUnavailable, TooLarge
from indexer.items import Kind, Location, Record, now, sha256_hex
from indexer.media import blobs as blobs_module
from indexer.media.blobs import IN_MEMORY, blob_key
from indexer.media.originals import UPLOAD, Originals
from indexer.settings import Settings
from tests.hostile import photo
from tests.s3 import BUCKET, s3_server

DATA = photo(1)
LARGE = DATA + bytes(IN_MEMORY)


def record(data: bytes, *sources: str | Path | Location, **fields: Any) -> Record:
    places = [each if isinstance(each, Location) else Location(source=str(each)) for each in sources]
    fields = {"kind": Kind.IMAGE, "media_type": "image/jpeg", **fields}
    return Record(sha256=sha256_hex(data), locations=places, bytes=len(data), added_at=now(), **fields)


@pytest.fixture
def originals(settings: Settings) -> Iterator[Originals]:
    originals = Originals.of(settings)
    yield originals
    originals.close()


def test_the_first_place_that_still_has_it_gives_it(originals: Originals, tmp_path: Path) -> None:
    gone, changed, good = tmp_path / "gone.jpg", tmp_path / "changed.jpg", tmp_path / "good.jpg"
    changed.write_bytes(photo(2))
    good.write_bytes(DATA)
    os.mkfifo(tmp_path / "pipe")
    wanted = record(DATA, gone, changed, tmp_path, tmp_path / "pipe", "a\0b", "x" * 5000, good)
    assert originals.read(wanted) == DATA
    good.write_bytes(photo(3))
    with pytest.raises(MediaGone):
        originals.read(wanted)


def test_a_copy_is_given_when_its_source_is_gone(originals: Originals, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(DATA)
    wanted = record(DATA, file)
    assert originals.keep(file, wanted.sha256)
    assert not originals.keep(DATA, wanted.sha256)
    file.unlink()
    assert originals.read(wanted) == DATA
    assert originals.read_source(UPLOAD + wanted.sha256) == DATA
    originals.discard([wanted.sha256])
    for read in (lambda: originals.read(wanted), lambda: originals.read_source(UPLOAD + wanted.sha256)):
        with pytest.raises(MediaGone):
            read()


def test_a_reference_is_asked_before_the_store(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(DATA)
    away = Originals.of(settings.model_copy(update={"media_url": str(tmp_path / "not mounted")}))
    assert away.read(record(DATA, file)) == DATA
    file.unlink()
    # Not `MediaGone`: the store may well have it.
    with pytest.raises(MediaStoreUnavailable):
        away.read(record(DATA, file))
    with pytest.raises(MediaStoreUnavailable):
        away.put(DATA)


def test_a_damaged_copy_is_not_given(originals: Originals, settings: Settings) -> None:
    source = originals.put(DATA)
    path = originals.path_of(source)
    assert path == settings.uploads_folder.absolute() / blob_key(sha256_hex(DATA))
    path.write_bytes(DATA[:-1])
    with pytest.raises(MediaGone):
        originals.read(record(DATA, source))
    assert originals.put(DATA) == source
    assert originals.read(record(DATA, source)) == DATA


@pytest.mark.parametrize("source", ["../../secret", "", "a" * 64 + "/../x", "/etc/passwd"])
def test_an_upload_s_name_leads_nowhere_else(originals: Originals, settings: Settings, source: str) -> None:
    (settings.data / "uploads").mkdir(parents=True)
    (settings.data / "secret").write_bytes(b"secret")
    for read in (originals.read_source, originals.path_of):
        with pytest.raises(MediaGone, match="no upload"):
            read(UPLOAD + source)


def test_a_large_original_is_a_file_and_reading_it_has_a_cap(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "film.mp4"
    file.write_bytes(LARGE)
    originals = Originals.of(settings)
    with originals.open(record(LARGE, file)) as content:
        assert content == file
    assert originals.read(record(LARGE, file)) == LARGE
    originals.keep(file, sha256_hex(LARGE))
    file.unlink()
    with originals.open(record(LARGE, file)) as content:
        assert isinstance(content, Path)
        assert content.is_relative_to(settings.uploads_folder.absolute())
    small = Originals.of(settings.model_copy(update={"max_bytes": 10**6}))
    with pytest.raises(TooLarge):
        small.read(record(LARGE, file))
    with pytest.raises(TooLarge):
        small.read_source(UPLOAD + sha256_hex(LARGE))


def test_a_large_file_that_did_not_change_is_not_read_again(
    originals: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "film.mp4"
    file.write_bytes(LARGE)
    status = file.stat()
    place = Location(source=str(file), size=status.st_size, mtime_ns=status.st_mtime_ns)
    hashed: list[int] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(blobs_module.hashlib, "file_digest", lambda *each: hashed.append(1) or digest(*each))
    with originals.open(record(LARGE, place)) as content:
        assert content == file
    assert hashed == []
    os.utime(file, ns=(0, status.st_mtime_ns + 1))
    with originals.open(record(LARGE, place)):
        assert hashed == [1]
    file.write_bytes(LARGE[:-1] + b"?")
    with pytest.raises(MediaGone), originals.open(record(LARGE, place)):
        pass


class TestFragments:
    def test_a_frame_s_original_is_its_file(self, originals: Originals, tmp_path: Path) -> None:
        clip = tmp_path / "clip.mp4"
        clip.write_bytes(DATA)
        parts: dict[str, Any] = {"kind": Kind.VIDEO, "parent": str(uuid.uuid4())}
        assert originals.read(record(DATA, clip, seconds=0.0, **parts)) == DATA
        assert originals.read(record(DATA, f"{clip}#t=12.5", seconds=12.5, **parts)) == DATA
        assert originals.read(record(DATA, f"{clip}#page=3", page=3, **{**parts, "kind": Kind.PAGE})) == DATA
        with pytest.raises(MediaGone):
            originals.read(record(DATA, f"{clip}#t=12.5", seconds=13.0, **parts))

    def test_a_name_may_look_like_a_fragment(self, originals: Originals, tmp_path: Path) -> None:
        odd = tmp_path / "clip.mp4#t=0"
        odd.write_bytes(DATA)
        (tmp_path / "clip.mp4").write_bytes(photo(5))
        assert originals.read(record(DATA, odd)) == DATA
        parts: dict[str, Any] = {"kind": Kind.VIDEO, "parent": str(uuid.uuid4())}
        assert originals.read(record(DATA, odd, seconds=0.0, **parts)) == DATA
        assert originals.read(record(DATA, f"{odd}#t=5", seconds=5.0, **parts)) == DATA
        with pytest.raises(MediaGone):
            originals.read(record(DATA, f"{odd}#t=5"))  # no frame: the name is the name

    def test_of_an_upload_too(self, originals: Originals) -> None:
        parts: dict[str, Any] = {"kind": Kind.VIDEO, "parent": str(uuid.uuid4()), "seconds": 5.0}
        assert originals.read(record(DATA, f"{originals.put(DATA)}#t=5", **parts)) == DATA


def test_a_member_of_an_archive_within_the_settings_limits(settings: Settings, tmp_path: Path) -> None:
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", photo(number))
    wanted = record(photo(2), f"{packed}!/2.jpg")
    assert Originals.of(settings).read(wanted) == photo(2)
    strict = Originals.of(settings.model_copy(update={"max_archive_members": 2}))
    with pytest.raises(MediaGone):
        strict.read(wanted)


class Host(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    Host.answers, Host.asked = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class TestUrls:
    def test_what_a_url_gave_is_fetched_again_and_proven(self, settings: Settings, host: str) -> None:
        originals = Originals.of(settings.model_copy(update={"fetch_allow": "127.0.0.1"}))
        wanted = record(DATA, f"{host}/a.jpg")
        Host.answers["/a.jpg"] = (200, DATA)
        assert originals.read(wanted) == DATA
        frame = {"kind": Kind.VIDEO, "parent": str(uuid.uuid4()), "seconds": 5.0}
        assert originals.read(record(DATA, f"{host}/a.jpg#t=5", **frame)) == DATA
        assert Host.asked == ["/a.jpg", "/a.jpg"]
        Host.answers["/a.jpg"] = (200, photo(2))
        with pytest.raises(MediaGone):
            originals.read(wanted)
        originals.keep(DATA, wanted.sha256)
        assert originals.read(wanted) == DATA
        originals.close()

    def test_a_host_that_does_not_answer_is_not_a_missing_original(self, settings: Settings, host: str) -> None:
        originals = Originals.of(settings.model_copy(update={"fetch_allow": "127.0.0.1"}))
        Host.answers["/a.jpg"] = (500, b"")
        with pytest.raises(FetchFailed):
            originals.read(record(DATA, f"{host}/a.jpg"))
        with pytest.raises(MediaGone):
            originals.read(record(DATA, f"{host}/gone.jpg"))
        originals.close()

    def test_private_hosts_and_large_answers_are_refused_as_in_ingest(self, settings: Settings, host: str) -> None:
        Host.answers["/a.jpg"] = (200, DATA)
        with pytest.raises(MediaGone):
            Originals.of(settings).read(record(DATA, f"{host}/a.jpg"))
        assert Host.asked == []
        capped = Originals.of(settings.model_copy(update={"fetch_allow": "127.0.0.1", "max_bytes": len(DATA) - 1}))
        with pytest.raises(MediaGone):
            capped.read(record(DATA, f"{host}/a.jpg"))


class TestS3:
    @pytest.fixture(autouse=True)
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with s3_server(monkeypatch):
            yield

    def test_what_one_machine_puts_another_reads(self, settings: Settings, tmp_path: Path) -> None:
        url = f"s3://{BUCKET}/media"
        here = Originals.of(settings.model_copy(update={"media_url": url}))
        there = Originals.of(Settings(data=tmp_path / "another machine", media_url=url))
        source = here.put(DATA)
        assert here.path_of(source) is None
        assert there.read_source(source) == DATA
        assert there.read(record(DATA, source)) == DATA
        there.discard([sha256_hex(DATA)])
        with pytest.raises(MediaGone):
            here.read_source(source)
        assert not settings.uploads_folder.exists()

    def test_a_large_one_comes_as_a_file_that_goes_again(self, settings: Settings) -> None:
        originals = Originals.of(settings.model_copy(update={"media_url": f"s3://{BUCKET}/media"}))
        originals.keep(LARGE, sha256_hex(LARGE))
        with originals.open(record(LARGE, "upload:x")) as content:
            assert isinstance(content, Path)
            with content.open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == sha256_hex(LARGE)
        assert not content.exists()

    def test_an_object_that_was_a_source_is_read_again(self, settings: Settings) -> None:
        import boto3

        boto3.client("s3").put_object(Bucket=BUCKET, Key="in/a #1.jpg", Body=io.BytesIO(DATA))
        originals = Originals.of(settings)
        assert originals.read(record(DATA, f"s3://{BUCKET}/in/a #1.jpg")) == DATA
        with pytest.raises(MediaGone):
            originals.read(record(DATA, f"s3://{BUCKET}/in/b.jpg"))
        with pytest.raises(MediaGone):
            originals.read(record(photo(2), f"s3://{BUCKET}/in/a #1.jpg"))
        originals.close()
