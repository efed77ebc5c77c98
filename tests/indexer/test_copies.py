"""Originals that are copied as they are indexed."""

import zipfile
from pathlib import Path

import pytest

from indexer.errors import MediaStoreUnavailable
from indexer.items import sha256_hex
from indexer.media.originals import Originals
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import open_store
from tests.bundles import picture
from tests.indexer.media.test_frames import encoded, numbered


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_indexed_is_copied_and_what_fails_is_not(
    settings: Settings, encoder: Encoder, tmp_path: Path, wanted: bool
) -> None:
    settings = settings.model_copy(update={"copy_originals": wanted})
    folder = tmp_path / "media"
    folder.mkdir()
    video, red, blue = encoded("mp4", numbered(60)), picture("red"), picture("blue")
    (folder / "clip.mp4").write_bytes(video)
    (folder / "red.png").write_bytes(red)
    (folder / "bad.png").write_bytes(b"no picture")
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("blue.png", blue)
    with open_store(settings) as store:
        collection = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        report = ingest([str(folder)], collection=collection, encoder=encoder, settings=settings)
        assert len(report.failures) == 1
        kept = {path.name for path in settings.uploads_folder.rglob("*") if path.is_file()}
        assert kept == ({sha256_hex(data) for data in (video, red, blue)} if wanted else set())
        if not wanted:
            return
        records = [item.record for item in collection.get_many(next(collection.ids(100))).values()]
        for path in folder.iterdir():
            path.unlink()
        originals = Originals.of(settings)
        assert {originals.read(record) for record in records} == {video, red, blue}


def test_nothing_is_indexed_that_could_not_be_copied(settings: Settings, encoder: Encoder, tmp_path: Path) -> None:
    away = settings.model_copy(update={"copy_originals": True, "media_url": str(tmp_path / "not mounted")})
    (tmp_path / "red.png").write_bytes(picture("red"))
    (tmp_path / "clip.mp4").write_bytes(encoded("mp4", numbered(60)))
    with open_store(settings) as store:
        collection = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        for name in ("red.png", "clip.mp4"):
            with pytest.raises(MediaStoreUnavailable):
                ingest([str(tmp_path / name)], collection=collection, encoder=encoder, settings=away)
        assert collection.count() == 0
