"""Folders followed on a real index, by the kernel's own messages: what appears, changes, moves and goes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import inotify_simple
import pytest

from indexer import changes as changes_module
from indexer import watch as watching
from indexer.changes import Changes
from indexer.errors import CollectionNotFound, InvalidRequest, SourceNotFound
from indexer.items import content_id, sha256_hex
from indexer.media.changed import discover_changed
from indexer.models.encoder import Encoder
from indexer.report import Report
from indexer.settings import Settings
from indexer.store import Collection, Store, connection, open_store
from indexer.watch import watch
from tests.hostile import photo
from tests.indexer.store.fake_qdrant import Answer, fake_qdrant
from tests.waiting import until

ROOT = os.geteuid() == 0


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@pytest.fixture
def collection(store: Store, encoder: Encoder) -> Collection:
    return store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(photo(number))
    return folder


@dataclass
class Told:
    """What a watch said."""

    batches: list[Report] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        return [failure.error.code for report in self.batches for failure in report.failures]

    def sum(self, name: str) -> int:
        return sum(getattr(report, name) for report in self.batches)


@contextmanager
def followed(
    *folders: Path, collection: Collection, encoder: Encoder, settings: Settings, **more: object
) -> Iterator[Told]:
    """A watch in a thread, past its first walk; whatever it raises comes out in the end."""
    told, stop, raised = Told(), threading.Event(), []

    def run() -> None:
        try:
            watch(
                folders,
                collection=collection,
                encoder=encoder,
                settings=settings,
                stop=stop,
                on_batch=told.batches.append,
                on_notice=told.notices.append,
                **{"settle": 0.2, **more},  # type: ignore[arg-type]
            )
        except BaseException as error:  # noqa: BLE001  it comes out below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: told.batches or raised)
        yield told
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
        if raised:
            raise raised[0]


@pytest.fixture
def follow(collection: Collection, encoder: Encoder, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "_TICK", 0.02)
    return lambda *folders, **more: followed(
        *folders, **{"collection": collection, "encoder": encoder, "settings": settings, **more}
    )


def id_of(path: Path) -> str:
    return content_id("media", sha256_hex(path.read_bytes()))


def sources_in(collection: Collection) -> set[str]:
    stored = collection.get_many([each for page in collection.ids(1000) for each in page])
    return {location.source for item in stored.values() for location in item.record.locations}


def names_in(collection: Collection) -> set[str]:
    return {Path(source).name for source in sources_in(collection)}


def come_and_go(path: Path, collection: Collection) -> None:
    """Have a file indexed and removed: whatever was gone before it has had its turn then."""
    path.write_bytes(photo(7777))
    until(lambda: path.name in names_in(collection))
    path.unlink()
    until(lambda: path.name not in names_in(collection))


def test_what_appears_changes_and_goes(follow, collection, photos, tmp_path) -> None:
    with follow(photos) as told:
        assert told.batches[0].indexed == 3
        (photos / "new.jpg").write_bytes(photo(10))
        until(lambda: collection.count() == 4)
        (tmp_path / "elsewhere.jpg").write_bytes(photo(11))
        (tmp_path / "elsewhere.jpg").rename(photos / "moved-in.jpg")
        until(lambda: collection.count() == 5)
        before = id_of(photos / "new.jpg")
        (photos / "new.jpg").write_bytes(photo(12))
        until(lambda: collection.get(id_of(photos / "new.jpg")) and not collection.get(before))
        (photos / "0.jpg").unlink()
        (photos / "1.jpg").rename(tmp_path / "moved-out.jpg")
        until(lambda: names_in(collection) == {"2.jpg", "new.jpg", "moved-in.jpg"})
        until(lambda: told.sum("removed") == 2)
    assert told.failures() == []
    assert told.notices == []
    assert told.sum("indexed") == 6


def test_what_is_renamed_keeps_its_item_and_is_not_embedded_again(follow, collection, photos) -> None:
    for number in range(50):
        (photos / "album" / f"{number}.jpg").parent.mkdir(exist_ok=True)
        (photos / "album" / f"{number}.jpg").write_bytes(photo(100 + number))
    with follow(photos) as told:
        ids = {each for page in collection.ids(100) for each in page}
        added = {each: stored.record.added_at for each, stored in collection.get_many(list(ids)).items()}
        (photos / "0.jpg").rename(photos / "sub.jpg")
        (photos / "album").rename(photos / "holiday")
        expected = {str(photos / "holiday" / f"{number}.jpg") for number in range(50)}
        expected |= {str(photos / name) for name in ("sub.jpg", "1.jpg", "2.jpg")}
        until(lambda: sources_in(collection) == expected)
        (photos / "holiday" / "in.jpg").write_bytes(photo(999))  # it is followed under its new name
        until(lambda: str(photos / "holiday" / "in.jpg") in sources_in(collection))
    now = collection.get_many(list(ids))
    assert {each: stored.record.added_at for each, stored in now.items()} == added
    assert [report.decoded for report in told.batches[1:] if report.decoded] == [1]
    assert told.sum("removed") == 0
    assert told.failures() == []


def test_a_burst_becomes_batches(follow, collection, photos, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(600):
            archive.writestr(f"{number % 20}/deep/{number}.jpg", photo(1000 + number, size=(12, 8)))
    with follow(photos) as told:
        with zipfile.ZipFile(tmp_path / "many.zip") as archive:
            archive.extractall(photos / "unpacked")
        until(lambda: collection.count() == 603, 60)
        until(lambda: told.sum("indexed") == 603)
        shutil.rmtree(photos / "unpacked")
        until(lambda: collection.count() == 3, 60)
        until(lambda: told.sum("removed") == 600)
    assert told.failures() == []
    assert len(told.batches) < 60


def test_a_truncated_file_that_grows_is_tried_again(follow, collection, photos) -> None:
    content = photo(20, size=(400, 300))
    with follow(photos) as told:
        (photos / "part.jpg").write_bytes(content[: len(content) // 2])
        until(lambda: told.failures() == ["truncated"])
        with (photos / "part.jpg").open("ab") as file:
            file.write(content[len(content) // 2 :])
        until(lambda: collection.get(content_id("media", sha256_hex(content))))
    assert told.failures() == ["truncated"]


def test_nothing_is_read_before_it_has_settled(tmp_path) -> None:
    with Changes() as changes:
        changes.follow(tmp_path)
        (tmp_path / "a.jpg").write_bytes(b"half")
        until(lambda: changes.is_pending(tmp_path / "a.jpg"))
        assert changes.take(settle=3600) == ([], [], [])
        assert changes.take(settle=0) == ([tmp_path / "a.jpg"], [], [])
        assert not any(changes.take(settle=0))
        (tmp_path / "b.jpg").touch()
        (tmp_path / "folder").mkdir()
        until(lambda: changes.is_pending(tmp_path / "folder"))
        (tmp_path / "b.jpg").unlink()
        (tmp_path / "folder").rmdir()
        files, folders = [], []

        def take() -> bool:
            taken = changes.take(settle=0)
            assert not taken.there
            files.extend(taken.files)
            folders.extend(taken.folders)
            return bool(files and folders)

        until(take)
        assert (set(files), set(folders)) == ({tmp_path / "b.jpg"}, {tmp_path / "folder"})


def test_what_is_gone_is_held_back_until_what_it_became_is_known(tmp_path, monkeypatch) -> None:
    (tmp_path / "before.jpg").touch()
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(changes_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with Changes() as changes:
        changes.follow(tmp_path)
        (tmp_path / "before.jpg").rename(tmp_path / "after.jpg")
        until(lambda: changes.is_pending(tmp_path / "after.jpg"))
        clock.now += 1.5
        assert changes.take(settle=1.0) == ([tmp_path / "after.jpg"], [], [])
        clock.now += 0.5
        assert changes.take(settle=1.0) == ([], [tmp_path / "before.jpg"], [])


def test_of_too_many_changes_the_list_is_given_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(changes_module, "_MOST_PATHS", 50)
    with Changes() as changes:
        changes.follow(tmp_path)
        for number in range(200):
            (tmp_path / f"{number}.jpg").touch()
        until(changes.take_lost)
        assert not changes.take_lost()


def test_what_is_unsettled_is_left_out_of_a_walk(follow, collection, photos, monkeypatch) -> None:
    monkeypatch.setattr(Changes, "is_pending", lambda self, path: path.name == "1.jpg")
    with follow(photos) as told:
        assert told.batches[0].indexed == 2
    assert names_in(collection) == {"0.jpg", "2.jpg"}


def test_captions_beside_a_photo_follow(follow, collection, photos) -> None:
    def payload() -> dict[str, object]:
        return collection.get(id_of(photos / "1.jpg")).payload

    with follow(photos) as told:
        (photos / "1.txt").write_text("a first caption")
        until(lambda: payload().get("caption") == "a first caption")
        (photos / "1.json").write_text('{"place": "Oslo"}')
        until(lambda: payload().get("place") == "Oslo")
        (photos / "1.txt").write_text("another one")
        until(lambda: payload().get("caption") == "another one")
        (photos / "new.txt").write_text("with its photo")
        (photos / "new.jpg").write_bytes(photo(30))
        until(lambda: collection.count() == 4)
        assert collection.get(id_of(photos / "new.jpg")).payload["caption"] == "with its photo"
        (photos / "README.txt").write_text("of no photo")
        (photos / "rows.csv").write_text("file\n1.jpg\n")
        (photos / "last.jpg").write_bytes(photo(31))
        until(lambda: collection.count() == 5)
    assert told.sum("decoded") == 5
    assert told.failures() == []


def test_the_hidden_and_the_own_folder_are_left_out(collection, encoder, photos, settings, monkeypatch) -> None:
    inside = settings.model_copy(update={"data": photos / "data"})
    with open_store(inside) as own:
        mine = own.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        with followed(photos, collection=mine, encoder=encoder, settings=inside) as told:
            for folder in (".hidden", "data"):
                (photos / folder).mkdir(exist_ok=True)
                (photos / folder / "x.jpg").write_bytes(photo(40))
            os.utime(photos / "data")
            (photos / ".hidden.jpg").write_bytes(photo(41))
            (photos / ".part").write_bytes(photo(42))
            (photos / ".part").rename(photos / "whole.jpg")  # as downloads do
            until(lambda: mine.count() == 4)
        assert names_in(mine) == {"0.jpg", "1.jpg", "2.jpg", "whole.jpg"}
        assert told.failures() == []


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_folder_that_vanishes_as_a_whole_loses_nothing_and_is_waited_for(
    follow, collection, photos, tmp_path, how
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with follow(photos, other, every=0.3 if how == "empty" else 3600) as told:
        (photos / "0.jpg").unlink()  # not yet settled when the rest goes
        photos.rename(tmp_path / "unmounted")
        if how == "empty":
            photos.mkdir()
        until(lambda: told.notices)
        assert str(photos) in told.notices[0]
        assert "is gone" in told.notices[0]
        come_and_go(other / "meanwhile.jpg", collection)
        assert names_in(collection) == {"0.jpg", "1.jpg", "2.jpg"}
        (tmp_path / "unmounted" / "new.jpg").write_bytes(photo(50))
        if how == "empty":
            photos.rmdir()
            (tmp_path / "unmounted").rename(photos)
        else:
            shutil.copytree(tmp_path / "unmounted", photos)  # another folder of that name
        until(lambda: len(told.notices) == 2)
        assert "is back" in told.notices[1]
        until(lambda: names_in(collection) == {"1.jpg", "2.jpg", "new.jpg"})
        (photos / "newer.jpg").write_bytes(photo(51))
        until(lambda: "newer.jpg" in names_in(collection))
    assert len(told.notices) == 2


def test_an_empty_folder_at_the_start_is_said_and_nothing_of_it_is_removed(follow, collection, photos) -> None:
    with follow(photos):
        pass
    shutil.rmtree(photos)
    photos.mkdir()
    with follow(photos, every=0.1) as told:
        until(lambda: told.notices)
        assert "is empty, but the index holds items of it" in told.notices[0]
        (photos / "new.jpg").write_bytes(photo(60))
        until(lambda: names_in(collection) == {"new.jpg"})
    assert len(told.notices) == 1


@pytest.mark.parametrize("every", [3600, 0.05])
def test_the_last_photo_may_be_deleted(follow, collection, photos, monkeypatch, every) -> None:
    if every < 1:  # told by walks alone
        monkeypatch.setattr(Changes, "_note", lambda *_: None)
    with follow(photos, every=every) as told:
        for path in photos.iterdir():
            path.unlink()
        until(lambda: collection.count() == 0)
    assert told.notices == []


def test_a_disk_within_a_folder_that_is_away_is_spared(follow, collection, photos, tmp_path) -> None:
    disk = photos / "disk"
    disk.mkdir()
    (disk / "on-disk.jpg").write_bytes(photo(61))
    with follow(photos, disk, every=0.1) as told:
        disk.rename(tmp_path / "unmounted")
        until(lambda: told.notices)
        come_and_go(photos / "meanwhile.jpg", collection)
        assert "on-disk.jpg" in names_in(collection)
        (tmp_path / "unmounted").rename(disk)
        until(lambda: len(told.notices) == 2)
        (photos / "0.jpg").unlink()
        until(lambda: "0.jpg" not in names_in(collection))
    assert "on-disk.jpg" in names_in(collection)


def test_with_keep_nothing_is_removed(follow, collection, photos) -> None:
    (photos / "sub").mkdir()
    (photos / "sub" / "x.jpg").write_bytes(photo(70))
    with follow(photos, keep=True, every=0.2) as told:
        (photos / "0.jpg").unlink()
        shutil.rmtree(photos / "sub")
        (photos / "1.jpg").write_bytes(photo(71))  # another content at the same place still replaces
        until(lambda: collection.get(id_of(photos / "1.jpg")))
        (photos / "last.jpg").write_bytes(photo(72))
        until(lambda: names_in(collection) == {"0.jpg", "1.jpg", "2.jpg", "x.jpg", "last.jpg"})
    assert names_in(collection) == {"0.jpg", "1.jpg", "2.jpg", "x.jpg", "last.jpg"}
    assert told.sum("removed") == 0


def test_lost_messages_are_healed_by_a_walk(follow, collection, photos, monkeypatch) -> None:
    read = inotify_simple.INotify.read
    losing, over = threading.Event(), threading.Event()
    lost: set[str] = set()

    def lossy(self: inotify_simple.INotify, **more: object) -> list[inotify_simple.Event]:
        events = read(self, **more)
        if losing.is_set():
            lost.update(event.name for event in events)
            return []
        if over.is_set():
            over.clear()
            return [inotify_simple.Event(-1, inotify_simple.flags.Q_OVERFLOW, 0, "")]
        return events

    monkeypatch.setattr(inotify_simple.INotify, "read", lossy)
    with follow(photos) as told:
        losing.set()
        (photos / "new").mkdir()
        (photos / "new" / "x.jpg").write_bytes(photo(80))
        (photos / "0.jpg").unlink()
        until(lambda: lost == {"new", "0.jpg"})
        over.set()
        losing.clear()
        until(lambda: names_in(collection) == {"1.jpg", "2.jpg", "x.jpg"})
        (photos / "new" / "y.jpg").write_bytes(photo(81))  # in a folder that nobody was told of
        until(lambda: "y.jpg" in names_in(collection))
    assert told.notices == []


@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_without_the_kernels_help_folders_are_walked(follow, collection, photos, monkeypatch, limit) -> None:
    (photos / "sub").mkdir()
    monkeypatch.setattr(watching, "_BLIND", 0.1)
    monkeypatch.setattr(watching, "_PATIENCE", 0)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE if limit == "instances" else errno.ENOSPC, "no more")

    patched = (inotify_simple, "INotify") if limit == "instances" else (inotify_simple.INotify, "add_watch")
    monkeypatch.setattr(*patched, refuse)
    with follow(photos) as told:
        until(lambda: told.notices)
        assert "max_user_watches" in told.notices[0]
        (photos / "sub" / "new.jpg").write_bytes(photo(90))
        (photos / "0.jpg").unlink()
        until(lambda: names_in(collection) == {"1.jpg", "2.jpg", "new.jpg"})
        (photos / "broken.jpg").write_bytes(b"no picture")
        until(told.failures)
        (photos / "newer.jpg").write_bytes(photo(91))
        until(lambda: "newer.jpg" in names_in(collection))
    assert told.failures() == ["not_an_image"]  # once, not after every walk
    assert len(told.notices) == 1


def test_what_is_gone_before_it_is_read_is_no_failure(follow, collection, photos, monkeypatch) -> None:
    by_sources = Collection.by_sources
    victim = photos / "victim.jpg"

    def delete_first(self: Collection, sources: list[str]) -> object:
        if str(victim) in sources:
            victim.unlink(missing_ok=True)
        return by_sources(self, sources)

    with follow(photos) as told:
        monkeypatch.setattr(Collection, "by_sources", delete_first)
        victim.write_bytes(photo(95))
        until(lambda: not victim.exists())
        (photos / "at-once.jpg").write_bytes(b"")
        (photos / "at-once.jpg").unlink()
        (photos / "folder").mkdir()
        (photos / "folder").rmdir()
        (photos / "last.jpg").write_bytes(photo(96))
        until(lambda: collection.count() == 4)
    assert told.failures() == []


def test_links_are_followed_and_loops_are_not(follow, collection, photos, tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(photo(110))
    with follow(photos) as told:
        (photos / "loop").symlink_to(photos)
        (photos / "nowhere.jpg").symlink_to(tmp_path / "nowhere.jpg")
        until(lambda: told.failures() == ["unreadable"])
        (photos / "link").symlink_to(outside)
        until(lambda: str(photos / "link" / "x.jpg") in sources_in(collection))
        (outside / "y.jpg").write_bytes(photo(111))
        until(lambda: str(photos / "link" / "y.jpg") in sources_in(collection))
        (photos / "one.jpg").symlink_to(outside / "y.jpg")
        until(lambda: str(photos / "one.jpg") in sources_in(collection))
        (photos / "link").unlink()
        until(lambda: names_in(collection) == {"0.jpg", "1.jpg", "2.jpg", "one.jpg"})
    assert not any("loop" in source for source in sources_in(collection))


@pytest.mark.skipif(ROOT, reason="root may read everything")
def test_what_may_not_be_read_is_a_failure_until_it_may(follow, collection, photos) -> None:
    with follow(photos) as told:
        (photos / "locked").mkdir()
        (photos / "locked" / "x.jpg").write_bytes(photo(120))
        until(lambda: "x.jpg" in names_in(collection))
        (photos / "locked").chmod(0)
        until(told.failures)
        assert "x.jpg" in names_in(collection)
        (photos / "locked").chmod(0o700)
        (photos / "locked" / "y.jpg").write_bytes(photo(121))
        until(lambda: "y.jpg" in names_in(collection))


def test_an_archive_and_an_odd_name_come_and_go(follow, collection, photos, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.jpg", photo(130))
        archive.writestr("y.jpg", photo(131))
    odd = photos / os.fsdecode(b"caf\xe9 [1]*?.jpg")
    with follow(photos) as told:
        shutil.move(tmp_path / "a.zip", photos / "a.zip")
        odd.write_bytes(photo(132))
        until(lambda: collection.count() == 6)
        (photos / "a.zip").unlink()
        odd.unlink()
        until(lambda: collection.count() == 3)
    assert told.failures() == []


def test_a_killed_index_loses_no_change(follow, collection, photos, settings) -> None:
    with follow(photos) as told:
        os.kill(json.loads((settings.index_folder / "address.json").read_text())["pid"], signal.SIGKILL)
        (photos / "new.jpg").write_bytes(photo(140))
        (photos / "0.jpg").unlink()
        until(lambda: told.sum("indexed") == 4)
        until(lambda: told.sum("removed") == 1)
    assert names_in(collection) == {"1.jpg", "2.jpg", "new.jpg"}


def test_an_index_that_is_away_is_waited_for(encoder, photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(watching, "_TICK", 0.02)
    monkeypatch.setattr(connection, "_PAUSES", ())
    with fake_qdrant(Settings(data=tmp_path / "behind")) as fake:
        remote = Settings(data=tmp_path / "data", qdrant_url=fake.url, qdrant_prefer_grpc=False)
        with open_store(remote) as store:
            collection = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
            with followed(photos, collection=collection, encoder=encoder, settings=remote) as told:
                fake.script.append(Answer("POST", "/collections/media/points/scroll", 503))
                (photos / "new.jpg").write_bytes(photo(150))
                until(lambda: told.notices)
                assert "no change is lost" in told.notices[0]
                (photos / "0.jpg").unlink()
                until(lambda: collection.count() == 3 and "new.jpg" in names_in(collection))
            assert told.notices[1:] == ["The index is back."]


def test_a_collection_that_is_removed_ends_it(store, encoder, settings, photos) -> None:
    collection = store.create("other", encoder.name, encoder.fingerprint, encoder.dimension)
    with (
        pytest.raises(CollectionNotFound),
        followed(photos, collection=collection, encoder=encoder, settings=settings) as told,
    ):
        store.delete("other")
        (photos / "new.jpg").write_bytes(photo(160))
        until(lambda: not any(thread.name == "changes" for thread in threading.enumerate()))
    assert len(told.batches) == 1


def test_only_folders_that_are_there_are_followed(follow, photos) -> None:
    with pytest.raises(SourceNotFound), follow(photos / "gone"):
        pass
    with pytest.raises(InvalidRequest), follow(photos / "0.jpg"):
        pass


def test_of_changed_paths_only_media_are_taken_as_a_walk_takes_them(photos, settings) -> None:
    (photos / "1.txt").write_text("a caption")
    (photos / "notes.txt").write_text("of no photo")
    (photos / "named.dat").write_bytes(photo(170))
    report = Report("media", "m")
    changed = [photos / name for name in ("1.txt", "notes.txt", "named.dat", "gone.jpg", ".hidden.jpg")]
    found = list(discover_changed(changed, report=report, beneath=None, settings=settings))
    assert [(each.path.name, each.payload) for each in found] == [
        ("1.jpg", {"caption": "a caption"}),
        ("named.dat", {}),
    ]
    assert report.passed_over == 1
