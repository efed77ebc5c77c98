"""Thumbnails: made once, of few sizes, kept within a cap, and gone with their item."""

import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.errors import MediaGone, MediaStoreUnavailable
from indexer.items import Kind, Location, Record, now, sha256_hex
from indexer.media.blobs import Folder
from indexer.media.originals import Originals
from indexer.media.thumbnails import SIZES, Thumbnails, step_of
from indexer.settings import Settings
from tests.hostile import photo
from tests.indexer.media.test_frames import animated, document, encoded, number_of, numbered, words
from tests.s3 import BUCKET, s3_server

DATA = photo(1, (1600, 1200))


def record(data: bytes, source: str | Path = "", **fields: Any) -> Record:
    fields = {"kind": Kind.IMAGE, "media_type": "image/jpeg", **fields}
    return Record(
        sha256=sha256_hex(data), locations=[Location(source=str(source))], bytes=len(data), added_at=now(), **fields
    )


def opened(webp: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(webp))
    assert image.format == "WEBP"
    return image


def files(settings: Settings) -> list[Path]:
    return sorted(path for path in settings.uploads_folder.rglob("*") if path.is_file())


@pytest.fixture
def thumbnails(settings: Settings) -> Thumbnails:
    return Thumbnails.of(settings)


def test_sizes_are_few(thumbnails: Thumbnails, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(DATA)
    wanted = record(DATA, file)
    for size in range(16, 1025, 36):
        image = opened(thumbnails.get(wanted, size))
        assert max(image.size) == step_of(size) >= size
        assert image.size[0] * 3 == image.size[1] * 4
    assert len(files(settings)) == len(SIZES)
    assert [step_of(size) for size in (1, 128, 129, 1024, 5000)] == [128, 128, 256, 1024, 1024]


def test_one_that_is_kept_is_given_without_its_original(
    thumbnails: Thumbnails, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(DATA)
    wanted = record(DATA, file)
    first = thumbnails.get(wanted, 200)
    file.unlink()
    assert thumbnails.get(wanted, 256) == first
    assert Thumbnails.of(settings).get(wanted, 130) == first
    with pytest.raises(MediaGone):
        thumbnails.get(wanted, 128)
    with pytest.raises(MediaGone):
        thumbnails.make(wanted, 256)
    thumbnails.discard([wanted])
    assert files(settings) == []
    with pytest.raises(MediaGone):
        thumbnails.get(wanted, 256)


def test_one_that_was_cut_is_made_again(thumbnails: Thumbnails, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(DATA)
    whole = thumbnails.get(record(DATA, file), 256)
    [kept] = files(settings)
    for broken in (whole[:-3], b"", b"RIFF", bytes(len(whole)), whole + b"!"):
        kept.write_bytes(broken)
        assert thumbnails.get(record(DATA, file), 256) == whole
        assert kept.read_bytes() == whole


def test_frames_and_pages_are_their_own_pictures(thumbnails: Thumbnails, settings: Settings, tmp_path: Path) -> None:
    parent = {"parent": str(uuid.uuid4())}
    clip, paper, loop = tmp_path / "clip.mp4", tmp_path / "paper.pdf", tmp_path / "loop.gif"
    clip.write_bytes(encoded("mp4", numbered(120)))
    paper.write_bytes(document(words("One"), b"1 0 0 rg 0 0 300 400 re f"))
    loop.write_bytes(animated("GIF", numbered(9)))

    def of(path: Path, behind: str, **fields: Any) -> Image.Image:
        return opened(thumbnails.get(record(path.read_bytes(), f"{path}{behind}", **parent, **fields), 128))

    video: dict[str, Any] = {"kind": Kind.VIDEO}
    assert [number_of(of(clip, "", seconds=0.0, **video)), number_of(of(clip, "#t=5", seconds=5.0, **video))] == [0, 50]
    assert [number_of(of(loop, f"#t={at}", seconds=at, **video)) for at in (0.2, 0.6)] == [1, 3]
    first, second = of(paper, "", page=1, kind=Kind.PAGE), of(paper, "#page=2", page=2, kind=Kind.PAGE)
    assert second.size == (96, 128)
    red = np.asarray(second.convert("RGB")).reshape(-1, 3).mean(axis=0)
    assert red[0] > 240
    assert red[1:].max() < 15
    assert np.asarray(first.convert("L")).mean() > 200
    assert len(files(settings)) == 6
    names = {path.name.removeprefix(sha256_hex(paper.read_bytes())) for path in files(settings)}
    assert {"-p1-128.webp", "-p2-128.webp"} <= names
    assert any(name.endswith("-t0.6-128.webp") for name in names)


def test_the_longest_unused_go_when_they_are_too_many(settings: Settings, tmp_path: Path) -> None:
    records = []
    for seed in range(12):
        data = photo(seed, (300, 200))
        (tmp_path / f"{seed}.jpg").write_bytes(data)
        records.append(record(data, tmp_path / f"{seed}.jpg"))
    size = max(len(Thumbnails.of(settings).make(each, 128)) for each in records)
    thumbnails = Thumbnails.of(settings.model_copy(update={"thumbnail_bytes": 6 * size}))
    for each in records:
        thumbnails.get(each, 128)
        for path in files(settings):  # as if a second had passed
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
        (tmp_path / "0.jpg").unlink(missing_ok=True)
        thumbnails.get(records[0], 128)  # seen all the time, and never made again
        assert sum(path.stat().st_size for path in files(settings)) <= 6 * size
    left = {path.name.partition("-")[0] for path in files(settings)}
    assert records[0].sha256 in left
    assert records[-1].sha256 in left
    assert records[1].sha256 not in left
    assert len(left) >= 3


def test_originals_are_not_counted_and_never_go(settings: Settings) -> None:
    thumbnails = Thumbnails.of(settings.model_copy(update={"thumbnail_bytes": 0}))
    source = Originals.of(settings).put(DATA)
    assert opened(thumbnails.get(record(DATA, source), 256)).size == (256, 192)
    assert [path.name for path in files(settings)] == [sha256_hex(DATA)]


def test_a_store_that_is_away_or_full_hides_no_picture(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(DATA)
    wanted = record(DATA, file)
    away = Thumbnails.of(settings.model_copy(update={"media_url": str(tmp_path / "not mounted")}))
    assert max(opened(away.get(wanted, 128)).size) == 128

    def full(*_: object) -> None:
        raise MediaStoreUnavailable("It is full.")

    monkeypatch.setattr(Folder, "write", full)
    assert max(opened(Thumbnails.of(settings).get(wanted, 128)).size) == 128
    with pytest.raises(MediaStoreUnavailable):
        away.discard([wanted])


class TestS3:
    @pytest.fixture(autouse=True)
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with s3_server(monkeypatch):
            yield

    def test_they_are_kept_with_the_originals(self, settings: Settings, tmp_path: Path) -> None:
        thumbnails = Thumbnails.of(settings.model_copy(update={"media_url": f"s3://{BUCKET}/media"}))
        file = tmp_path / "a.jpg"
        file.write_bytes(DATA)
        wanted = record(DATA, file)
        first = thumbnails.get(wanted, 256)
        file.unlink()
        assert thumbnails.get(wanted, 256) == first
        thumbnails.discard([wanted, record(photo(2))])
        with pytest.raises(MediaGone):
            thumbnails.get(wanted, 256)
        assert not settings.uploads_folder.exists()
