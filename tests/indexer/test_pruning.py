"""What is gone leaves the index, and nothing else does."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from indexer import pruning
from indexer.errors import MediaStoreUnavailable, PruneRefused
from indexer.items import Kind, Location, Record, content_id, now, sha256_hex, to_payload
from indexer.media.blobs import Folder
from indexer.media.sources import source_of
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.pruning import drop_gone, is_gone, is_lost, prune
from indexer.report import Report
from indexer.rerank.features import feature_key
from indexer.settings import Settings
from indexer.store import Collection, Point, open_store
from tests.bundles import picture
from tests.hostile import photo


@pytest.fixture
def collection(settings: Settings, encoder: Encoder) -> Iterator[Collection]:
    with open_store(settings) as store:
        yield store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(photo(number))
    return folder


def index(collection: Collection, encoder: Encoder, settings: Settings, *sources: Path) -> Report:
    return ingest([str(each) for each in sources], collection=collection, encoder=encoder, settings=settings)


def pruned(collection: Collection, *folders: Path, **more: object) -> int:
    report = Report(collection.name, "m")
    prune(folders, collection=collection, report=report, **{"settings": Settings(), **more})  # type: ignore[arg-type]
    return report.removed


def seen_at(collection: Collection, *sources: str) -> str:
    """Put an item into the index that was seen at these sources; gives its id."""
    point = point_at(collection, *sources)
    collection.upsert([point])
    return point.id


def point_at(collection: Collection, *sources: str) -> Point:
    sha256 = sha256_hex("\n".join(sources).encode("utf-8", "surrogatepass"))
    record = Record(
        kind=Kind.IMAGE,
        sha256=sha256,
        locations=[Location(source=source) for source in sources],
        bytes=1,
        media_type="image/jpeg",
        added_at=now(),
    )
    return Point(content_id("media", sha256), np.ones(collection.dimension, np.float32), to_payload(record))


def sources_in(collection: Collection) -> set[str]:
    stored = collection.get_many([each for page in collection.ids(100) for each in page])
    return {location.source for item in stored.values() for location in item.record.locations}


def test_what_was_deleted_is_removed_and_a_twin_keeps_its_item(collection, encoder, settings, photos) -> None:
    twin = photos / "twin.jpg"
    shutil.copy(photos / "1.jpg", twin)
    index(collection, encoder, settings, photos)
    assert pruned(collection, photos) == 0
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        (photos / name).unlink()
    assert pruned(collection, photos) == 2
    assert sources_in(collection) == {str(photos / name) for name in ("3.jpg", "4.jpg", "5.jpg", "twin.jpg")}
    assert collection.count() == 4
    assert pruned(collection, photos) == 0


def test_only_what_lies_beneath_the_named_folders_is_looked_at(collection, tmp_path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "there.jpg").touch()
    here, other = str(tmp_path / "a" / "gone.jpg"), str(tmp_path / "ab" / "gone.jpg")
    seen_at(collection, here)
    seen_at(collection, other)
    assert pruned(collection, tmp_path / "a") == 1
    assert sources_in(collection) == {other}


def test_members_frames_and_rows_go_with_their_file(collection, tmp_path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    parts = {"a.zip": "!/x/y.jpg", "clip.mp4": "#t=12.5", "paper.pdf": "#page=3", "table.csv": ":3"}
    for name, behind in parts.items():
        (folder / name).write_bytes(b"x")
        seen_at(collection, str(folder / name) + behind)
    (folder / "stays.zip").write_bytes(b"x")
    seen_at(collection, str(folder / "stays.zip") + "!/z.jpg")
    assert pruned(collection, folder) == 0
    for name in parts:
        (folder / name).unlink()
    assert pruned(collection, folder) == 4
    assert sources_in(collection) == {str(folder / "stays.zip") + "!/z.jpg"}


def test_what_is_not_on_this_machine_is_never_pruned(collection, tmp_path) -> None:
    away = ["https://example.org/a.jpg", "upload:" + "0" * 64, "s3://bucket/a.jpg", "gs://bucket/a.jpg"]
    for source in away:
        seen_at(collection, source)
    mixed = seen_at(collection, str(tmp_path / "gone.jpg"), away[0])
    assert pruned(collection, tmp_path, Path("/"), unguarded=True) == 0
    assert sources_in(collection) == set(away)
    assert [each.source for each in collection.get(mixed).record.locations] == [away[0]]


@pytest.mark.parametrize("state", ["gone", "empty", "hidden"])
def test_a_folder_that_is_gone_or_empty_is_refused_and_nothing_is_removed(
    collection, encoder, settings, photos, tmp_path, state
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "there.jpg").write_bytes(photo(8))
    index(collection, encoder, settings, photos, other)
    seen_at(collection, str(other / "gone.jpg"))
    shutil.rmtree(photos)
    if state != "gone":
        photos.mkdir()
    if state == "hidden":
        (photos / ".keep").touch()
    with pytest.raises(PruneRefused, match="gone" if state == "gone" else "empty") as refusal:
        pruned(collection, other, photos)
    assert "--prune-all" in refusal.value.remedy
    assert collection.count() == 8
    assert pruned(collection, other) == 1  # of the others it is done
    assert pruned(collection, photos, unguarded=True) == 6
    assert sources_in(collection) == {str(other / "there.jpg")}
    assert pruned(collection, photos) == 0  # nothing is known of it any more: nothing to refuse


def test_a_disk_that_is_pulled_out_in_the_middle_loses_no_more(collection, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(40)]
    for path in paths:
        path.touch()
    collection.upsert([point_at(collection, str(path)) for path in paths])
    monkeypatch.setattr(pruning, "_BATCH", 10)
    look = pruning.is_gone
    looked: list[str] = []

    def pull_out(source: str) -> bool:
        looked.append(source)
        if len(looked) == 15:
            folder.rename(tmp_path / "elsewhere")
        return look(source)

    monkeypatch.setattr(pruning, "is_gone", pull_out)
    with pytest.raises(PruneRefused):
        pruned(collection, folder)
    assert collection.count() == 40


def test_behind_a_link_that_leads_nowhere_is_not_gone(collection, photos, tmp_path) -> None:
    disk = tmp_path / "disk"
    (disk / "a").mkdir(parents=True)
    (photos / "link").symlink_to(disk)
    (photos / "one.jpg").symlink_to(disk / "one.jpg")  # a file's own link
    seen_at(collection, str(photos / "link" / "a" / "x.jpg"))
    seen_at(collection, str(photos / "one.jpg"))
    disk.rename(tmp_path / "unmounted")
    assert pruned(collection, photos) == 0
    (tmp_path / "unmounted").rename(disk)
    assert pruned(collection, photos) == 1
    (photos / "one.jpg").unlink()
    assert pruned(collection, photos) == 1


def test_what_cannot_be_looked_at_is_not_gone(tmp_path) -> None:
    assert not is_gone(str(tmp_path / ("x" * 5000)))
    assert not is_gone("/tmp/a\0b")


def test_names_that_look_like_parts_are_files_first(collection, tmp_path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    raw = os.fsdecode(b"caf\xe9.jpg")
    names = ["a#t=5", "b:3", "c.zip!", "[1]*.jpg", raw]
    for name in names:
        (folder / name).touch()
        seen_at(collection, source_of(folder / name))
    (folder / "c.zip!").unlink()
    (folder / "c.zip!").mkdir()
    (folder / "c.zip!" / "x.jpg").touch()
    seen_at(collection, str(folder / "c.zip!" / "x.jpg"))
    (folder / "more.jpg").touch()
    assert pruned(collection, folder) == 0
    (folder / raw).unlink()
    (folder / "a#t=5").unlink()
    (folder / "c.zip!" / "x.jpg").unlink()
    assert pruned(collection, folder) == 3


@given(st.text(max_size=60))
def test_no_source_is_too_odd_to_be_looked_at(source: str) -> None:
    if not source.startswith(("/", "file:")):
        assert not is_gone(source)
    for each in ("/nowhere-at-all/" + source, f"/nowhere-at-all/x.zip!/{source}", f"/nowhere-at-all/{source}#t=1"):
        assert is_gone(each) or "\0" in each


def test_memory_is_bounded_by_a_batch(collection, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "there.jpg").touch()
    sources = [str(folder / f"{number}.jpg") for number in range(600)]
    collection.upsert([point_at(collection, source) for source in sources])
    sizes: list[int] = []
    get_many = Collection.get_many

    def spy(self: Collection, ids: list[str]) -> object:
        sizes.append(len(ids))
        return get_many(self, ids)

    monkeypatch.setattr(Collection, "get_many", spy)
    monkeypatch.setattr(pruning, "_DROPPED", 200)
    assert pruned(collection, folder) == 600
    assert max(sizes) <= 256
    assert len(sizes) > 3
    assert collection.count() == 0


def animation(path: Path, marks: int = 4) -> None:
    frames = [Image.open(io.BytesIO(picture("red", mark=mark * 7))).convert("RGB") for mark in range(marks)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def test_a_files_frames_are_one_and_go_together(collection, encoder, settings, photos) -> None:
    animation(photos / "a.webp")
    (photos / "b.webp").write_bytes((photos / "a.webp").read_bytes())
    report = index(collection, encoder, settings, photos)
    assert (report.indexed, report.frames) == (7, 4)
    (photos / "a.webp").unlink()
    assert pruned(collection, photos) == 0
    assert not any("a.webp" in source for source in sources_in(collection))
    assert sum("b.webp" in source for source in sources_in(collection)) == 4
    (photos / "b.webp").unlink()
    assert pruned(collection, photos) == 1
    assert collection.count() == 6


def test_single_files_are_dropped_without_looking_at_all(collection, encoder, settings, photos, monkeypatch) -> None:
    index(collection, encoder, settings, photos)
    (photos / "0.jpg").unlink()
    monkeypatch.setattr(Collection, "ids", lambda *_: pytest.fail("every item was looked at"))
    report = Report("media", "m")
    paths = [photos / "0.jpg", photos / "1.jpg", photos / "never.jpg"]
    drop_gone(paths, collection=collection, report=report, settings=settings)
    assert report.removed == 1  # what is there stays
    assert collection.count() == 5


def test_what_rerankers_saw_goes_too(collection, encoder, settings, photos) -> None:
    shutil.copy(photos / "2.jpg", photos / "same.jpg")
    frames = [Image.open(io.BytesIO(photo(number))).resize((64, 64)) for number in (70, 71)]
    for name, some in (("a.webp", frames), ("b.webp", frames[::-1])):
        some[0].save(photos / name, save_all=True, append_images=some[1:], duration=1000)
    index(collection, encoder, settings, photos)
    (record,) = [record for _, record in collection.by_sources([source_of(photos / "0.jpg")]).values()]
    twin = point_at(collection, "https://example.org/twin.jpg")  # another item of the same content
    payload = {**twin.payload, **to_payload(record.model_copy(update={"locations": [Location(source="twin")]}))}
    collection.upsert([Point(twin.id, twin.vector, payload)])
    sources = {feature_key(each.record): each.record.locations[0].source for each in collection.scroll(limit=100)[0]}
    folder = Folder(settings.rerank_folder)
    for reranker in ("0123456789abcdef", "fedcba9876543210"):
        for key in sources:
            folder.write(f"{reranker}/{key[:2]}/{key}", b"features")
    for name in ("0.jpg", "1.jpg", "2.jpg", "a.webp"):
        (photos / name).unlink()
    assert pruned(collection, photos, settings=settings) == 3
    left = [path.name for path in settings.rerank_folder.rglob("*") if path.is_file()]
    gone = [sources[key] for key in sources.keys() - set(left)]
    assert sorted(Path(source.split("#")[0]).name for source in gone) == ["1.jpg", "a.webp", "a.webp"]
    assert len(left) == 2 * (len(sources) - 3)


def test_a_folder_of_features_that_refuses_stops_no_pruning(collection, encoder, settings, photos, monkeypatch) -> None:
    index(collection, encoder, settings, photos)

    def refuses(*_: object) -> None:
        raise MediaStoreUnavailable("read-only")

    monkeypatch.setattr(Folder, "remove", refuses)
    (settings.rerank_folder / "0123456789abcdef").mkdir(parents=True)
    (photos / "0.jpg").unlink()
    assert pruned(collection, photos, settings=settings) == 1
    assert collection.count() == 5


def test_an_archive_can_be_pruned_by_itself(collection, encoder, settings, photos, tmp_path) -> None:
    with zipfile.ZipFile(photos / "a.zip", "w") as archive:
        archive.write(photos / "1.jpg", "inside.jpg")
        archive.writestr("other.jpg", photo(77))
    index(collection, encoder, settings, photos)
    assert collection.count() == 7
    (photos / "a.zip").unlink()
    assert pruned(collection, photos / "a.zip", unguarded=True) == 1
    assert collection.count() == 6


def test_a_folder_that_holds_nothing_to_see_is_lost(tmp_path) -> None:
    assert is_lost(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert not is_lost(tmp_path / "file")
    assert not is_lost(tmp_path)
