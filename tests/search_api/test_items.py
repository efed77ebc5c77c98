"""Media over HTTP: originals in ranges, thumbnails that are kept, and what goes with an item or a collection."""

import io
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from indexer.items import Record, now, sha256_hex
from indexer.media.blobs import IN_MEMORY
from indexer.media.originals import Originals
from indexer.settings import Settings
from indexer.store import open_store
from indexer.store.store import Store
from search_api.app import create_app
from search_api.services import Services
from tests.bundles import picture
from tests.indexer.media.test_frames import document, encoded, number_of, numbered, words
from tests.s3 import BUCKET, s3_server
from tests.search_api.test_http import ITEMS, problem, upload

VIDEO = encoded("mp4", numbered(120))
PAPER = document(words("One"), words("Two"), words("Three"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[tuple[Settings, Store]]:
    """One index process for all of these tests."""
    settings = Settings(data=tmp_path_factory.mktemp("items") / "data", model=str(colours), workers=0)
    with open_store(settings) as store:
        yield settings, store


@pytest.fixture
def settings(index: tuple[Settings, Store]) -> Iterator[Settings]:
    settings, store = index
    yield settings
    for collection in store.list():
        store.delete(collection.name)
    shutil.rmtree(settings.uploads_folder, ignore_errors=True)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    services = Services(settings)
    yield services
    services.close()


@pytest.fixture
def client(settings: Settings, services: Services) -> Iterator[FlaskClient]:
    with create_app(settings, services).test_client() as client:
        yield client


def uploaded(client: FlaskClient, data: bytes, name: str = "a", collection: str = "media") -> str:
    body = {"file": (io.BytesIO(data), name)}
    answer = client.post(f"/v1/collections/{collection}/items", data=body)
    assert answer.status_code == 201, answer.data
    item: str = answer.get_json()["items"][0]["id"]
    return item


def parts(services: Services, item: str) -> dict[float | int | None, str]:
    """The ids of a file's frames or pages by their seconds or number."""
    found = services.collection("media").parts(item)
    return {part.record.seconds if part.record.page is None else part.record.page: part.id for part in found}


def kept(settings: Settings) -> set[str]:
    """What is in the store, as far as it is not being written."""
    return {path.name for path in settings.uploads_folder.rglob("*") if path.is_file()}


def originals_kept(settings: Settings) -> set[str]:
    return {name for name in kept(settings) if re.fullmatch(r"[0-9a-f]{64}", name)}


class TestMedia:
    def test_a_frame_s_media_is_the_video_in_ranges(self, client: FlaskClient, services: Services) -> None:
        item = uploaded(client, VIDEO, "clip.mp4")
        frames = parts(services, item)
        assert sorted(frames) == [0, 5, 10]
        whole = client.get(f"{ITEMS}/{frames[5]}/media")
        assert (whole.status_code, whole.data, whole.mimetype) == (200, VIDEO, "video/mp4")
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert not whole.headers.get("Content-Disposition", "").startswith("attachment")
        assert "sandbox" in whole.headers["Content-Security-Policy"]
        assert "script" not in whole.headers["Content-Security-Policy"]
        for asked, first, last in (("bytes=0-99", 0, 99), ("bytes=100-", 100, len(VIDEO) - 1), ("bytes=-7", -7, -1)):
            part = client.get(f"{ITEMS}/{item}/media", headers={"Range": asked})
            assert part.status_code == 206
            assert part.data == (VIDEO[first:] if last in {-1, len(VIDEO) - 1} else VIDEO[first : last + 1])
        assert part.headers["Content-Range"] == f"bytes {len(VIDEO) - 7}-{len(VIDEO) - 1}/{len(VIDEO)}"
        assert client.get(f"{ITEMS}/{item}/media", headers={"Range": "bytes=99999999-"}).status_code == 416
        head = client.head(f"{ITEMS}/{item}/media")
        assert (head.data, head.content_length) == (b"", len(VIDEO))
        same = {"If-None-Match": whole.headers["ETag"]}
        assert client.get(f"{ITEMS}/{item}/media", headers=same).status_code == 304
        stale = {"Range": "bytes=0-9", "If-Range": '"another"'}
        assert client.get(f"{ITEMS}/{item}/media", headers=stale).data == VIDEO

    def test_a_page_s_media_is_the_document_to_be_saved(self, client: FlaskClient, services: Services) -> None:
        item = uploaded(client, PAPER, "paper.pdf")
        answer = client.get(f"{ITEMS}/{parts(services, item)[2]}/media")
        assert (answer.data, answer.mimetype) == (PAPER, "application/pdf")
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].endswith("sandbox")

    @pytest.mark.parametrize("away", [False, True], ids=["in its folder", "copied"])
    def test_a_large_file_is_sent_from_disk(
        self, client: FlaskClient, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: bool
    ) -> None:
        item = uploaded(client, picture("red"), "red.png")
        film = tmp_path / "film.mp4"
        film.write_bytes(os.urandom(IN_MEMORY + 5))
        data = film.read_bytes()
        place = {"source": str(film), "size": film.stat().st_size, "mtime_ns": film.stat().st_mtime_ns}
        record = Record.model_validate(
            {"kind": "video", "sha256": sha256_hex(data), "locations": [place], "bytes": len(data), "parent": item}
            | {"media_type": "video/mp4", "seconds": 0.0, "frames": 1, "added_at": now()}
        )
        services.collection("media").replace_record(item, record)
        if away:
            services.originals.keep(film, record.sha256)
            film.unlink()
        monkeypatch.setattr(Path, "read_bytes", None)  # nobody reads it whole
        assert client.get(f"{ITEMS}/{item}/media", headers={"Range": "bytes=-5"}).data == data[-5:]
        with client.get(f"{ITEMS}/{item}/media", buffered=False) as answer:
            assert answer.content_length == len(data)
            assert next(iter(answer.response)) == data[: 8 * 1024]

    def test_an_original_that_is_gone_is_told(self, client: FlaskClient, settings: Settings) -> None:
        item = uploaded(client, picture("red"), "red.png")
        for path in settings.uploads_folder.rglob("*"):
            if path.is_file():
                path.unlink()
        problem(client.get(f"{ITEMS}/{item}/media"), 404, "media_gone")
        problem(client.get(f"{ITEMS}/{item}/thumbnail"), 404, "media_gone")


class TestThumbnails:
    def test_each_frame_and_page_has_its_own(self, client: FlaskClient, services: Services) -> None:
        frames = parts(services, uploaded(client, VIDEO, "clip.mp4"))
        numbers = {}
        for seconds, item in frames.items():
            answer = client.get(f"{ITEMS}/{item}/thumbnail?size=64")
            assert answer.mimetype == "image/webp"
            numbers[seconds] = number_of(Image.open(io.BytesIO(answer.data)))
        assert numbers == {0: 0, 5: 50, 10: 100}
        pages = parts(services, uploaded(client, PAPER, "paper.pdf"))
        shown = {client.get(f"{ITEMS}/{item}/thumbnail").data for item in pages.values()}
        assert len(shown) == 3

    def test_sizes_are_rounded_up_and_kept(self, client: FlaskClient, settings: Settings) -> None:
        item = uploaded(client, picture("red", size=(2000, 500)), "red.png")
        sizes = {
            size: Image.open(io.BytesIO(client.get(f"{ITEMS}/{item}/thumbnail?size={size}").data)).width
            for size in (16, 128, 129, 300, 1000, 1024)
        }
        assert sizes == {16: 128, 128: 128, 129: 256, 300: 512, 1000: 1024, 1024: 1024}
        assert len(kept(settings)) == 1 + 4
        for bad in ("", "15", "1025", "-3", "1e3", "²"):
            problem(client.get(f"{ITEMS}/{item}/thumbnail?size={bad}"), 400, "invalid_request")


class TestDelete:
    def test_the_first_frame_takes_the_others_and_the_file(
        self, client: FlaskClient, services: Services, settings: Settings
    ) -> None:
        video, paper = uploaded(client, VIDEO, "clip.mp4"), uploaded(client, PAPER, "paper.pdf")
        red = uploaded(client, picture("red"), "red.png")
        frames, pages = parts(services, video), parts(services, paper)
        for item in (*frames.values(), *pages.values(), red):
            assert client.get(f"{ITEMS}/{item}/thumbnail").status_code == 200
        assert client.delete(f"{ITEMS}/{frames[5]}").status_code == 204
        assert sorted(parts(services, video)) == [0, 10]
        assert client.get(f"{ITEMS}/{video}/media").data == VIDEO
        assert client.delete(f"{ITEMS}/{video}").status_code == 204
        assert parts(services, video) == {}
        problem(client.get(f"{ITEMS}/{frames[10]}"), 404, "item_not_found")
        assert sorted(parts(services, paper)) == [1, 2, 3]
        assert client.get(f"{ITEMS}/{paper}/media").data == PAPER
        assert {name[:64] for name in kept(settings)} == {sha256_hex(PAPER), sha256_hex(picture("red"))}
        assert client.delete(f"{ITEMS}/{paper}").status_code == 204
        assert {name[:64] for name in kept(settings)} == {sha256_hex(picture("red"))}
        assert services.collection("media").count() == 1

    def test_a_copy_stays_while_any_item_has_its_content(self, client: FlaskClient, settings: Settings) -> None:
        data = picture("red")
        other = uploaded(client, data, collection="other")
        assert upload(client, ("a", data), request={"items": [{"file": "a", "id": "mine"}]}).status_code == 201
        assert client.delete(f"/v1/collections/other/items/{other}").status_code == 204
        assert originals_kept(settings) == {sha256_hex(data)}
        assert client.get(f"{ITEMS}/mine/media").data == data
        assert client.delete(f"{ITEMS}/mine").status_code == 204
        assert kept(settings) == set()

    def test_a_collection_takes_the_uploads_that_no_other_has(
        self, client: FlaskClient, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("search_api.services._DISCARD_BATCH", 3)
        shared, alone = picture("red"), [picture("blue", mark=mark) for mark in range(7)]
        for data in (shared, VIDEO, *alone):
            item = uploaded(client, data)
            assert client.get(f"{ITEMS}/{item}/thumbnail").status_code == 200
        client.post(ITEMS, json={"items": [{"text": "red"}]})
        keeper = uploaded(client, shared, collection="other")
        assert len(originals_kept(settings)) == 9
        assert client.delete("/v1/collections/media").status_code == 204
        assert kept(settings) == {sha256_hex(shared)}
        assert client.get(f"/v1/collections/other/items/{keeper}/media").data == shared
        assert client.delete("/v1/collections/other").status_code == 204
        assert kept(settings) == set()
        problem(client.delete("/v1/collections/other"), 404, "collection_not_found")

    def test_a_collection_without_media_makes_no_store(self, client: FlaskClient, settings: Settings) -> None:
        client.put("/v1/collections/media")
        assert client.delete("/v1/collections/media").status_code == 204
        assert not settings.uploads_folder.exists()


def test_an_upload_that_fails_leaves_what_others_have(client: FlaskClient, settings: Settings) -> None:
    bad = b"no picture"
    Originals.of(settings).put(bad)  # as if an item had it
    problem(upload(client, ("bad.png", bad)), 422, "not_an_image")
    assert kept(settings) == {sha256_hex(bad)}
    problem(upload(client, ("bad.png", b"no picture either")), 422, "not_an_image")
    assert kept(settings) == {sha256_hex(bad)}


class TestRemote:
    @pytest.fixture
    def settings(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
        with s3_server(monkeypatch):
            yield settings.model_copy(update={"media_url": f"s3://{BUCKET}/{uuid.uuid4().hex}"})

    def keys(self, settings: Settings) -> set[str]:
        import boto3

        prefix = (settings.media_url or "").removeprefix(f"s3://{BUCKET}/")
        listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {each["Key"].removeprefix(f"{prefix}/") for each in listed} - {"crosslens-media"}

    def test_uploads_live_and_go_there(self, client: FlaskClient, services: Services, settings: Settings) -> None:
        video, red = uploaded(client, VIDEO, "clip.mp4"), uploaded(client, picture("red"), "red.png")
        assert not settings.uploads_folder.exists()
        assert client.get(f"{ITEMS}/{red}/media").data == picture("red")
        assert client.get(f"{ITEMS}/{video}/media", headers={"Range": "bytes=5-9"}).data == VIDEO[5:10]
        for item in (*parts(services, video).values(), red):
            assert client.get(f"{ITEMS}/{item}/thumbnail").status_code == 200
        assert len(self.keys(settings)) == 2 + 4
        assert upload(client, ("bad.png", b"no picture")).status_code == 422
        assert client.delete(f"{ITEMS}/{video}").status_code == 204
        hashed = sha256_hex(picture("red"))
        assert self.keys(settings) == {f"{hashed[:2]}/{hashed}", f"thumbnails/{hashed[:2]}/{hashed}-256.webp"}
        assert client.delete("/v1/collections/media").status_code == 204
        assert self.keys(settings) == set()

    def test_a_store_that_is_away_is_told_and_nothing_is_lost(
        self, client: FlaskClient, services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        red = uploaded(client, picture("red"), "red.png")
        assert client.get("/readyz").get_json()["parts"]["media"] == {"ok": True}

        def fail(*_: Any, **__: Any) -> None:
            raise ConnectionError("refused")

        with monkeypatch.context() as away:
            files = services.originals.blobs._files  # type: ignore[attr-defined]
            for method in ("info", "cat_file", "pipe_file", "rm"):
                away.setattr(files, method, fail)
            for answer in (
                client.get(f"{ITEMS}/{red}/media"),
                client.get(f"{ITEMS}/{red}/thumbnail"),
                client.delete(f"{ITEMS}/{red}"),
                client.delete("/v1/collections/media"),
                upload(client, ("blue.png", picture("blue"))),
            ):
                assert "S3 cannot be reached" in problem(answer, 503, "media_store_unavailable")["detail"]
            part = client.get("/readyz").get_json(force=True)["parts"]["media"]
            assert (part["ok"], part["code"]) == (False, "media_store_unavailable")
        assert client.get(f"{ITEMS}/{red}/media").data == picture("red")
        assert client.delete(f"{ITEMS}/{red}").status_code == 204
        assert self.keys(settings) == set()


def test_a_folder_that_is_not_there_ends_readiness(settings: Settings, tmp_path: Path) -> None:
    services = Services(settings.model_copy(update={"media_url": str(tmp_path / "nfs")}))
    with create_app(services.settings, services).test_client() as client:
        assert client.get("/readyz").get_json(force=True)["parts"]["media"]["code"] == "media_store_unavailable"
        (tmp_path / "nfs").mkdir()
        assert client.get("/readyz").get_json()["parts"]["media"] == {"ok": True}
    services.close()
