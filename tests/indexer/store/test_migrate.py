"""`crosslens migrate` between data folders and servers: all of it arrives, also after a kill, and what differs is said.

With CROSSLENS_TEST_QDRANT_URL set, a real server is one of the servers.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from qdrant_client import models

from indexer.cli import main
from indexer.errors import CollectionNotFound
from indexer.settings import Settings
from indexer.store import Collection, Point, Store, open_store
from indexer.store.migrate import SAMPLE, _Sample
from tests.indexer.store.fake_qdrant import fake_qdrant
from tests.indexer.store.test_server import MODEL, REAL, points

TAG = {"tag": models.PayloadSchemaType.KEYWORD}


@pytest.fixture
def target(tmp_path: Path) -> Settings:
    """Settings of a second data folder."""
    return Settings(data=tmp_path / "target")


def fill(settings: Settings, count: int, name: str = "media") -> None:
    with open_store(settings) as store:
        store.create(name, *MODEL, metadata={"note": "kept"}, indexes=TAG).upsert(points(count))


def migrate(source: object, target: object, *more: str) -> Result:
    return CliRunner().invoke(main, ["migrate", "--from", str(source), "--to", str(target), *more])


def report_of(result: Result) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def assert_same(source: Store, target: Store, name: str = "media") -> None:
    """Every point, its vector and payload, and what is kept of the collection."""
    one, other = source.get(name), target.get(name)
    assert one.metadata == other.metadata
    assert one.payload_indexes().keys() == other.payload_indexes().keys()
    ids = [each for page in one.ids(1000) for each in page]
    assert ids == [each for page in other.ids(1000) for each in page]
    originals, copies = one.points(ids), other.points(ids)
    for each in ids:
        assert copies[each].payload == originals[each].payload
        np.testing.assert_allclose(copies[each].vector, originals[each].vector, atol=1e-6)


def test_a_data_folder_arrives_in_another_and_the_same_again_copies_nothing(
    settings: Settings, target: Settings
) -> None:
    fill(settings, 700)
    fill(settings, 3, "other")
    first = migrate(settings.data, target.data, "--json")
    assert first.exit_code == 0, first.output
    report = report_of(first)
    assert report["verified"] is True
    assert [(each["name"], each["copied"], each["skipped"], each["compared"]) for each in report["collections"]] == [
        ("media", 700, 0, 100),
        ("other", 3, 0, 3),
    ]
    with open_store(settings) as one, open_store(target) as other:
        assert_same(one, other)
        assert_same(one, other, "other")
        assert other.get("media").metadata["note"] == "kept"
    again = migrate(settings.data, target.data)
    assert again.exit_code == 0
    assert "media: 0 copied, 700 already there. Verified: counts, and 100 vectors and payloads." in again.stderr


def test_a_named_collection_comes_alone(settings: Settings, target: Settings) -> None:
    for name in ("a", "b", "c"):
        fill(settings, 3, name)
    assert migrate(settings.data, target.data, "--collection", "a", "--collection", "c").exit_code == 0
    with open_store(target) as store:
        assert [each.name for each in store.list()] == ["a", "c"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_half_way_the_same_command_finishes(
    settings: Settings, target: Settings, number: signal.Signals
) -> None:
    fill(settings, 5000)
    # A shell that runs the tests in the background has them, and so their children, ignore Ctrl-C.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeds}; from indexer.cli import main; main()", "migrate"]
    command += ["--from", str(settings.data), "--to", str(target.data), "--batch", "50", "--json"]
    with open_store(settings) as one, open_store(target) as other:  # leases, so that the index processes stay
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not other.list() or other.get("media").count() < 1000:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(number)
        said = child.communicate(timeout=60)[1]
        if number == signal.SIGINT:
            assert child.returncode == 130
            assert "the same command goes on from here" in said
        there = other.get("media").count()
        assert 1000 <= there < 5000
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        (report,) = json.loads(done.stdout)["collections"]
        assert (report["copied"], report["skipped"]) == (5000 - there, there)
        assert report["verified"] is True
        assert_same(one, other)


def test_another_models_collection_is_refused_before_a_point_is_written(settings: Settings, target: Settings) -> None:
    fill(settings, 5, "a")
    fill(settings, 5, "b")
    with open_store(target) as store:
        store.create("b", "another", "0" * 16, MODEL[2])
    refused = migrate(settings.data, target.data)
    assert refused.exit_code == 2
    assert "holds vectors of 'another'" in refused.stderr
    with open_store(target) as store:
        assert [each.count() for each in store.list()] == [0, 0]


def change_vector(collection: Collection, victim: Point) -> None:
    collection.upsert([Point(victim.id, victim.vector + np.float32(0.5), victim.payload)])


def change_payload(collection: Collection, victim: Point) -> None:
    collection.set_payload(victim.id, {"tag": "another", "deep": {"n": [1, 2.5, None, True]}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_vector, "The vector of {id} has cosine 0."),
        (change_payload, "The payload of {id} differs in 'none', 'tag'."),
    ],
)
def test_a_changed_point_is_found_and_written_again_on_request(
    settings: Settings, target: Settings, change: Callable[[Collection, Point], None], said: str
) -> None:
    fill(settings, 60)
    assert migrate(settings.data, target.data).exit_code == 0
    victim = points(60)[41]
    with open_store(target) as store:
        change(store.get("media"), victim)
    found = migrate(settings.data, target.data, "--json")
    assert found.exit_code == 1
    report = report_of(found)
    assert report["verified"] is False
    (difference,) = report["collections"][0]["differences"]
    assert difference.startswith(said.format(id=victim.id))
    shown = migrate(settings.data, target.data)
    assert "It differs from the source" in shown.stderr
    assert "Next: the same command with --overwrite" in shown.stderr
    assert migrate(settings.data, target.data, "--overwrite").exit_code == 0
    assert migrate(settings.data, target.data).exit_code == 0


def test_points_that_the_source_has_not_are_found(settings: Settings, target: Settings) -> None:
    fill(settings, 60)
    assert migrate(settings.data, target.data).exit_code == 0
    with open_store(target) as store:
        store.get("media").upsert(points(1, seed=9))
    found = migrate(settings.data, target.data)
    assert found.exit_code == 1
    assert "The source holds 60 points, the target 61." in found.stderr


def test_points_that_are_lost_on_the_way_are_found(
    settings: Settings, target: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, 60)
    write = Collection.upsert
    monkeypatch.setattr(Collection, "upsert", lambda self, given: write(self, given[1:]))
    found = migrate(settings.data, target.data)
    assert found.exit_code == 1
    assert "The source holds 60 points, the target 59." in found.stderr
    assert f"{points(1)[0].id} is not in the target." in found.stderr


@pytest.mark.parametrize("kind", ["http", "grpc", "real"])
def test_to_a_server_and_back(
    settings: Settings, target: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fill(settings, 300, "test-media")
    monkeypatch.setenv("CROSSLENS_QDRANT_PREFER_GRPC", str(int(kind == "grpc")))
    with ExitStack() as stack:
        if kind == "real":
            if not REAL:
                pytest.skip("CROSSLENS_TEST_QDRANT_URL is not set")
            url = REAL
            with open_store(Settings(qdrant_url=url)) as store, suppress(CollectionNotFound):
                store.delete("test-media")
        else:
            fake = stack.enter_context(fake_qdrant(Settings(data=tmp_path / "behind")))
            monkeypatch.setenv("CROSSLENS_QDRANT_GRPC_PORT", str(fake.grpc_port))
            url = fake.url
        there = migrate(settings.data, url, "--batch", "64")
        assert there.exit_code == 0, there.output
        with open_store(settings) as one, open_store(Settings(qdrant_url=url)) as other:
            assert_same(one, other, "test-media")
        back = migrate(url, target.data, "--collection", "test-media")
        assert back.exit_code == 0, back.output
    with open_store(settings) as one, open_store(target) as other:
        assert_same(one, other, "test-media")


def test_of_what_is_there_only_ids_are_read(settings: Settings, tmp_path: Path) -> None:
    with fake_qdrant(Settings(data=tmp_path / "behind")) as fake:
        environment = {"CROSSLENS_QDRANT_PREFER_GRPC": "0"}
        fill(settings, 300)
        for _ in range(2):
            fake.requests.clear()
            arguments = ["migrate", "--from", str(settings.data), "--to", fake.url]
            assert CliRunner(env=environment).invoke(main, arguments).exit_code == 0
        asked = fake.sent("POST", "/points")
        assert [len(each["ids"]) for each in asked if not each["with_vector"]] == [256, 44]
        assert [len(each["ids"]) for each in asked if each["with_vector"]] == [SAMPLE]
        assert fake.sent("PUT", "/points") == []


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("{data}", "{data}/../data", "are the same place"),
        ("http://h:1", "http://h:1/", "are the same place"),
        ("{data}", "ftp://h", "Name an http:// or https:// URL"),
        ("{data}/nowhere", "{new}", "holds no index"),
        ("{data}", "{new} --collection nope", "There is no collection 'nope'"),
    ],
)
def test_a_refusal_is_a_sentence_and_makes_nothing(
    settings: Settings, tmp_path: Path, source: str, target: str, said: str
) -> None:
    fill(settings, 1)
    places = {"data": settings.data, "new": tmp_path / "new"}
    refused = migrate(source.format(**places), *target.format(**places).split())
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert not (tmp_path / "new").exists()
    assert not (settings.data / "nowhere").exists()


def test_an_index_without_collections_is_said(settings: Settings, tmp_path: Path) -> None:
    with open_store(settings):
        pass
    refused = migrate(settings.data, tmp_path / "new")
    assert refused.exit_code == 2
    assert "There is no collection to copy" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(settings: Settings, target: Settings) -> None:
    fill(settings, 300)
    command = [sys.executable, "-c", "from indexer.cli import main; main()", "migrate", "--json"]
    command += ["--from", str(settings.data), "--to"]
    piped = subprocess.run([*command, str(target.data)], capture_output=True, text=True, check=True)
    assert piped.stderr == ""
    master, terminal = pty.openpty()
    subprocess.run(
        [*command, str(target.data) + "2"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        check=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    bar = b""
    with suppress(OSError):  # which is how a terminal ends
        while more := os.read(master, 1 << 16):
            bar += more
    os.close(master)
    assert b"300/300" in bar


def test_the_sample_is_drawn_from_the_whole_stream() -> None:
    everything = [str(number) for number in range(10_000)]
    sample = _Sample()
    for at in range(0, 10_000, 256):
        sample.add(everything[at : at + 256])
    assert len(sample.ids) == len(set(sample.ids)) == SAMPLE
    mean = np.mean([int(each) for each in sample.ids])
    assert 5_000 - 6 * 289 < mean < 5_000 + 6 * 289  # six standard errors: 10,000 / sqrt(12) / sqrt(100) = 289
