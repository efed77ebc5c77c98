"""The pipeline on a real index: what goes in, what is skipped, what is told, and what survives."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ModelError, ModelMismatch, SourceNotFound
from indexer.items import content_id, sha256_hex
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.report import Report
from indexer.settings import Settings
from indexer.store import Collection, Store, open_store
from tests.bundles import picture
from tests.hostile import make_hostile_folder, photo


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
    for number in range(20):
        (folder / f"{number:02}.jpg").write_bytes(photo(number))
    return folder


def run(collection: Collection, encoder: Encoder, settings: Settings, *sources: Path | str, **more: object) -> Report:
    return ingest(
        [str(source) for source in sources], collection=collection, encoder=encoder, settings=settings, **more
    )  # type: ignore[arg-type]


def counts(report: Report) -> tuple[int, int, int]:
    return report.indexed, report.skipped, report.failed


def test_photos_go_in_and_a_second_run_decodes_nothing(collection, encoder, settings, photos) -> None:
    first = run(collection, encoder, settings, photos)
    assert counts(first) == (20, 0, 0)
    assert first.decoded == 20
    assert collection.count() == 20
    second = run(collection, encoder, settings, photos)
    assert counts(second) == (0, 20, 0)
    assert second.decoded == 0
    stored = collection.get(content_id("media", sha256_hex((photos / "03.jpg").read_bytes())))
    assert (stored.record.width, stored.record.height, stored.record.media_type) == (96, 64, "image/jpeg")
    assert stored.record.locations[0].source == str(photos / "03.jpg")


def test_a_hostile_folder_loses_nothing_and_stops_nothing(collection, encoder, settings, tmp_path) -> None:
    expected = make_hostile_folder(tmp_path / "hostile")
    report = run(collection, encoder, settings, tmp_path / "hostile")
    assert counts(report) == (200, 0, 20)
    assert {failure.source: failure.error.code for failure in report.failures} == expected
    assert collection.count() == 200
    again = run(collection, encoder, settings, tmp_path / "hostile")
    assert counts(again) == (0, 200, 20)
    assert again.decoded == 0


def test_the_same_bytes_at_two_paths_are_one_item_with_two_locations(collection, encoder, settings, photos) -> None:
    twin = photos / "a" / "twin.jpg"
    twin.parent.mkdir()
    twin.write_bytes((photos / "03.jpg").read_bytes())
    report = run(collection, encoder, settings, photos)
    assert counts(report) == (20, 1, 0)
    later = photos / "zz-later.jpg"
    later.write_bytes((photos / "03.jpg").read_bytes())
    assert counts(run(collection, encoder, settings, photos)) == (0, 22, 0)
    stored = collection.get(content_id("media", sha256_hex(later.read_bytes())))
    assert {location.source for location in stored.record.locations} == {str(photos / "03.jpg"), str(twin), str(later)}
    assert collection.count() == 20
    assert counts(run(collection, encoder, settings, photos)) == (0, 22, 0)


def test_a_twin_of_a_bad_file_fails_too(collection, encoder, settings, photos) -> None:
    for name in ("x.jpg", "y.jpg"):
        (photos / name).write_bytes(b"no picture")
    report = run(collection, encoder, settings, photos)
    assert counts(report) == (20, 0, 2)
    assert {Path(failure.source).name for failure in report.failures} == {"x.jpg", "y.jpg"}


def test_a_changed_file_is_seen_and_its_old_content_leaves(collection, encoder, settings, photos) -> None:
    (photos / "twin.jpg").write_bytes((photos / "05.jpg").read_bytes())
    run(collection, encoder, settings, photos)
    before = [content_id("media", sha256_hex((photos / name).read_bytes())) for name in ("04.jpg", "05.jpg")]
    (photos / "04.jpg").write_bytes(photo(104))
    (photos / "05.jpg").write_bytes(photo(105))
    os.utime(photos / "06.jpg", ns=(1, 1))  # touched, not changed
    report = run(collection, encoder, settings, photos)
    assert counts(report) == (2, 19, 0)
    assert collection.get(before[0]) is None
    kept = collection.get(before[1])
    assert [Path(location.source).name for location in kept.record.locations] == ["twin.jpg"]
    assert collection.count() == 21
    assert run(collection, encoder, settings, photos).decoded == 0


def test_captions_items_ids_and_payloads(collection, encoder, settings, photos, tmp_path) -> None:
    (tmp_path / "captions.txt").write_text("a red car\na green tree\na red car\n")
    rows = [
        {"file": "photos/01.jpg", "payload": {"tag": "one"}, "id": "first"},
        {"text": "a blue sky", "payload": {"tag": "sky"}, "id": "b1946ac9-2b3b-4b8e-9f0a-2f0d6e1c1a11"},
        {"text": "red " * 50},
    ]
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(map(json.dumps, rows)))
    report = run(collection, encoder, settings, tmp_path / "captions.txt", items)
    assert counts(report) == (5, 1, 0)
    assert report.truncated == 1
    assert "cut off" in report.as_dict()["warnings"][0]
    sky = collection.get("b1946ac9-2b3b-4b8e-9f0a-2f0d6e1c1a11")
    assert (sky.record.text, sky.payload, sky.record.name) == ("a blue sky", {"tag": "sky"}, None)
    hits = collection.search(encoder.encode_texts(["red"]).vectors[0], 1)
    assert hits[0].record.text.startswith("red")
    assert counts(run(collection, encoder, settings, items)) == (0, 3, 0)
    rows[0]["payload"] = {"tag": "two"}
    rows[1]["text"] = "a white sky"
    items.write_text("\n".join(map(json.dumps, rows)))
    changed = run(collection, encoder, settings, items)
    assert counts(changed) == (2, 1, 0)
    assert changed.decoded == 0  # a payload is changed without decoding
    assert collection.get("b1946ac9-2b3b-4b8e-9f0a-2f0d6e1c1a11").record.text == "a white sky"
    assert collection.count() == 5


class Breaks(Encoder):
    """An encoder that fails on any batch with a picture of one colour in it."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        if any(row[0].mean() > 0.9 and row[1].mean() < 0.1 for row in pixels):
            raise ModelError("red is too much")
        return super().encode_pixels(pixels)


def test_a_batch_that_fails_costs_only_the_item_that_fails_alone(collection, settings, colours, tmp_path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.png").write_bytes(picture("red" if number == 17 else "blue", mark=number))
    report = run(collection, Breaks(load_bundle(colours)), settings, tmp_path)
    assert counts(report) == (29, 0, 1)
    assert report.failures[0].source.endswith("17.png")
    assert report.failures[0].error.message == "red is too much"


class Gauge(Encoder):
    """An encoder that notes how far planning is ahead of it."""

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]
        self.prepared = self.encoded = self.ahead = 0
        self.guard = threading.Lock()

    def prepare(self, image: object) -> np.ndarray:
        with self.guard:
            self.prepared += 1
            self.ahead = max(self.ahead, self.prepared - self.encoded)
        return super().prepare(image)  # type: ignore[arg-type]

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        vectors = super().encode_pixels(pixels)
        with self.guard:
            self.encoded += len(pixels)
        return vectors


def test_what_is_in_flight_is_bounded_whatever_the_size(collection, settings, colours, tmp_path) -> None:
    for number in range(400):
        (tmp_path / f"{number}.png").write_bytes(picture("blue", (60, 40), mark=number))
    gauge = Gauge(load_bundle(colours))
    few = settings.model_copy(update={"batch_size": 4, "threads": 2})
    assert run(collection, gauge, few, tmp_path).indexed == 400
    assert gauge.ahead <= 2 * 4 + 4 * (2 + 2)


def test_stopping_keeps_what_is_done_and_a_second_run_finishes(collection, encoder, settings, photos) -> None:
    stop = threading.Event()
    small = settings.model_copy(update={"batch_size": 2})
    report = run(collection, encoder, small, photos, photos, progress=lambda _: stop.set(), stop=stop)
    assert report.interrupted
    assert collection.count() == report.indexed > 0
    rest = run(collection, encoder, settings, photos)
    assert (rest.indexed + report.indexed, rest.skipped) == (20, report.indexed)


def test_progress_adds_up(collection, encoder, settings, photos) -> None:
    seen: list[int] = []
    small = settings.model_copy(update={"batch_size": 3})
    report = run(collection, encoder, small, photos, progress=lambda report: seen.append(report.total))
    assert seen == sorted(seen)
    assert report.as_dict().keys() >= {
        "job",
        "total",
        "indexed",
        "skipped",
        "failed",
        "failures",
        "seconds",
        "items_per_second",
    }
    assert report.total == 20


def test_what_names_nothing_is_refused_before_anything_is_indexed(collection, encoder, settings, photos) -> None:
    with pytest.raises(SourceNotFound):
        run(collection, encoder, settings, photos, photos / "gone")
    assert collection.count() == 0


def test_another_models_collection_is_refused(store, encoder, collection) -> None:
    with pytest.raises(ModelMismatch):
        store.create("media", "other", "0" * 16, encoder.dimension)
    with pytest.raises(ModelMismatch):
        store.create("media", encoder.name, "0" * 16, encoder.dimension)


def crosslens(*arguments: str, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from indexer.cli import main; main()", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload, no-any-return]


def indexed_so_far(settings: Settings) -> int:
    with open_store(settings) as store:
        names = [collection.name for collection in store.list()]
        return store.get("media").count() if "media" in names else 0


def many(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.png").write_bytes(picture("blue", (50, 30), mark=number))
    return folder


@pytest.mark.parametrize("victim", ["ingest", "index"])
def test_killed_in_the_middle_the_same_command_finishes_with_nothing_twice(settings, tmp_path, victim) -> None:
    folder = many(tmp_path / "many", 1500)
    environment = {**os.environ, "CROSSLENS_BATCH_SIZE": "4"}
    with open_store(settings) as store:  # a lease, so that the index outlives the killed command
        first = crosslens("ingest", str(folder), "--json", env=environment)
        deadline = time.monotonic() + 60
        while indexed_so_far(settings) < 50:
            assert time.monotonic() < deadline
            assert first.poll() is None
        if victim == "ingest":
            first.kill()
            first.wait()
        else:
            os.kill(json.loads((settings.index_folder / "address.json").read_text())["pid"], signal.SIGKILL)
            first.wait()
        assert store.get("media").count() >= 50
        second = crosslens("ingest", str(folder), "--json")
        report = json.loads(second.communicate(timeout=120)[0])
        assert report["failed"] == 0
        assert report["total"] == 1500
        assert store.get("media").count() == 1500


def test_ctrl_c_ends_cleanly_and_says_so(settings, tmp_path) -> None:
    folder = many(tmp_path / "many", 1500)
    command = crosslens("ingest", str(folder), "--json", env={**os.environ, "CROSSLENS_BATCH_SIZE": "4"})
    deadline = time.monotonic() + 60
    while indexed_so_far(settings) < 20:
        assert time.monotonic() < deadline
    command.send_signal(signal.SIGINT)
    report = json.loads(command.communicate(timeout=60)[0])
    assert command.returncode == 130
    assert report["interrupted"] is True
    assert indexed_so_far(settings) == report["indexed"] < 1500


def outcome(*arguments: str) -> tuple[int, str, str]:
    command = crosslens(*arguments)
    out, err = command.communicate(timeout=120)
    return command.returncode, out, err


def test_the_command_line_keeps_its_contract(settings, tmp_path, photos) -> None:
    code, out, err = outcome("ingest", str(photos))
    assert (code, out) == (0, "")
    assert "20 indexed" in err
    assert "crosslens search" in err
    (photos / "bad\n.jpg").write_bytes(b"no")
    code, out, err = outcome("ingest", str(photos), "--json")
    report = json.loads(out)
    assert (code, report["skipped"], report["failed"]) == (1, 20, 1)
    assert report["failures"][0]["code"] == "not_an_image"
    code, _, err = outcome("ingest", str(photos))
    assert "bad\\n.jpg" in err
    code, out, err = outcome("ingest", str(tmp_path / "gone"))
    assert (code, out) == (2, "")
    assert "There is no" in err
    assert "Traceback" not in err
    code, out, _ = outcome("ingest", str(tmp_path / "gone"), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "source_not_found")
    assert outcome("ingest")[0] == 2
    assert outcome("ingest", str(photos), "--collection", "../x")[0] == 2
    code, _, err = outcome("ingest", str(photos), "--model", "bridge")
    assert code == 2
    assert "holds vectors of" in err
