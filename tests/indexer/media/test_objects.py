"""Cloud storage as a source, against servers that speak its protocols: moto's S3, a GCS emulator, an Azure in memory.

With CROSSLENS_TEST_AZURE, a connection string, the tests of Azure run against that account (Azurite's, say) instead.
"""

import gzip
import itertools
import logging
import os
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import (
    AccessDenied,
    CrosslensError,
    EmptyFile,
    FetchFailed,
    FetchTimeout,
    MediaError,
    MediaGone,
    MissingExtra,
    SourceNotFound,
    TooLarge,
    Unreadable,
    UrlRefused,
)
from indexer.media.clouds import CLOUDS, Stored
from indexer.media.formats import IMAGE_SUFFIXES
from indexer.media.object_urls import ObjectUrl, check_object, is_object
from indexer.media.objects import Object, Objects, _matches
from indexer.report import Failure
from indexer.settings import Settings
from tests.indexer.media.fake_azure import ACCOUNT, FakeAzure
from tests.waiting import until

BUCKET = "photo-bucket"
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="  # what no message may show
ODD = [
    "a b.jpg",
    "a#b.jpg",
    "a?b.jpg",
    "a?versionId=1.jpg",
    "a%41.jpg",
    "a+&=b.jpg",
    "ä€😀.jpg",
    "a..b.jpg",
    "[a]*.jpg",
]


@dataclass
class Counter:
    passed_over: int = 0


@dataclass
class Service:
    """A storage that runs, and how to write to it."""

    scheme: str
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    env: dict[str, str]
    port: int

    def url(self, key: str = "") -> str:
        return f"{self.scheme}://{BUCKET}/{key}"


def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, env: dict[str, str]) -> None:
    """Only this configuration, and none of the machine's."""
    theirs = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "FSSPEC_")
    for name in [name for name in os.environ if name.startswith(theirs) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "HOME": str(home), "AWS_MAX_ATTEMPTS": "1"}
    for name, value in {**nowhere, **env}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def fresh_clients() -> Iterator[None]:
    """adlfs' one client goes with the test: the next has another environment."""
    from adlfs import AzureBlobFileSystem

    yield
    AzureBlobFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[int, Any]]:
    """The port of an S3, and what holds its objects."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer
    from moto.s3.models import s3_backends

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1], s3_backends["123456789012"]["aws"]
    server.stop()


@pytest.fixture(scope="module")
def gcs() -> Iterator[tuple[int, Any]]:
    """The port of a Google Cloud Storage, and what holds its objects. It gives pages, which the emulator does not."""
    from gcp_storage_emulator.server import Response, create_server
    from gcp_storage_emulator.storage import Storage

    whole = Response.json

    def paged(self: Any, answer: dict[str, Any]) -> None:
        if answer.get("kind") == "storage#objects":
            query = {name: values[0] for name, values in parse_qs(urlsplit(self._handler.path).query).items()}
            first, most = int(query.get("pageToken", 0)), int(query["maxResults"])
            items = answer["items"]
            answer = {**answer, "items": items[first : first + most]}
            if first + most < len(items):
                answer["nextPageToken"] = str(first + most)
        whole(self, answer)

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Response, "json", paged)
        patch.setattr(Storage, "_write_config_to_file", lambda self: None)  # all of it, for each object
        server = create_server("127.0.0.1", 0, in_memory=True)
        server.start()
        yield server._api._httpd.server_port, server._api._storage
        server.stop()


def s3_service(moto: tuple[int, Any]) -> Service:
    port, backend = moto
    for name in list(backend.buckets):
        for key in list(backend.buckets[name].keys):
            backend.delete_object(name, key)
        backend.delete_bucket(name)
    backend.create_bucket(BUCKET, "us-east-1")
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    return Service(
        "s3",
        lambda key, data: backend.put_object(BUCKET, key, data),
        lambda key: backend.delete_object(BUCKET, key),
        env,
        port,
    )


def gcs_service(gcs: tuple[int, Any]) -> Service:
    from gcp_storage_emulator.handlers.objects import _checksums, _make_object_resource

    port, storage = gcs
    base = f"http://127.0.0.1:{port}"
    storage.wipe()
    storage.create_bucket(BUCKET, {"name": BUCKET})
    writes = itertools.count(1)

    def put(key: str, data: bytes) -> None:
        made = _checksums(data, _make_object_resource(base, BUCKET, key, "image/jpeg", str(len(data))))
        storage.create_file(BUCKET, key, data, {**made, "generation": str(next(writes))})

    return Service("gs", put, lambda key: storage.delete_file(BUCKET, key), {"STORAGE_EMULATOR_HOST": base}, port)


def azure_at(port: int) -> str:
    at = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={SECRET};BlobEndpoint={at};"


def azure_service() -> tuple[Service, Callable[[], None]]:
    given = os.environ.get("CROSSLENS_TEST_AZURE")
    if not given:
        fake = FakeAzure()
        fake.containers[BUCKET] = {}
        port = fake.server_port
        env = {"AZURE_STORAGE_CONNECTION_STRING": azure_at(port)}
        blobs = fake.containers[BUCKET]
        return Service("az", lambda key, data: fake.put(BUCKET, key, data), blobs.pop, env, port), fake.shutdown

    from azure.core.exceptions import ResourceExistsError
    from azure.storage.blob import BlobServiceClient

    client = BlobServiceClient.from_connection_string(given)
    container = client.get_container_client(BUCKET)
    try:
        container.create_container()
    except ResourceExistsError:
        for blob in container.list_blobs():
            container.delete_blob(blob.name)
    return Service(
        "az",
        lambda key, data: container.upload_blob(key, data, overwrite=True) and None,
        container.delete_blob,
        {"AZURE_STORAGE_CONNECTION_STRING": given},
        0,
    ), client.close


@pytest.fixture(params=["s3", "gs", "az"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    """Each storage, with an empty bucket, and the environment that leads there."""
    end: Callable[[], object] = list
    match request.param:
        case "s3":
            running = s3_service(request.getfixturevalue("moto"))
        case "gs":
            running = gcs_service(request.getfixturevalue("gcs"))
        case _:
            running, end = azure_service()
    clean_environment(monkeypatch, tmp_path, running.env)
    yield running
    end()


@pytest.fixture
def objects(service: Service) -> Iterator[Objects]:
    with Objects(Settings(max_bytes=1_000_000)) as opened:
        yield opened


def listed(objects: Objects, url: str, counts: Counter | None = None) -> list[Object]:
    found = list(objects.listed(url, suffixes=IMAGE_SUFFIXES, counts=counts or Counter()))
    assert all(isinstance(each, Object) for each in found)
    return found  # type: ignore[return-value]


def sources(objects: Objects, url: str, counts: Counter | None = None) -> list[str]:
    return [each.source for each in listed(objects, url, counts)]


# What is there


def test_a_bucket_and_a_folder_give_their_media_in_order_and_count_the_rest(service: Service, objects: Objects) -> None:
    for key in [
        "z.jpg",
        "photos/b.PNG",
        "photos/a.jpg",
        "photos/deep/er/c.webp",
        "photos/notes.txt",
        "photos/.hidden.jpg",
        "photos/.cache/d.jpg",
        "photos-other/e.jpg",
        "photos/deep/",
    ]:
        service.put(key, b"x")
    below = [service.url(key) for key in ("photos/a.jpg", "photos/b.PNG", "photos/deep/er/c.webp")]
    for url in (service.url("photos"), service.url("photos/")):
        counts = Counter()
        assert sources(objects, url, counts) == below
        assert counts.passed_over == 3
    everything = [service.url("photos-other/e.jpg"), *below, service.url("z.jpg")]
    assert sources(objects, service.url()) == sources(objects, f"{service.scheme}://{BUCKET}") == everything


def test_a_named_object_is_taken_whatever_its_name(service: Service, objects: Objects) -> None:
    service.put("raw/.scan", b"12345")
    [found] = listed(objects, service.url("raw/.scan"))
    assert (found.source, found.size) == (service.url("raw/.scan"), 5)


def test_an_object_goes_before_a_folder_and_a_glob_of_its_name(service: Service, objects: Objects) -> None:
    for key in ("a", "a/b.jpg", "[x].jpg", "x.jpg"):
        service.put(key, b"x")
    assert sources(objects, service.url("a")) == [service.url("a")]
    assert sources(objects, service.url("a/")) == [service.url("a/b.jpg")]
    assert sources(objects, service.url("[x].jpg")) == [service.url("[x].jpg")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.jpg", ["p/a.jpg", "p/b.jpg"]),
        ("p/?.jpg", ["p/a.jpg", "p/b.jpg"]),
        ("p/[!a].*", ["p/b.jpg", "p/c.dat"]),
        ("p/*", ["p/a.jpg", "p/b.jpg", "p/c.dat"]),
        ("p/**/*.jpg", ["p/a.jpg", "p/b.jpg", "p/q/d.jpg", "p/q/r/e.jpg"]),
        ("**/e.*", ["p/q/r/e.jpg"]),
        ("*/q/*.jpg", ["p/q/d.jpg"]),
        ("p/**", ["p/a.jpg", "p/b.jpg", "p/c.dat", "p/q/d.jpg", "p/q/r/e.jpg"]),
    ],
)
def test_globs_match_as_they_do_in_folders(
    service: Service, objects: Objects, pattern: str, expected: list[str]
) -> None:
    for key in ("p/a.jpg", "p/b.jpg", "p/c.dat", "p/.h.jpg", "p/q/d.jpg", "p/q/r/e.jpg", "p/q/", "other.jpg"):
        service.put(key, b"x")
    assert sources(objects, service.url(pattern)) == [service.url(key) for key in expected]


def counted_pages(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many objects each page had that was asked for, from now on."""
    pages: list[int] = []
    kind = CLOUDS[service.scheme]
    ask = kind.page

    async def counted(self: Any, *of: Any, **named: Any) -> Any:
        page = await ask(self, *of, **named)
        pages.append(len(page[0]))
        return page

    monkeypatch.setattr(kind, "page", counted)
    return pages


def test_a_glob_of_one_folder_does_not_list_those_below(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("p/a.jpg", "p/q/b.jpg", "p/q/c.jpg"):
        service.put(key, b"x")
    pages = counted_pages(service, monkeypatch)
    assert sources(objects, service.url("p/*.jpg")) == [service.url("p/a.jpg")]
    assert pages == [1]


def test_who_may_list_but_not_read_still_lists(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stat(*_: Any) -> Any:
        raise PermissionError

    service.put("p/a.jpg", b"x")
    monkeypatch.setattr(CLOUDS[service.scheme], "stat", stat)
    assert sources(objects, service.url("p")) == [service.url("p/a.jpg")]


def test_a_listing_is_read_page_by_page_and_only_as_far_as_it_is_wanted(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"many/{number:04}.jpg" for number in range(2500)]
    for key in reversed(keys):
        service.put(key, b"x")
    pages = counted_pages(service, monkeypatch)
    found = objects.listed(service.url("many"), suffixes=IMAGE_SUFFIXES, counts=Counter())
    assert pages == [1000]
    first = next(found)
    assert pages == [1000]
    assert [each.source for each in (first, *found)] == [service.url(key) for key in keys]
    assert pages == [1000, 1000, 500]
    assert sources(objects, service.url("many/*9.jpg")) == [service.url(key) for key in keys if key.endswith("9.jpg")]


def test_a_listing_of_any_length_takes_a_page_of_memory(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page(self: Any, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Any:
        at = int(after or 0)
        return [Stored(f"{number:09}.jpg", 1, 1) for number in range(at, at + 1000)], (
            str(at + 1000) if at < 59_000 else None
        )

    monkeypatch.setattr(CLOUDS[service.scheme], "page", page)
    found = objects.listed(service.url(), suffixes=IMAGE_SUFFIXES, counts=Counter())
    next(found)
    tracemalloc.start()
    assert sum(1 for _ in found) == 59_999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000  # all of them would take twice that


def test_a_listing_that_breaks_off_is_one_failure_after_what_came(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page(self: Any, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Any:
        if after:
            raise ConnectionResetError
        return [Stored("p/a.jpg", 1, 1)], "more"

    monkeypatch.setattr(CLOUDS[service.scheme], "page", page)
    one, two = objects.listed(service.url("p/"), suffixes=IMAGE_SUFFIXES, counts=Counter())
    assert isinstance(one, Object)
    assert isinstance(two, Failure)
    assert two.source == service.url("p/")
    assert isinstance(two.error, FetchFailed)


def test_a_page_without_objects_is_not_the_end(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page(self: Any, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Any:
        return ([Stored("p/a.jpg", 1, 1)], None) if after else ([], "more")

    monkeypatch.setattr(CLOUDS[service.scheme], "page", page)
    for key in ("p", "p/*.jpg"):
        assert sources(objects, service.url(key)) == [service.url("p/a.jpg")]


def test_what_is_not_there_is_said_before_anything_is_done(service: Service, objects: Objects) -> None:
    service.put("a/b.txt", b"x")
    service.put("empty/", b"")
    for url in (service.url("nothing"), service.url("nothing/"), service.url("a/b.t"), service.url("a/*.jpg")):
        with pytest.raises(SourceNotFound):
            objects.listed(url, suffixes=IMAGE_SUFFIXES, counts=Counter())
    for key in ("", "x.jpg", "x/", "*.jpg"):
        with pytest.raises(SourceNotFound, match="no bucket 'absent-bucket'"):
            objects.listed(f"{service.scheme}://absent-bucket/{key}", suffixes=IMAGE_SUFFIXES, counts=Counter())
    assert sources(objects, service.url("a")) == []  # it is there, without media


def test_an_empty_bucket_is_no_error(service: Service, objects: Objects) -> None:
    assert sources(objects, service.url()) == []


def test_the_folders_of_a_hierarchical_azure_account_are_no_objects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = FakeAzure()
    fake.containers[BUCKET] = {}
    for key in ("trip.jpg", "trip.jpg/a.jpg"):
        fake.put(BUCKET, key, b"x" if key.endswith("a.jpg") else b"")
    fake.folders = {"trip.jpg"}
    clean_environment(monkeypatch, tmp_path, {"AZURE_STORAGE_CONNECTION_STRING": azure_at(fake.server_port)})
    with Objects(Settings()) as objects:
        expected = [f"az://{BUCKET}/trip.jpg/a.jpg"]
        assert sources(objects, f"az://{BUCKET}") == sources(objects, f"az://{BUCKET}/trip.jpg") == expected
    fake.shutdown()


# Reading


@pytest.mark.parametrize("name", [*ODD, "line\nend.jpg"])
def test_names_are_names(service: Service, objects: Objects, name: str) -> None:
    if service.scheme == "s3" and "\n" in name:
        pytest.skip("moto's server routes no line ends")
    for part in ("a", "a.jpg", name.partition("?")[0], name.partition("#")[0], name.replace("%41", "A")):
        service.put(f"odd/{part}", b"another")
    service.put(f"odd/{name}", name.encode())
    [found] = listed(objects, service.url(f"odd/{name}"))
    assert found.source == service.url(f"odd/{name}")
    assert objects.read(found.source) == name.encode()
    assert found in listed(objects, service.url("odd"))


def test_an_object_that_changes_is_read_as_it_is_and_seen_to_have_changed(service: Service, objects: Objects) -> None:
    service.put("a.jpg", b"first")
    [before] = listed(objects, service.url("a.jpg"))
    service.put("a.jpg", b"other")  # of the same size, and maybe in the same second
    assert objects.read(before.source, size=before.size) == b"other"
    [after] = listed(objects, service.url())
    assert (after.size, after.source) == (before.size, before.source)
    assert after.mtime_ns != before.mtime_ns
    assert listed(objects, service.url()) == listed(objects, service.url("a.jpg")) == [after]


def test_listings_and_objects_are_never_stale(service: Service, objects: Objects) -> None:
    service.put("p/a.jpg", b"x")
    assert sources(objects, service.url("p")) == [service.url("p/a.jpg")]
    service.put("p/b.jpg", b"x")
    service.delete("p/a.jpg")
    assert sources(objects, service.url("p")) == [service.url("p/b.jpg")]
    with Objects(Settings()) as others:
        assert sources(others, service.url("p")) == [service.url("p/b.jpg")]


def test_an_object_that_went_meanwhile_is_gone(service: Service, objects: Objects) -> None:
    service.put("a.jpg", b"x")
    [found] = listed(objects, service.url())
    service.delete("a.jpg")
    with pytest.raises(MediaGone):
        objects.read(found.source, size=found.size)
    with pytest.raises(MediaGone):
        objects.read(found.source)
    with pytest.raises(MediaGone):
        objects.read(f"{service.scheme}://absent-bucket/a.jpg")


def test_what_is_too_large_is_refused_by_its_size_and_when_it_grew(service: Service, objects: Objects) -> None:
    service.put("large.jpg", b"x" * 1_000_001)
    service.put("fits.jpg", b"x" * 1_000_000)
    for size in (None, 1_000_001, 10):
        with pytest.raises(TooLarge, match="1,000,000"):
            objects.read(service.url("large.jpg"), size=size)
    assert len(objects.read(service.url("fits.jpg"))) == 1_000_000


def test_what_is_listed_as_too_large_or_empty_is_not_asked_for(
    service: Service, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLOUDS[service.scheme], "read", None)
    for size, expected in ((2_000_000, TooLarge), (0, EmptyFile)):
        with pytest.raises(expected):
            objects.read(service.url("x.jpg"), size=size)


def test_a_large_object_is_read_no_further_than_asked(service: Service) -> None:
    from fsspec.asyn import sync

    service.put("large.jpg", b"x" * 6_000_000)
    cloud = CLOUDS[service.scheme]()
    data = sync(cloud.fs.loop, cloud.read, BUCKET, "large.jpg", 1000)
    cloud.close()
    assert 1000 <= len(data) <= 2**20


def test_an_empty_object_is_said_to_be_empty(service: Service, objects: Objects) -> None:
    service.put("empty.jpg", b"")
    for size in (None, 0, 5):  # it may have been emptied since it was listed
        with pytest.raises(EmptyFile):
            objects.read(service.url("empty.jpg"), size=size)


def test_threads_share_it(service: Service, objects: Objects) -> None:
    for number in range(40):
        service.put(f"{number}.jpg", str(number).encode())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: objects.read(service.url(f"{number}.jpg")), range(40)))
    assert found == [str(number).encode() for number in range(40)]


def test_nothing_is_left_on_disk(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in ("TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(work))
    monkeypatch.setattr("tempfile.tempdir", None)
    service.put("a.jpg", b"x" * 100_000)
    with Objects(Settings()) as objects:
        for each in listed(objects, service.url()):
            objects.read(each.source, size=each.size)
    assert list(work.rglob("*")) == []
    assert list((tmp_path / "home").rglob("*")) == []


# URLs


@pytest.mark.parametrize(
    "url", ["s3://bucket", "S3://bucket/k", "gs://b-1/k", "gcs://bkt/", "az://con/k", "abfss://con/k"]
)
def test_cloud_urls_are_known(url: str) -> None:
    assert is_object(url)
    check_object(url)


@pytest.mark.parametrize("source", ["photo.jpg", "/a/s3://b/k", "C:\\x.jpg", "s3:/b/k", "./a::b", "a b::c.jpg", "s3"])
def test_paths_are_no_urls(source: str) -> None:
    assert not is_object(source)
    check_object(source)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "memory://x/y.jpg",
        "simplecache::s3://bucket/k",
        "filecache::memory://x",
        "zip://a.jpg::s3://bucket/k.zip",
        "s3a://bucket/k",
        "hdfs://host/k",
        "s3://",
        "s3:///k",
        "s3://b",
        "s3://bucket@127.0.0.1/k",
        "s3://key:secret@bucket/k",
        "s3://bucket:9000/k",
        "s3://127.0.0.1:9000/bucket/k",
        "s3://bucket?endpoint_url=http:/k",
        "s3://bucket#x/k",
        "s3://bucket\n/k",
        "s3://bück/k",
        "s3://../k",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/k",
        "abfss://container@account.dfs.core.windows.net/k",
        "az://container@evil.example/k",
        "az://container\\@evil/k",
        "s3://bucket/a/../../k",
        "s3://bucket/..",
        "gs://bucket/./k",
        "s3://bucket/" + "ä" * 1025,
        "s3://bucket/\ud800",
    ],
)
def test_other_urls_are_refused_with_what_works(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        check_object(url)
    assert "s3://bucket/key" in refused.value.remedy
    with Objects(Settings()) as objects, pytest.raises(UrlRefused):
        objects.read(url)


def test_what_looks_like_an_option_is_part_of_the_key(service: Service, objects: Objects) -> None:
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        elsewhere.setblocking(False)
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
        for key in (f"k.jpg?endpoint_url={address}", f"{address}/k.jpg", f"k@{address}#{address}", "a::memory:b.jpg"):
            service.put(key.replace("//", "/"), key.encode())
            assert objects.read(service.url(key.replace("//", "/"))) == key.encode()
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


@given(st.one_of(st.text(), st.builds("{}://{}/{}".format, st.sampled_from(["s3", "gcs", "AZ"]), st.text(), st.text())))
def test_a_url_is_refused_or_names_a_bucket_and_a_key_alone(url: str) -> None:
    try:
        where = ObjectUrl.parse(url)
    except UrlRefused:
        return
    assert ObjectUrl.parse(str(where)) == where
    assert url.endswith(where.key)
    assert not set(where.bucket) & set("/@:?#%\\ \n")
    assert where.scheme in CLOUDS


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket/", "az://bucket"])
def test_a_bucket_is_no_object(url: str) -> None:
    with Objects(Settings()) as objects, pytest.raises(UrlRefused, match="is a bucket"):
        objects.read(url)


PARTS = st.lists(st.sampled_from(["a", "b", "ab", "**", "*", "a*", "?", "[ab]"]), max_size=5)
NAMES = st.lists(st.sampled_from(["a", "b", "ab", "c"]), max_size=5)


@given(PARTS, NAMES)
def test_a_pattern_matches_as_its_definition_says(pattern: list[str], names: list[str]) -> None:
    from fnmatch import fnmatchcase

    def by_definition(pattern: list[str], names: list[str]) -> bool:
        match pattern:
            case []:
                return not names
            case ["**", *rest]:
                return by_definition(rest, names) or (bool(names) and by_definition(pattern, names[1:]))
            case [first, *rest]:
                return bool(names) and fnmatchcase(names[0], first) and by_definition(rest, names[1:])
        raise AssertionError

    assert _matches(pattern, names) == by_definition(pattern, names)


def test_no_pattern_takes_for_ever() -> None:
    assert not _matches(["**", "a"] * 150, ["a", "b"] * 250 + ["c"])
    assert not _matches(["*a" * 300], ["a" * 500 + "b"])


# What goes wrong


@dataclass
class Answering:
    """A server that answers everything alike, or not at all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_silent: bool = False
    promised: int | None = None
    port: int = 0


@pytest.fixture
def answering() -> Iterator[Answering]:
    answer = Answering()
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if answer.is_silent:
                end.wait()
                return
            self.send_response(answer.status)
            self.close_connection = answer.promised is not None
            length = len(answer.body) if answer.promised is None else answer.promised
            for name, value in {"Content-Length": str(length), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    answer.port = server.server_port
    yield answer
    end.set()
    server.shutdown()
    server.server_close()


def lead_to(scheme: str, port: int) -> dict[str, str]:
    """The environment by which a storage is found at this port."""
    match scheme:
        case "s3":
            at = f"http://127.0.0.1:{port}"
            return {"AWS_ENDPOINT_URL": at, "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        case "gs":
            return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
        case _:
            return {"AZURE_STORAGE_CONNECTION_STRING": azure_at(port)}


def answer_of(scheme: str, status: int, code: str) -> Answering:
    """A service's error as it comes, with a secret in its text."""
    text = f"{code}: AKIAEXAMPLE {SECRET}"
    match scheme:
        case "s3":
            return Answering(status, f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode())
        case "gs":
            body = f'{{"error": {{"code": {status}, "message": "{text}"}}}}'.encode()
            return Answering(status, body, {"Content-Type": "application/json"})
        case _:
            return Answering(status, text.encode(), {"x-ms-error-code": code})


@pytest.mark.parametrize(
    ("scheme", "status", "code", "expected", "says"),
    [
        ("s3", 403, "AccessDenied", AccessDenied, "denies"),
        ("s3", 403, "InvalidAccessKeyId", AccessDenied, "no credentials"),
        ("s3", 403, "SignatureDoesNotMatch", AccessDenied, "no credentials"),
        ("s3", 400, "ExpiredToken", AccessDenied, "no credentials"),
        ("s3", 404, "NoSuchBucket", MediaGone, "no bucket"),
        ("s3", 404, "NoSuchKey", MediaGone, "no such object"),
        ("s3", 403, "InvalidObjectState", Unreadable, "archived"),
        ("s3", 416, "InvalidRange", EmptyFile, "empty"),
        ("s3", 500, "InternalError", FetchFailed, "InternalError"),
        ("s3", 418, f"Code with {SECRET}", FetchFailed, "error: 418"),
        ("gs", 401, "Unauthorized", AccessDenied, "no credentials"),
        ("gs", 403, "forbidden", AccessDenied, "denies"),
        ("gs", 404, "notFound", MediaGone, "no such object"),
        ("gs", 416, "range", EmptyFile, "empty"),
        ("gs", 418, "teapot", FetchFailed, "418"),
        ("az", 403, "AuthorizationFailure", AccessDenied, "denies"),
        ("az", 403, "AuthenticationFailed", AccessDenied, "no credentials"),
        ("az", 401, "NoAuthenticationInformation", AccessDenied, "no credentials"),
        ("az", 409, "PublicAccessNotPermitted", AccessDenied, "denies"),
        ("az", 404, "ContainerNotFound", MediaGone, "no bucket"),
        ("az", 404, "BlobNotFound", MediaGone, "no such object"),
        ("az", 409, "BlobArchived", Unreadable, "archived"),
        ("az", 409, "Other", FetchFailed, "Other"),
    ],
)
def test_a_services_errors_are_told_without_their_texts(
    scheme: str,
    status: int,
    code: str,
    expected: type[MediaError],
    says: str,
    answering: Answering,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    told = answer_of(scheme, status, code)
    answering.status, answering.body, answering.headers = told.status, told.body, told.headers
    clean_environment(monkeypatch, tmp_path, lead_to(scheme, answering.port))
    with Objects(Settings()) as objects, pytest.raises(expected) as raised:
        objects.read(f"{scheme}://{BUCKET}/a.jpg", size=5)
    error = raised.value
    assert type(error) is expected
    assert says in error.message
    assert error.__suppress_context__ and error.__cause__ is None  # a log would print what the library says
    assert SECRET not in f"{error.as_dict()}{capfd.readouterr()}"
    if expected is AccessDenied:
        assert {"s3": "AWS_", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_"}[scheme] in error.remedy


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_who_may_not_list_is_told_so_at_once(
    scheme: str, answering: Answering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = answer_of(scheme, 403, "AccessDenied")
    answering.status, answering.body, answering.headers = told.status, told.body, told.headers
    clean_environment(monkeypatch, tmp_path, lead_to(scheme, answering.port))
    with Objects(Settings()) as objects:
        for key in ("", "p", "p/", "p/*.jpg"):
            with pytest.raises(AccessDenied):
                objects.listed(f"{scheme}://{BUCKET}/{key}", suffixes=IMAGE_SUFFIXES, counts=Counter())


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_service_that_does_not_answer_is_left_in_time(
    scheme: str, answering: Answering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering.is_silent = True
    clean_environment(monkeypatch, tmp_path, lead_to(scheme, answering.port))
    with Objects(Settings(fetch_deadline=0.5)) as objects:
        with pytest.raises(FetchTimeout):
            objects.read(f"{scheme}://{BUCKET}/a.jpg", size=5)
        with pytest.raises(FetchTimeout):
            objects.listed(f"{scheme}://{BUCKET}", suffixes=IMAGE_SUFFIXES, counts=Counter())


def test_an_s3_that_cannot_be_reached_or_breaks_off_is_told_so(
    answering: Answering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean_environment(monkeypatch, tmp_path, lead_to("s3", answering.port))
    answering.body, answering.promised = b"12345", 100
    with Objects(Settings()) as objects, pytest.raises(FetchFailed, match="breaks off"):
        objects.read(f"s3://{BUCKET}/a.jpg", size=5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        clean_environment(monkeypatch, tmp_path, lead_to("s3", closed.getsockname()[1]))
        with Objects(Settings()) as objects, pytest.raises(FetchFailed, match="cannot be reached"):
            objects.read(f"s3://{BUCKET}/a.jpg", size=5)


@pytest.mark.parametrize("scheme", ["s3", "gs"])  # adlfs' one filesystem stays open until the process ends
def test_connections_close_with_it(
    scheme: str, answering: Answering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def open_connections() -> int:
        connections = psutil.Process().net_connections("tcp")
        return sum(each.raddr != () and each.raddr.port == answering.port for each in connections)

    clean_environment(monkeypatch, tmp_path, lead_to(scheme, answering.port))
    answering.body = b"12345"
    with Objects(Settings()) as objects:
        assert objects.read(f"{scheme}://{BUCKET}/a.jpg", size=5) == b"12345"
        assert open_connections() > 0
    until(lambda: open_connections() == 0)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_what_is_stored_compressed_is_not_unpacked(
    scheme: str, answering: Answering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean_environment(monkeypatch, tmp_path, lead_to(scheme, answering.port))
    answering.body = gzip.compress(bytes(50_000_000))
    size = len(answering.body)
    tag = {
        "ETag": '"1"',
        "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT",
        "Content-Range": f"bytes 0-{size - 1}/{size}",
    }
    answering.headers = {"Content-Encoding": "gzip", **tag}
    with Objects(Settings(max_bytes=1_000_000)) as objects:
        assert objects.read(f"{scheme}://{BUCKET}/a.jpg", size=5) == answering.body


@pytest.mark.parametrize("scheme", ["s3", "az"])
def test_without_credentials_the_error_says_where_to_put_some(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean_environment(monkeypatch, tmp_path, {})
    with Objects(Settings()) as objects, pytest.raises(AccessDenied) as denied:
        objects.read(f"{scheme}://{BUCKET}/a.jpg")
    assert {"s3": "AWS_ACCESS_KEY_ID", "az": "AZURE_STORAGE_CONNECTION_STRING"}[scheme] in denied.value.remedy


@pytest.mark.parametrize(
    ("scheme", "env"),
    [
        ("s3", {"AWS_PROFILE": "absent"}),
        ("s3", {"AWS_ENDPOINT_URL": "localhost"}),
        ("az", {"AZURE_STORAGE_CONNECTION_STRING": f"AccountKey={SECRET};rubbish"}),
    ],
)
def test_a_wrong_configuration_is_told_without_repeating_it(
    scheme: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean_environment(monkeypatch, tmp_path, env)
    with Objects(Settings()) as objects, pytest.raises(AccessDenied, match="not configured here, or wrongly") as denied:
        objects.read(f"{scheme}://{BUCKET}/a.jpg")
    assert SECRET not in str(denied.value.as_dict())


@pytest.mark.parametrize(("scheme", "module"), [("s3", "s3fs"), ("gs", "gcsfs"), ("gcs", "gcsfs"), ("az", "adlfs")])
@pytest.mark.parametrize("absent", ["fsspec", None])
def test_a_missing_extra_is_named(
    scheme: str, module: str, absent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent or module, None)
    url = f"{scheme}://{BUCKET}/a.jpg"
    with Objects(Settings()) as objects:
        for ask in (
            lambda: check_object(url),
            lambda: objects.listed(url, suffixes=IMAGE_SUFFIXES, counts=Counter()),
        ):
            with pytest.raises(MissingExtra, match=rf"{module}: pip install 'crosslens\[cloud\]'"):
                ask()
        with pytest.raises(Unreadable, match="pip install") as raised:
            objects.read(url)
    assert isinstance(raised.value, CrosslensError)


def test_a_half_installed_extra_is_told_as_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "s3fs", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs.core", None)
    with Objects(Settings()) as objects, pytest.raises(Unreadable, match="pip install"):
        objects.read("s3://bucket/a.jpg")


def test_nothing_of_the_clouds_is_loaded_until_it_is_needed() -> None:
    import subprocess

    code = (
        "import sys; from indexer.media.objects import Objects, Settings; "
        "from indexer.media.object_urls import check_object; Objects(Settings()).close(); check_object('s3://bucket/k'); "
        "print(sorted({'fsspec', 's3fs', 'gcsfs', 'adlfs', 'aiohttp', 'botocore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
