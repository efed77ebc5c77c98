"""Backup and restore: a lost data folder comes back, and what is not a whole backup is refused before it does harm."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from indexer.backup import restore, save
from indexer.backup.parts import Reader, Writer, is_name, writing
from indexer.cli.backup import backup as backup_command
from indexer.cli.backup import restore as restore_command
from indexer.edge.address import OWNER_FILE
from indexer.edge.files import FileLock
from indexer.errors import InvalidBackup, InvalidRequest
from indexer.media.originals import Originals
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import Collection, Store, open_store
from indexer.store.collection import SUCCESSOR
from indexer.uploads import Upload, ingest_uploads
from tests.bundles import COLOURS, make_bundle, picture
from tests.hostile import photo
from tests.indexer.store.fake_qdrant import fake_qdrant
from tests.waiting import until


@pytest.fixture
def filled(settings: Settings, encoder: Encoder, tmp_path: Path) -> Settings:
    """A data folder with everything in it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.jpg").write_bytes(photo(number))
    with open_store(settings) as store:
        media = made(store, encoder)
        ingest([str(folder)], collection=media, encoder=encoder, settings=settings)
        upload(media, encoder, settings, *(picture(colour) for colour in COLOURS))
        store.declare("media", {"mood": "keyword"})
        store.annotate("media", "labels.kept", {"definition": 1})
        store.create("other", "another", "f" * 16, 4)
        store.alias("further", "media")
        store.note(store.physical("other"), SUCCESSOR, "media")
    make_bundle(settings.models_folder, "mine")
    (settings.data / "access").mkdir()
    (settings.data / "access" / "keys.json").write_text('{"keys": {}, "used": {}}')
    queue = settings.data / "broker" / "appendonlydir"
    queue.mkdir(parents=True)
    (queue / "appendonly.aof.1.base.rdb").write_bytes(b"REDIS base")
    (queue / "appendonly.aof.1.incr.aof").write_bytes(b"*1\r\n$4\r\nPING\r\n")
    (queue / "appendonly.aof.0.old").write_bytes(b"no longer in use")
    (queue / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    )
    return settings


def made(store: Store, encoder: Encoder) -> Collection:
    return store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)


def upload(media: Collection, encoder: Encoder, settings: Settings, *contents: bytes | str) -> list[str]:
    originals = Originals.of(settings)
    outcomes = ingest_uploads(
        [Upload("it", content, {"mood": "calm"}) for content in contents],
        collection=media, encoder=encoder, originals=originals, settings=settings,
    )  # fmt: skip
    assert not [each.error for each in outcomes if each.error]
    return [each.id for each in outcomes]


def backed_up(settings: Settings, target: Path) -> Path:
    with open_store(settings) as store:
        save(store, settings, target)
    return target


def lose(settings: Settings) -> None:
    """The data folder is gone, once the index process, which goes on writing for a moment, is."""
    with closing(FileLock(settings.index_folder / OWNER_FILE)) as owner:
        until(owner.try_acquire)
        shutil.rmtree(settings.data)


def answers(store: Store, encoder: Encoder) -> Any:
    media = store.get("media")
    vectors = encoder.encode_texts([*COLOURS]).vectors
    found = [media.search(vector, 1000) for vector in vectors]
    contents = [{hit.id: (hit.payload, hit.record) for hit in hits} for hits in found]
    scores = [[score for _, score in sorted((hit.id, hit.score) for hit in hits)] for hits in found]
    return contents, np.array(scores, np.float32)


@pytest.mark.parametrize("form", ["copy", "copy.zip"])
def test_a_lost_data_folder_comes_back_whole(filled: Settings, encoder: Encoder, tmp_path: Path, form: str) -> None:
    with open_store(filled) as store:
        expected = answers(store, encoder)
        items = {item.id: item for item in store.get("media").scan()}
    done = CliRunner().invoke(backup_command, [str(tmp_path / form), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["collections"] == {"media": len(items), "other": 0}
    lose(filled)
    back = CliRunner().invoke(restore_command, [str(tmp_path / form), "--json"], catch_exceptions=False)
    assert json.loads(back.stdout)["collections"] == {"media": len(items), "other": 0}
    with open_store(filled) as store:
        contents, scores = answers(store, encoder)
        assert contents == expected[0]
        np.testing.assert_allclose(scores, expected[1], atol=1e-5)
        media = store.get("media")
        assert {item.id: item for item in media.scan()} == items
        assert media.fields["mood"] == "keyword"
        assert media.metadata["labels.kept"] == {"definition": 1}
        assert store.aliases() == {"further": "media"}
        assert store.physical("other").metadata[SUCCESSOR] == "media"
        for item in items.values():
            if item.record.locations[0].source.startswith("upload:"):
                assert Originals.of(filled).read(item.record)
    assert (filled.data / "access" / "keys.json").read_text() == '{"keys": {}, "used": {}}'
    assert (filled.models_folder / "mine" / "manifest.json").exists()
    queue = filled.data / "broker" / "appendonlydir"
    assert {each.name for each in queue.iterdir()} == {
        "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof", "appendonly.aof.manifest"
    }  # fmt: skip
    assert not (filled.data / "restoring").exists()


def test_what_was_acknowledged_before_is_in_a_backup_made_while_others_write(
    filled: Settings, encoder: Encoder, tmp_path: Path
) -> None:
    ending, begun = threading.Event(), threading.Event()
    acknowledged: list[str] = []

    with open_store(filled) as store:
        media = store.get("media")

        def write() -> None:
            number = 0
            while not ending.is_set():
                number += 1
                acknowledged.extend(upload(media, encoder, filled, picture("red", mark=number), f"text {number}"))
                begun.set()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert begun.wait(30)
            before = list(acknowledged)
            count = len(before)
            save(store, filled, tmp_path / "copy")
            while len(acknowledged) <= count:  # it did write on meanwhile
                ending.wait(0.01)
        finally:
            ending.set()
            writer.join()
    lose(filled)
    restore(tmp_path / "copy", filled)
    with open_store(filled) as store:
        media = store.get("media")
        assert media.present(before) == set(before)
        originals = Originals.of(filled)
        for item in media.scan():  # whatever is in the index has its upload, also what came meanwhile
            if item.record.kind == "image":
                originals.read(item.record)


def test_the_queue_and_the_keys_in_it_come_back(filled: Settings, tmp_path: Path) -> None:
    """With a real Valkey, saved while it runs."""
    import subprocess
    import time

    import redis

    from workers.broker import server_command, socket_path

    shutil.rmtree(filled.data / "broker")
    for turn in ("saved", "restored"):
        server = subprocess.Popen(server_command(filled))
        try:
            client = redis.Redis(unix_socket_path=str(socket_path(filled)))
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    client.ping()
                    break
                except redis.RedisError:
                    time.sleep(0.02)
            if turn == "saved":
                client.hset("crosslens:keys", "one", "kept")
                client.rpush("crosslens:job", *range(1000))
                client.bgrewriteaof()
                backed_up(filled, tmp_path / "copy")
            else:
                assert client.hget("crosslens:keys", "one") == b"kept"
                assert client.llen("crosslens:job") == 1000
        finally:
            server.kill()
            server.wait()
        if turn == "saved":
            lose(filled)
            restore(tmp_path / "copy", filled)


def test_a_backup_moves_from_a_data_folder_to_a_server_and_back(
    filled: Settings, encoder: Encoder, tmp_path: Path
) -> None:
    with open_store(filled) as store:
        items = {item.id: item for item in store.get("media").scan()}
        save(store, filled, tmp_path / "copy.zip")
    with fake_qdrant(Settings(data=tmp_path / "behind")) as server:
        remote = filled.model_copy(
            update={"data": tmp_path / "api", "qdrant_url": server.url, "qdrant_prefer_grpc": False}
        )
        restore(tmp_path / "copy.zip", remote)
        with open_store(remote) as store:
            assert {item.id: item for item in store.get("media").scan()} == items
            save(store, remote, tmp_path / "again")
        with pytest.raises(InvalidRequest, match="has a collection"):
            restore(tmp_path / "copy.zip", remote.model_copy(update={"data": tmp_path / "second"}))
    lose(filled)
    restore(tmp_path / "again", filled)
    with open_store(filled) as store:
        assert {item.id: item for item in store.get("media").scan()} == items


def test_a_folder_with_anything_in_it_is_left_alone(filled: Settings, tmp_path: Path) -> None:
    copy = backed_up(filled, tmp_path / "copy")
    with pytest.raises(InvalidRequest, match="not empty"):
        restore(copy, filled)
    with pytest.raises(InvalidRequest, match="there already"):
        backed_up(filled, copy)
    fresh = filled.model_copy(update={"data": tmp_path / "fresh"})
    (fresh.data / "restoring").mkdir(parents=True)  # of a restore that was killed
    (fresh.data / "restoring" / "half").touch()
    restore(copy, fresh)
    assert not (fresh.data / "half").exists()
    assert sorted(each.name for each in tmp_path.glob("*.partial")) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup without an index, for those who damage it."""
    home = tmp_path_factory.mktemp("small")
    with writing(home / "copy.zip") as writer:
        fill(writer)
    return home / "copy.zip"


def fill(writer: Writer, name: str = "models/a.bin") -> None:
    writer.add(name, [b"some bytes", b" and more" * 200])
    writer.add("access/keys.json", [b"{}"])
    nothing: dict[str, Any] = {"collections": [], "aliases": {}, "media": 0, "files": 2}
    writer.finish({"format": 1, **nothing})


def refused(source: Path, settings: Settings, match: str = "backup") -> None:
    with pytest.raises(InvalidBackup, match=match) as error:
        restore(source, settings)
    assert error.value.remedy
    assert not settings.data.exists() or not any(settings.data.iterdir())


def test_a_cut_backup_is_refused_wherever_it_ends(small: Path, settings: Settings, tmp_path: Path) -> None:
    whole = small.read_bytes()
    for length in (0, 10, len(whole) // 3, len(whole) - 30, len(whole) - 1):
        (tmp_path / "cut.zip").write_bytes(whole[:length])
        refused(tmp_path / "cut.zip", settings, "no backup, or its end")


def test_a_changed_byte_anywhere_is_refused_or_changes_nothing(small: Path, settings: Settings, tmp_path: Path) -> None:
    whole = small.read_bytes()
    told = 0
    for place in range(0, len(whole), max(1, len(whole) // 120)):
        altered = bytearray(whole)
        altered[place] ^= 0x5A
        (tmp_path / "altered.zip").write_bytes(altered)
        try:
            reader = Reader(tmp_path / "altered.zip")
            found = {part.name: b"".join(reader.chunks(part)) for part in reader.parts()}
        except InvalidBackup:
            told += 1
            continue
        assert found["models/a.bin"] == b"some bytes" + b" and more" * 200  # it was a date, or the like
    assert told > 60


@pytest.fixture
def loose(small: Path, tmp_path: Path) -> Path:
    """The same as a folder."""
    with zipfile.ZipFile(small) as archive:
        archive.extractall(tmp_path / "loose")
    return tmp_path / "loose"


def test_a_missing_a_longer_and_a_swapped_file_are_refused(loose: Path, settings: Settings) -> None:
    part = loose / "models" / "a.bin"
    content = part.read_bytes()
    for wrong in (content[:-1], content + b"x", b"X" + content[1:]):
        part.write_bytes(wrong)
        refused(loose, settings, "not what was saved")
    part.unlink()
    refused(loose, settings, "missing")
    (loose / "elsewhere").write_bytes(content)
    part.symlink_to(loose / "elsewhere")
    refused(loose, settings, "missing")
    part.unlink()
    part.parent.rename(loose.parent / "outside")
    (loose.parent / "outside" / "a.bin").write_bytes(content)
    (loose / "models").symlink_to(loose.parent / "outside")
    refused(loose, settings, "link")


def test_another_list_or_manifest_is_refused(loose: Path, settings: Settings) -> None:
    parts, manifest = loose / "parts.jsonl", loose / "manifest.json"
    whole = parts.read_text()
    parts.write_text(whole.splitlines()[0] + "\n")
    refused(loose, settings, "altered or cut")
    parts.write_text(whole)
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "files": 1}))
    refused(loose, settings, "manifest was altered")
    for wrong in ("", "[]", "{}", "[" * 100_000):
        manifest.write_text(wrong)
        refused(loose, settings, "manifest")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "a//b", ".hidden", "a/.git/x", "a\\..\\b", "a\0b", "", "a/", "C:/x", "a\n"]
)
def test_a_name_that_leads_elsewhere_is_never_followed(
    settings: Settings, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_name(name)
    with writing(tmp_path / "evil.zip") as writer:
        with pytest.raises(InvalidRequest):
            writer.add(name, [b"x"])
        with monkeypatch.context() as patch:  # by whoever writes backups of his own, hashes and all
            patch.setattr("indexer.backup.parts.is_name", lambda _: True)
            fill(writer, name)
    refused(tmp_path / "evil.zip", settings)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "name", ["index/aliases.json", "uploads/a", "media/aa/b", "collections/media/x", "restoring/a"]
)
def test_a_part_where_none_belongs_is_refused(settings: Settings, tmp_path: Path, name: str) -> None:
    with writing(tmp_path / "evil.zip") as writer:
        fill(writer, name)
    refused(tmp_path / "evil.zip", settings)


@given(st.text(max_size=40))
def test_what_is_a_name_stays_below_its_folder(name: str) -> None:
    if is_name(name):
        path = (Path("/a/b") / name).as_posix()
        assert path == f"/a/b/{name}"
        assert ".." not in path.split("/")
        assert "\0" not in path
