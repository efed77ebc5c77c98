"""Another model for a collection in use: everything arrives under its id, also what others write meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from indexer.cli.reindex import reindex as command
from indexer.errors import CollectionNotFound, InvalidRequest, ModelMismatch
from indexer.items import content_id, sha256_hex
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.reindex import moving
from indexer.settings import Settings
from indexer.store import Collection, Store, open_store
from indexer.store import collection as collections
from tests.bundles import COLOURS, make_bundle, picture
from tests.hostile import photo


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(moving, "GRACE_SECONDS", 0.5)


@pytest.fixture
def twisted(settings: Settings) -> Encoder:
    """Another vector space of the same dimension, installed under its name."""
    return Encoder(load_bundle(make_bundle(settings.models_folder, "twisted", twist=0.7)))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / f"{number:02}.png").write_bytes(picture(colour, mark=number))
    for number in range(12):
        (folder / f"p{number:02}.jpg").write_bytes(photo(number))
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    (folder / "captions.txt").write_text("a red photo\na blue photo\n")
    return folder


@pytest.fixture
def media(store: Store, encoder: Encoder, settings: Settings, photos: Path) -> Collection:
    made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
    report = put(made, encoder, settings, photos, photos / "captions.txt")
    assert not report.failures
    return made


def put(collection: Collection, encoder: Encoder, settings: Settings, *sources: Path) -> Any:
    return ingest([str(each) for each in sources], collection=collection, encoder=encoder, settings=settings)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)


def reindex(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def contents(collection: Collection) -> dict[str, Any]:
    return {item.id: item for item in collection.scan(with_vectors=True)}


def test_everything_arrives_in_the_new_space_under_its_id_and_the_name_leads_there(
    store: Store, media: Collection, encoder: Encoder, twisted: Encoder, settings: Settings, photos: Path
) -> None:
    store.declare("media", {"mood": "keyword"})
    media.set_payload(next(media.ids(1))[0], {"mood": "calm"})
    store.annotate("media", "labels.kept", {"definition": 1})
    store.annotate("media", "calibration", {"of": "the old model"})
    before = contents(media)
    done = reindex("--model", "twisted", "--switch")
    assert (done["embedded"], done["missing"], done["switched"]) == (len(before), 0, True)
    assert done["comparison"]["new"]["count"] == len(before)
    assert 0 <= done["comparison"]["overlap_at_10"] <= 1
    now = store.get("media")
    assert (now.name, now.fingerprint, now.physical) == ("media", twisted.fingerprint, f"media__{twisted.fingerprint}")
    assert contents(now) == before  # ids, records, payloads
    assert now.fields["mood"] == "keyword"
    assert now.metadata["labels.kept"] == {"definition": 1}
    assert "calibration" not in now.metadata
    for item in contents(now).values():
        if item.record.kind == "text":
            expected = twisted.encode_texts([item.record.text or ""]).vectors[0]
            np.testing.assert_allclose(item.vector, expected, atol=1e-5)
    moved = [not np.allclose(now.vector(each), item.vector, atol=1e-3) for each, item in before.items()]
    assert sum(moved) > len(moved) // 2  # black and grey have few colours to twist
    # The very items: the same files again are known, and stay one.
    again = put(now, twisted, settings, photos, photos / "captions.txt")
    assert (again.indexed, again.decoded) == (0, 0)
    assert now.get(content_id("media", sha256_hex((photos / "p03.jpg").read_bytes()))) is not None
    assert [each.name for each in store.list()] == ["media"]


def test_frames_are_those_that_an_ingest_with_the_new_model_gives(
    store: Store, media: Collection, twisted: Encoder, settings: Settings, photos: Path
) -> None:
    reindex("--model", "twisted")
    prepared = store.physical(f"media__{twisted.fingerprint}")
    fresh = store.create("fresh", twisted.name, twisted.fingerprint, twisted.dimension)
    put(fresh, twisted, settings, photos)
    expected = {(each.record.sha256, each.record.seconds): each.vector for each in contents(fresh).values()}
    compared = 0
    for each in contents(prepared).values():
        if each.record.kind != "text":
            np.testing.assert_allclose(each.vector, expected[each.record.sha256, each.record.seconds], atol=1e-5)
            compared += 1
    assert compared == len(expected)
    assert store.get("media").physical == "media"  # nothing was switched


class Writer(threading.Thread):
    """Adds, changes and removes, as uploads do: each time to where the name leads, and again if that was refused."""

    def __init__(self, store: Store, encoders: list[Encoder], settings: Settings, folder: Path) -> None:
        super().__init__()
        self.ending = threading.Event()
        self.expected: dict[str, dict[str, Any] | None] = {}
        """What was acknowledged: payloads by id, None for what was removed."""
        self.models: set[str] = set()
        self._store, self._settings, self._folder = store, settings, folder
        self._encoders = {each.fingerprint: each for each in encoders}
        self._first = [each.id for each in store.get("media").scan() if each.record.parent is None]

    def run(self) -> None:
        number = 0
        while not self.ending.is_set():
            number += 1
            removed = self._first.pop() if number % 3 == 0 and len(self._first) > 8 else None
            while True:
                try:
                    self._turn(number, removed)
                    break
                except ModelMismatch:
                    continue

    def _turn(self, number: int, removed: str | None) -> None:
        there = self._store.get("media")
        path = self._folder / f"new{number}.png"
        path.write_bytes(picture("red", mark=number))
        put(there, self._encoders[there.fingerprint], self._settings, path)
        self.expected[content_id("media", sha256_hex(path.read_bytes()))] = {}
        there.set_payload(self._first[number % 5], {"turn": number})
        self.expected[self._first[number % 5]] = {"turn": number}
        if removed is not None:
            there.delete([removed])
            self.expected[removed] = None
        self.models.add(there.fingerprint)


def test_what_others_write_meanwhile_ends_up_in_both_and_the_late_are_refused(
    store: Store, media: Collection, encoder: Encoder, twisted: Encoder, settings: Settings, tmp_path: Path
) -> None:
    writer = Writer(store, [encoder, twisted], settings, tmp_path)
    writer.start()
    try:
        assert reindex("--model", "twisted", "--switch")["missing"] == 0
        deadline = time.monotonic() + 30
        while twisted.fingerprint not in writer.models and time.monotonic() < deadline and writer.is_alive():
            time.sleep(0.02)
    finally:
        writer.ending.set()
        writer.join()
    assert writer.models == {encoder.fingerprint, twisted.fingerprint}
    now = store.get("media")
    there = {item.id: item.payload for item in now.scan()}
    for item, payload in writer.expected.items():
        assert there.get(item) == payload
    with pytest.raises(ModelMismatch, match="changed its model") as refused:
        media.set_payload(next(media.ids(1))[0], {"late": True})  # whoever held the old one all the while
    assert refused.value.status == 409
    assert not any("late" in each.payload for each in store.physical("media").scan())


def test_a_killed_run_goes_on_and_embeds_nothing_twice(
    store: Store, media: Collection, encoder: Encoder, twisted: Encoder, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / f"{number}.png").write_bytes(picture("green", mark=number))
    put(media, encoder, settings, tmp_path / "many")
    code = "from indexer.cli.reindex import reindex; reindex()"
    environment = {**os.environ, "CROSSLENS_BATCH_SIZE": "4"}
    child = subprocess.Popen([sys.executable, "-c", code, "--model", "twisted"], env=environment)
    name, arrived = f"media__{twisted.fingerprint}", 0
    deadline = time.monotonic() + 60
    while arrived < 20 and time.monotonic() < deadline and child.poll() is None:
        try:
            arrived = store.physical(name).count()
        except CollectionNotFound:
            time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    arrived = store.physical(name).count()
    assert 20 <= arrived < media.count()
    done = reindex()  # the one that is prepared
    assert done["embedded"] == media.count() - arrived
    assert reindex()["embedded"] == 0
    assert contents(store.physical(name)) == contents(media)


def test_originals_that_are_gone_are_listed_and_hinder_a_switch_unless_allowed(
    store: Store, media: Collection, twisted: Encoder, settings: Settings, photos: Path
) -> None:
    gone = content_id("media", sha256_hex((photos / "p01.jpg").read_bytes()))
    (photos / "p01.jpg").unlink()
    (photos / "moving.gif").write_bytes(b"GIF89a, but not the one that was indexed")
    done = reindex("--model", "twisted", code=1)
    assert done["missing"] == 4
    assert {each["code"] for each in done["failures"]} == {"media_gone"}
    listed = (settings.data / "reindex" / f"media__{twisted.fingerprint}.jsonl").read_text().splitlines()
    assert gone in {json.loads(line)["id"] for line in listed}
    with pytest.raises(InvalidRequest, match="4 of"):
        run("--switch")
    assert store.get("media").physical == "media"
    assert reindex("--switch", "--allow-missing", "50%", code=1)["switched"] is True
    assert store.get("media").get(gone) is None
    # They are still in the old one, and are not taken for removed on the way back.
    reindex("--rollback")
    assert store.get("media").physical == "media"
    assert store.get("media").get(gone) is not None


def test_back_with_what_was_written_since_then_forth_and_finished(
    store: Store, media: Collection, encoder: Encoder, twisted: Encoder, settings: Settings, tmp_path: Path
) -> None:
    reindex("--model", "twisted", "--switch")
    (tmp_path / "later.png").write_bytes(picture("blue", mark=77))
    later = content_id("media", sha256_hex((tmp_path / "later.png").read_bytes()))
    put(store.get("media"), twisted, settings, tmp_path / "later.png")
    removed = next(media.ids(1))[0]
    store.get("media").delete([removed])
    reindex("--rollback")
    now = store.get("media")
    assert (now.physical, now.fingerprint) == ("media", encoder.fingerprint)
    np.testing.assert_allclose(
        now.vector(later), encoder.encode_images([Image.open(tmp_path / "later.png").convert("RGB")])[0], atol=1e-4
    )
    assert now.get(removed) is None
    assert reindex("--model", "twisted", "--switch")["embedded"] == 0
    assert store.get("media").fingerprint == twisted.fingerprint
    store.alias("further", "media")
    states = {each["physical"]: each["current"] for each in reindex("--status")["collections"]}
    assert states == {"media": False, f"media__{twisted.fingerprint}": True}
    assert reindex("--finish") == {"removed": ["media"]}
    assert reindex("--finish") == {"removed": []}
    expected = f"media__{twisted.fingerprint}"
    assert store.aliases() == {"media": expected, "further": expected}
    assert store.get("media").name == store.get("further").name == "media"
    with pytest.raises(InvalidRequest, match="nothing to go back"):
        run("--rollback")
    # And from an alias to a third one: the name is never without a collection.
    reindex("--model", str(settings.model), "--switch")
    assert store.get("media").fingerprint == encoder.fingerprint
    reindex("--finish")
    assert store.aliases()["media"] == store.aliases()["further"] == f"media__{encoder.fingerprint}"
    assert store.get("media").get(later) is not None
    store.delete("media")
    assert store.list() == []
    assert store.every() == []


def test_between_the_removal_and_the_alias_the_name_still_leads_to_the_new_one(
    store: Store, media: Collection, twisted: Encoder
) -> None:
    reindex("--model", "twisted", "--switch")
    store.drop(store.physical("media"))  # a crash right behind it
    assert store.get("media").fingerprint == twisted.fingerprint
    assert store.create("media", twisted.name, twisted.fingerprint, twisted.dimension).physical != "media"
    reindex("--finish")
    assert store.aliases() == {"media": f"media__{twisted.fingerprint}"}


def test_what_makes_no_sense_is_refused_and_changes_nothing(
    store: Store, media: Collection, settings: Settings
) -> None:
    for arguments, match in (
        (["--model", str(settings.model)], "already"),
        ([], "no other model"),
        (["--switch"], "no other model"),
        (["--rollback"], "nothing to go back"),
        (["--switch", "--finish"], "Only one"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            run(*arguments)
    assert [each.physical for each in store.every()] == ["media"]


def test_a_model_that_nobody_would_find_by_its_name_is_not_switched_to(
    store: Store, media: Collection, tmp_path: Path
) -> None:
    elsewhere = make_bundle(tmp_path / "elsewhere", "hidden", twist=0.3)
    with pytest.raises(ModelMismatch, match="not installed"):
        run("--model", str(elsewhere), "--switch")
    assert store.get("media").physical == "media"


def test_a_lock_keeps_writers_waiting_and_that_of_the_dead_does_not(store: Store, media: Collection) -> None:
    item = next(media.ids(1))[0]
    store.note(media, collections.LOCKED_UNTIL, time.time() + 0.7)
    time.sleep(0.06)
    for take in (lambda: media, lambda: store.get("media")):  # one of before, and one who comes while it is locked
        holder = take()
        holder.set_payload(item, {"after": True})
        assert store.get("media").metadata[collections.LOCKED_UNTIL] <= time.time()
        assert holder.get(item).payload == {"after": True}
        store.note(media, collections.LOCKED_UNTIL, time.time() + 0.7)
        time.sleep(0.06)


def test_the_api_serves_the_new_model_without_a_restart(
    store: Store, media: Collection, encoder: Encoder, twisted: Encoder, settings: Settings
) -> None:
    from search_api.app import create_app
    from search_api.services import Services

    settings = settings.model_copy(update={"workers": 0})  # keys in a file, not in the queue
    services = Services(settings)
    client = create_app(settings, services).test_client()
    try:
        query = {"query": [{"text": "a red photo"}], "limit": 3}
        assert client.post("/v1/collections/media/search", json=query).status_code == 200
        assert services.engine("media")._encoder.fingerprint == encoder.fingerprint
        reindex("--model", "twisted", "--switch")
        deadline = time.monotonic() + 20
        while services.engine("media")._encoder.fingerprint != twisted.fingerprint and time.monotonic() < deadline:
            assert client.post("/v1/collections/media/search", json=query).status_code == 200
        found = client.post("/v1/collections/media/search", json=query).get_json()["results"]
        assert {each["id"] for each in found} <= {item.id for item in store.get("media").scan()}
        assert client.get("/v1/collections/media").get_json()["fingerprint"] == twisted.fingerprint
        assert client.get(f"/v1/collections/media/items/{found[0]['id']}").status_code == 200
        refused = client.put("/v1/collections/media", json={"model": "nothing"})
        assert refused.status_code == 404
        kept = client.put("/v1/collections/media", json={})  # without a word of a model, the one that is there will do
        assert (kept.status_code, kept.get_json()["fingerprint"]) == (200, twisted.fingerprint)
    finally:
        services.close()


def test_with_pairs_the_recall_of_both_is_told(
    store: Store, media: Collection, twisted: Encoder, photos: Path, tmp_path: Path
) -> None:
    lines = [{"query": f"a {colour} photo", "relevant": [f"{n:02}.png"]} for n, colour in enumerate(COLOURS)]
    pairs = photos / "pairs.jsonl"
    pairs.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    compared = reindex("--model", "twisted", "--pairs", str(pairs))["comparison"]
    for which in ("old", "new"):
        assert 0.3 < compared[which]["recall"]["text_to_image"]["recall@5"]["value"] <= 1
