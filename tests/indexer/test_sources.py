"""Archives, tables and captions beside images, from end to end: in once, skipped after, found again."""

import dataclasses
import gzip
import http.server
import json
import os
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest

from indexer import planning
from indexer.errors import MediaGone, SourceNotFound, UrlRefused
from indexer.items import content_id, sha256_hex
from indexer.media.archives import Reader
from indexer.media.discover import Candidate, discover
from indexer.media.entries import MAX_RATIO
from indexer.media.originals import Originals
from indexer.media.sources import path_of
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest, ingest_found
from indexer.planning import Planner, Task
from indexer.report import Failure, Report
from indexer.settings import Settings
from indexer.store import Collection, open_store
from tests.hostile import photo
from tests.packing import KINDS, encrypted, pack, regular, special, tar_of, write_tar
from tests.s3 import BUCKET, s3_server
from workers.references import from_reference, to_reference

PHOTOS = [(f"{number:02}.jpg", photo(number)) for number in range(8)]


@pytest.fixture
def collection(settings: Settings, encoder: Encoder) -> Iterator[Collection]:
    with open_store(settings) as store:
        yield store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)


@pytest.fixture
def originals(settings: Settings) -> Originals:
    return Originals.of(settings)


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("what is known must not be read")

    monkeypatch.setattr(Reader, "read", refuse)
    monkeypatch.setattr("indexer.media.contents.read_file", refuse)


def run(collection: Collection, encoder: Encoder, settings: Settings, *sources: Path) -> Report:
    return ingest([str(source) for source in sources], collection=collection, encoder=encoder, settings=settings)


def counts(report: Report) -> tuple[int, int, int]:
    return report.indexed, report.skipped, report.failed


def codes(report: Report, folder: Path) -> dict[str, str]:
    return {failure.source.removeprefix(f"{folder}/"): failure.error.code for failure in report.failures}


def stored_of(collection: Collection, data: bytes):
    return collection.get(content_id("media", sha256_hex(data)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_goes_in_and_a_second_run_reads_nothing(
    collection, encoder, settings, originals, tmp_path, monkeypatch, request, kind
) -> None:
    path = pack(tmp_path / f"x{kind}", [*PHOTOS, ("notes.md", b"words")])
    first = run(collection, encoder, settings, path)
    assert (counts(first), first.decoded, first.passed_over) == ((8, 0, 0), 8, 1)
    for name, data in PHOTOS:
        record = stored_of(collection, data).record
        assert record.locations[0].source == f"{path}!/{name}"
        assert (record.width, record.media_type) == (96, "image/jpeg")
        assert originals.read(record) == data
    request.getfixturevalue("no_reading")
    again = run(collection, encoder, settings, path)
    assert (counts(again), again.decoded) == ((0, 8, 0), 0)
    monkeypatch.undo()
    path.unlink()
    with pytest.raises(MediaGone):
        originals.read(stored_of(collection, PHOTOS[0][1]).record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_archive_is_seen(collection, encoder, settings, originals, tmp_path, kind) -> None:
    path = pack(tmp_path / f"x{kind}", PHOTOS)
    run(collection, encoder, settings, path)
    pack(path, [("new.jpg", photo(100)), ("00.jpg", photo(101)), *PHOTOS[1:]])
    os.utime(path, ns=(1, 1))
    report = run(collection, encoder, settings, path)
    assert (counts(report), report.decoded) == ((2, 7, 0), 2)
    assert stored_of(collection, PHOTOS[0][1]) is None
    assert originals.read(stored_of(collection, photo(101)).record) == photo(101)
    assert collection.count() == 9
    assert run(collection, encoder, settings, path).decoded == 0


@pytest.mark.parametrize("kind", [".tar", ".tar.zst"])
def test_a_shard_of_samples_goes_in_with_captions(collection, encoder, settings, tmp_path, request, kind) -> None:
    members = []
    for name, data in PHOTOS:
        stem = name.removesuffix(".jpg")
        fields = {"n": int(stem), "url": f"https://example.org/{name}"}
        members += [
            (name, data),
            (f"{stem}.txt", f"caption {stem}".encode()),
            (f"{stem}.json", json.dumps(fields).encode()),
        ]
    path = pack(tmp_path / f"shard-000{kind}", members)
    report = run(collection, encoder, settings, path)
    assert (counts(report), report.passed_over) == ((8, 0, 0), 0)
    assert stored_of(collection, PHOTOS[3][1]).payload == {
        "n": 3,
        "url": "https://example.org/03.jpg",
        "caption": "caption 03",
    }
    members[1] = ("00.txt", b"another caption")
    pack(path, members)
    os.utime(path, ns=(1, 1))
    changed = run(collection, encoder, settings, path)
    assert (counts(changed), changed.decoded) == ((1, 7, 0), 0)
    assert stored_of(collection, PHOTOS[0][1]).payload["caption"] == "another caption"
    request.getfixturevalue("no_reading")
    assert counts(run(collection, encoder, settings, path)) == (0, 8, 0)


def test_the_same_photo_in_archives_and_in_a_folder_is_one_item(collection, encoder, settings, tmp_path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for kind in KINDS:
        pack(folder / f"x{kind}", PHOTOS)
    (folder / "00.jpg").write_bytes(PHOTOS[0][1])
    assert counts(run(collection, encoder, settings, folder)) == (8, len(KINDS) * 8 + 1 - 8, 0)
    assert len(stored_of(collection, PHOTOS[0][1]).record.locations) == len(KINDS) + 1
    assert counts(run(collection, encoder, settings, folder)) == (0, len(KINDS) * 8 + 1, 0)


def make_hostile_archives(folder: Path) -> dict[str, str]:
    """Archives that nobody should trust, with three good photos each but where noted; gives the expected codes."""
    folder.mkdir()
    good = [(f"good-{number}.jpg", photo(number)) for number in range(3)]
    tarred = [(regular(name, data), data) for name, data in good]
    expected: dict[str, str] = {}

    def expect(archive: str, codes: dict[str, str]) -> None:
        expected.update({archive + (f"!/{name}" if name else ""): code for name, code in codes.items()})

    up = "../" * 10 + str(folder).lstrip("/") + "/written.jpg"
    pack(folder / "traversal.zip", [*good, (up, photo(10)), (str(folder / "written-2.jpg"), photo(11))])
    pack(folder / "traversal.tar", [*good, (up, photo(10)), (str(folder / "written-2.jpg"), photo(11))])
    pack(folder / "bomb.zip", [*good, *((f"{number}.bmp", bytes(2**24)) for number in range(8))])
    expect("bomb.zip", {"": "archive_refused", **{f"{n}.bmp": "not_an_image" for n in range(5)}})
    (folder / "bomb.tar.gz").write_bytes(
        gzip.compress(tar_of([*tarred, (regular("0.bmp", bytes(2**28)), bytes(2**28))]))
    )
    expect("bomb.tar.gz", {"": "archive_refused"})
    inner = pack(folder / "inner.zip", [("inner.jpg", photo(12))]).read_bytes()
    (folder / "inner.zip").unlink()
    pack(folder / "nested.zip", [*good, ("inner.zip", inner), ("disguised.jpg", inner)])
    expect("nested.zip", {"inner.zip": "bad_member", "disguised.jpg": "not_an_image"})
    encrypted(pack(folder / "encrypted.zip", [("secret.jpg", photo(13))]))
    expect("encrypted.zip", {"secret.jpg": "bad_member"})
    data = pack(
        folder / "cut.zip", [*good, ("cut.jpg", photo(14, (500, 500)))], compression=zipfile.ZIP_STORED
    ).read_bytes()
    (folder / "cut.zip").write_bytes(data[: data.index(b"cut.jpg") + 2000])
    expect("cut.zip", {"": "truncated"})
    whole = tar_of([*tarred, (regular("cut.jpg", photo(14, (500, 500))), photo(14, (500, 500)))])
    write_tar(folder / "cut.tar", whole[: whole.index(b"cut.jpg") + 2000])
    expect("cut.tar", {"": "truncated"})
    packed = write_tar(folder / "cut.tar.gz", whole).read_bytes()
    (folder / "cut.tar.gz").write_bytes(packed[:-3000])
    expect("cut.tar.gz", {"": "truncated"})
    write_tar(folder / "twice.tar", tar_of([*tarred, (regular("good-0.jpg", photo(15)), photo(15))]))
    expect("twice.tar", {"good-0.jpg": "bad_member"})
    links = [special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), special("hard.jpg", tarfile.LNKTYPE, "good-0.jpg")]
    devices = [special("zero.jpg", tarfile.CHRTYPE), special("pipe.jpg", tarfile.FIFOTYPE)]
    write_tar(folder / "links.tar", tar_of([*((info, b"") for info in [*links, *devices]), *tarred]))
    expect("links.tar", dict.fromkeys(("link.jpg", "hard.jpg", "zero.jpg", "pipe.jpg"), "bad_member"))
    (folder / "nothing.zip").write_bytes(b"")
    (folder / "nothing.tar").write_bytes(b"")
    expected |= {"nothing.zip": "empty", "nothing.tar": "empty"}
    pack(folder / "x.tar", good).rename(folder / "wrong.zip")
    pack(folder / "y.zip", good).rename(folder / "wrong.tar.gz")
    (folder / "words.zip").write_bytes(b"words " * 1000)
    expected["words.zip"] = "unreadable"
    pack(folder / "many.tar", [*good, *((f"{n}.md", b"") for n in range(2000))])
    expect("many.tar", {"": "archive_refused"})
    pack(folder / "bad.zip", [*good, ("bad.jpg", b"no picture"), ("empty.png", b"")])
    expect("bad.zip", {"bad.jpg": "not_an_image", "empty.png": "empty"})
    os.mkfifo(folder / "pipe.zip")
    return expected


def test_hostile_archives_cost_nobody_anything(collection, encoder, settings, tmp_path) -> None:
    folder = tmp_path / "hostile"
    expected = make_hostile_archives(folder)
    before = sorted(tmp_path.rglob("*"))
    few = settings.model_copy(update={"max_archive_members": 1000})
    report = run(collection, encoder, few, folder)
    assert codes(report, folder) == expected
    assert collection.count() == 5  # the three, and those whose names led elsewhere
    assert [p for p in sorted(tmp_path.rglob("*")) if few.data not in [p, *p.parents]] == [
        p for p in before if few.data not in [p, *p.parents]
    ]
    again = run(collection, encoder, few, folder)
    assert (codes(again, folder), again.indexed, again.decoded) == (expected, 0, 0)
    assert MAX_RATIO == 200


class Counts:
    passed_over = 0


def noise(seed: int, size: int) -> bytes:
    return b"\xff\xd8\xff" + np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz"])
def test_planning_an_archive_takes_the_memory_of_one_part(collection, settings, tmp_path, monkeypatch, kind) -> None:
    monkeypatch.setattr(planning, "_GROUP_BYTES", 2**20)
    path = pack(tmp_path / f"x{kind}", ((f"{n}.jpg", noise(n, 200_000)) for n in range(150)))
    planner = Planner(collection, Report("c", "m"), settings)
    found = discover([str(path)], report=Counts(), settings=settings)
    planned = 0
    tracemalloc.start()
    for task in planner.plan(found):
        planned += 1
        planner.settle([(task, task.record)])
        task.data = b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert planned == 150
    assert peak < 6 * 2**20  # of 30 MB


def test_fifty_thousand_members_go_through_planning_in_little_memory(collection, settings, tmp_path) -> None:
    path = pack(tmp_path / "x.tar.gz", ((f"{n}.jpg", b"\xff\xd8\xff%d" % n) for n in range(50_000)))
    found = discover([str(path)], report=Counts(), settings=settings)
    report = Report("c", "m")
    planner = Planner(collection, report, settings)
    collected: list[Task] = []

    class Asked:
        """An index that holds nothing and answers at once."""

        name = "media"

        def by_sources(self, sources: list[str]) -> dict:
            return {}

        def get_many(self, ids: list[str]) -> dict:
            return {}

    planner._collection = Asked()  # type: ignore[assignment]
    tracemalloc.start()
    count = 0
    for task in planner.plan(found):
        count += 1
        planner.settle([(task, task.record)])
        collected[:] = [task]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, report.failed) == (50_000, 0)
    assert collected[0].record.locations[0].source.endswith("x.tar.gz!/49999.jpg")
    assert peak < 12 * 2**20


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_survives_json(collection, encoder, settings, tmp_path, kind) -> None:
    path = pack(tmp_path / f"x{kind}", [*PHOTOS, ("00.txt", b"of nobody: 00.jpg is not beside it")])
    found = list(discover([str(path)], report=Counts(), settings=settings))
    fields = [{k: v for k, v in dataclasses.asdict(each).items() if k != "path"} for each in found]
    again = [Candidate(path=path_of(each["source"]), **each) for each in json.loads(json.dumps(fields))]
    report = Report("media", "m")
    for half in (again[4:], again[:4]):
        ingest_found(half, collection=collection, encoder=encoder, settings=settings, report=report)
    assert counts(report) == (8, 0, 0)
    path.unlink()
    gone = Report("media", "m")
    moved = [dataclasses.replace(each, size=1) for each in again]
    ingest_found(moved, collection=collection, encoder=encoder, settings=settings, report=gone)
    assert {failure.error.code for failure in gone.failures} == {"media_gone"}
    assert gone.failed == 8


def test_a_table_goes_in_and_a_second_run_skips_it(collection, encoder, settings, tmp_path, request) -> None:
    for name, data in PHOTOS:
        (tmp_path / name).write_bytes(data)
    table = tmp_path / "table.csv"
    rows = [f"{name},caption {name},{number},{number / 4}" for number, (name, _) in enumerate(PHOTOS)]
    table.write_text("\n".join(["file,caption,n,score", *rows, "gone.jpg,,,", "too,few"]))
    report = run(collection, encoder, settings, table)
    assert counts(report) == (8, 0, 2)
    assert codes(report, tmp_path) == {"table.csv:10": "unreadable", "table.csv:11": "invalid_text_source"}
    assert stored_of(collection, PHOTOS[3][1]).payload == {"caption": "caption 03.jpg", "n": 3, "score": 0.75}
    request.getfixturevalue("no_reading")
    again = run(collection, encoder, settings, table)
    assert (counts(again), again.decoded) == ((0, 8, 2), 0)


def test_ids_of_a_table_name_items(collection, encoder, settings, tmp_path, request) -> None:
    for name, data in PHOTOS:
        (tmp_path / name).write_bytes(data)
    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(json.dumps({"image": name, "id": n, "k": name}) for n, (name, _) in enumerate(PHOTOS)))
    assert counts(run(collection, encoder, settings, table)) == (8, 0, 0)
    request.getfixturevalue("no_reading")
    assert counts(run(collection, encoder, settings, table)) == (0, 8, 0)


def test_captions_beside_photos_go_with_them(collection, encoder, settings, tmp_path, request) -> None:
    folder = tmp_path / "photos"
    (folder / "d.json").mkdir(parents=True)
    files = {
        "a.jpg": photo(0), "a.txt": b"\xef\xbb\xbfa cat\n", "a.json": b'{"tag": "x", "caption": "other"}',
        "b.PNG": photo(1, form="PNG"), "b.TXT": b"a dog",
        "c.jpg": photo(2), "c.json": b"[]", "c.txt": b"still",
        "d.jpg": photo(3),
        "e.jpg": photo(4), "e.txt": b"  \n",
        "alone.txt": b"passed over", "readme.md": b"too",
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "e.json").symlink_to("/dev/zero")
    report = run(collection, encoder, settings, folder)
    assert codes(report, folder) == {"c.json": "invalid_text_source", "e.json": "unreadable"}
    assert (report.indexed, report.passed_over) == (5, 2)
    payloads = [stored_of(collection, files[name]).payload for name in ("a.jpg", "b.PNG", "c.jpg", "d.jpg", "e.jpg")]
    assert payloads == [{"tag": "x", "caption": "a cat"}, {"caption": "a dog"}, {"caption": "still"}, {}, {}]
    (folder / "a.txt").write_text("two cats")
    changed = run(collection, encoder, settings, folder)
    assert (changed.indexed, changed.skipped, changed.decoded) == (1, 4, 0)
    assert stored_of(collection, files["a.jpg"]).payload["caption"] == "two cats"
    request.getfixturevalue("no_reading")
    assert run(collection, encoder, settings, folder).skipped == 5
    off = settings.model_copy(update={"sidecars": False})
    ignoring = run(collection, encoder, off, folder)
    assert (ignoring.skipped, ignoring.passed_over, codes(ignoring, folder)) == (5, 9, {})


class _Photos(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        number = self.path.removesuffix(".jpg").removeprefix("/")
        self.send_response(200 if number.isdigit() else 404)
        self.end_headers()
        self.wfile.write(photo(int(number)) if number.isdigit() else b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (_Photos,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_urls_of_a_table_are_fetched_once(collection, encoder, settings, tmp_path, server) -> None:
    pytest.importorskip("indexer.media.fetch")
    host, asked = server
    (tmp_path / "local.jpg").write_bytes(photo(500))
    table = tmp_path / "urls.csv"
    table.write_text(
        "\n".join(
            ["url,caption", *(f"http://{host}/{n}.jpg,c{n}" for n in range(70)), "local.jpg,x", f"http://{host}/no,"]
        )
    )
    refused = run(collection, encoder, settings, table)
    assert (counts(refused), asked) == ((1, 0, 71), [])
    allowed = settings.model_copy(update={"fetch_allow": host})
    report = run(collection, encoder, allowed, table)
    assert (counts(report), len(asked)) == ((70, 1, 1), 71)
    assert codes(report, tmp_path) == {f"http://{host}/no": "fetch_failed"}
    stored = stored_of(collection, photo(3))
    assert (stored.payload, stored.record.locations[0].source) == ({"caption": "c3"}, f"http://{host}/3.jpg")
    asked.clear()
    assert counts(run(collection, encoder, allowed, table)) == (0, 71, 1)
    assert asked == ["/no"]


def test_a_url_is_a_source_of_its_own(collection, encoder, settings, tmp_path, server) -> None:
    host, asked = server
    allowed = settings.model_copy(update={"fetch_allow": host})
    urls = [f"http://{host}/{n}.jpg" for n in range(3)]
    assert counts(run(collection, encoder, allowed, *urls)) == (3, 0, 0)
    assert stored_of(collection, photo(2)).record.locations[0].source == urls[2]
    assert counts(run(collection, encoder, allowed, urls[2])) == (0, 1, 0)
    assert sorted(asked) == ["/0.jpg", "/1.jpg", "/2.jpg"]
    with pytest.raises(UrlRefused):
        run(collection, encoder, allowed, "gopher://example.org/1.jpg")


def test_objects_of_a_bucket_are_read_where_they_lie(collection, encoder, settings, tmp_path, monkeypatch) -> None:
    with s3_server(monkeypatch) as address:
        client = boto3.client("s3", endpoint_url=address)
        for number in range(3):
            client.put_object(Bucket=BUCKET, Key=f"photos/{number}.jpg", Body=photo(number))
        client.put_object(Bucket=BUCKET, Key="photos/readme.md", Body=b"nothing")
        client.put_object(Bucket=BUCKET, Key="photos/bad.png", Body=b"nothing")
        first = run(collection, encoder, settings, f"s3://{BUCKET}/photos")
        assert (counts(first), first.passed_over) == ((3, 0, 1), 1)
        assert codes(first, tmp_path) == {f"s3://{BUCKET}/photos/bad.png": "not_an_image"}
        assert stored_of(collection, photo(1)).record.locations[0].source == f"s3://{BUCKET}/photos/1.jpg"
        again = run(collection, encoder, settings, f"s3://{BUCKET}/photos/*.jpg")
        assert (counts(again), again.decoded) == ((0, 3, 0), 0)
        table = tmp_path / "table.csv"
        table.write_text(f"path,caption\ns3://{BUCKET}/photos/2.jpg,the last\n")
        assert counts(run(collection, encoder, settings, table)) == (1, 0, 0)
        assert stored_of(collection, photo(2)).payload["caption"] == "the last"
        found = Candidate(f"s3://{BUCKET}/photos/0.jpg", size=5, mtime_ns=7)
        assert from_reference(to_reference(found)) == found
        with pytest.raises(SourceNotFound, match="no bucket"):
            run(collection, encoder, settings, tmp_path, "s3://nobodys-bucket/x")
    with pytest.raises(UrlRefused):
        run(collection, encoder, settings, "ftp://example.org/1.jpg")


def test_all_at_once(collection, encoder, settings, tmp_path) -> None:
    """A folder of everything, twice."""
    folder = tmp_path / "all"
    folder.mkdir()
    for number, kind in enumerate(KINDS):
        pack(folder / f"x{kind}", [(f"{n}.jpg", photo(100 * number + n)) for n in range(5)])
    (folder / "photo.jpg").write_bytes(photo(9000))
    (folder / "photo.txt").write_text("a photo")
    table = tmp_path / "table.tsv"
    (tmp_path / "row.jpg").write_bytes(photo(9001))
    table.write_text("path\tcaption\nrow.jpg\ta row\n")
    assert counts(run(collection, encoder, settings, folder, table)) == (5 * len(KINDS) + 2, 0, 0)
    again = run(collection, encoder, settings, folder, table)
    assert (counts(again), again.decoded) == ((0, 5 * len(KINDS) + 2, 0), 0)
    assert not [each for each in discover([str(folder)], report=Counts()) if isinstance(each, Failure)]
