"""What a Qdrant server is sent, by HTTP and by gRPC, and what becomes of its answers.

With CROSSLENS_TEST_QDRANT_URL set, a real server runs what does not depend on a script.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import structlog
from qdrant_client import QdrantClient, models

from indexer.errors import CollectionNotFound, IndexUnavailable, InvalidRequest, ModelMismatch, ServerTooOld
from indexer.items import Location, Record, to_payload
from indexer.settings import Settings
from indexer.store import Point, Store, open_store
from indexer.store import connection as connection_module
from indexer.store import server as server_module
from indexer.store import store as store_module
from indexer.store.fields import DEFAULTS, OWN
from tests.indexer.store.fake_qdrant import Answer, FakeQdrant, fake_qdrant

SIZE = 8
MODEL = ("m", "f" * 16, SIZE)
REAL = os.environ.get("CROSSLENS_TEST_QDRANT_URL")


def points(count: int, seed: int = 0) -> list[Point]:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    made = []
    for number, vector in enumerate(vectors):
        record = Record(
            kind="text",
            sha256=f"{number:064}",
            locations=[Location(source=f"/{seed}/{number}")],
            bytes=1,
            media_type="text/plain",
            added_at=datetime(2026, 1, 2, tzinfo=UTC),
        )
        payload = {"tag": ["a", "b"][number % 2], "deep": {"n": [1, 2.5, None, True]}, "none": None}
        made.append(Point(str(uuid.UUID(int=(seed << 32) + number + 1)), vector, to_payload(record, payload)))
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, and loggers can be listened to whatever was configured before."""
    monkeypatch.setattr(connection_module, "_PAUSES", (0.0, 0.01, 0.01, 0.01))
    for module in (connection_module, server_module):
        monkeypatch.setattr(module, "_log", structlog.get_logger("store"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeQdrant]:
    with fake_qdrant(Settings(data=tmp_path_factory.mktemp("server"))) as fake:
        yield fake


@pytest.fixture
def fake(running: FakeQdrant) -> FakeQdrant:
    """The fake server, empty."""
    running.reset()
    return running


def at(fake: FakeQdrant, protocol: str, **more: Any) -> Settings:
    return Settings(qdrant_url=fake.url, qdrant_grpc_port=fake.grpc_port, qdrant_prefer_grpc=protocol == "grpc", **more)


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(fake: FakeQdrant, protocol: str) -> Settings:
    return at(fake, protocol)


@pytest.fixture(params=["fake", "real"])
def any_store(request: pytest.FixtureRequest, fake: FakeQdrant, protocol: str) -> Iterator[Store]:
    """A store on the fake server, and on the real one where there is one."""
    if request.param == "fake":
        settings = at(fake, protocol)
    elif REAL:
        settings = Settings(qdrant_url=REAL, qdrant_prefer_grpc=protocol == "grpc")
    else:
        pytest.skip("CROSSLENS_TEST_QDRANT_URL is not set")
    with open_store(settings) as store:
        for each in store.list():
            if each.name.startswith("test-"):
                store.delete(each.name)
        yield store


def test_a_new_collection_is_made_as_the_settings_ask(fake: FakeQdrant, protocol: str) -> None:
    asked = at(fake, protocol, qdrant_shards=3, qdrant_replicas=2, qdrant_write_consistency=2, qdrant_on_disk=True)
    with open_store(asked) as store:
        store.create("c", *MODEL).upsert(points(3))
    (body,) = fake.sent("PUT", "/collections/c")
    created = body["metadata"].pop("created")
    assert created.endswith("+00:00")
    assert {key: value for key, value in body.items() if value is not None} == {
        "vectors": {"size": SIZE, "distance": "Cosine", "on_disk": True},
        "shard_number": 3,
        "replication_factor": 2,
        "write_consistency_factor": 2,
        "quantization_config": {"scalar": {"type": "int8", "quantile": pytest.approx(0.99), "always_ram": True}},
        "strict_mode_config": {
            "enabled": True,
            "unindexed_filtering_retrieve": False,
            "unindexed_filtering_update": False,
        },
        "metadata": {"name": "c", "model": "m", "fingerprint": "f" * 16},
    }


def test_payload_indexes_come_before_points(fake: FakeQdrant, server: Settings) -> None:
    with open_store(server) as store:
        store.create("c", *MODEL).upsert(points(3))
    paths = [each.path for each in fake.requests if each.method == "PUT"]
    assert paths == ["/collections/c", *["/collections/c/index"] * len({**OWN, **DEFAULTS}), "/collections/c/points"]
    indexed = {body["field_name"]: body["field_schema"] for body in fake.sent("PUT", "/collections/c/index")}
    assert indexed["crosslens.locations[].source"] == "keyword"
    assert indexed["crosslens.added_at"] == "datetime"


@pytest.mark.parametrize(("quantization", "sent"), [("none", None), ("binary", {"binary": {"always_ram": True}})])
def test_other_quantization(fake: FakeQdrant, protocol: str, quantization: str, sent: Any) -> None:
    with open_store(at(fake, protocol, qdrant_quantization=quantization)) as store:
        store.create("c", *MODEL)
    assert fake.made["c"].get("quantization_config") == sent
    assert not fake.made["c"]["vectors"].get("on_disk")
    assert fake.made["c"].get("shard_number") is None


def test_the_embedded_index_gets_none_of_it(settings: Settings) -> None:
    with open_store(settings.model_copy(update={"qdrant_shards": 3, "qdrant_on_disk": True})) as store:
        assert store.create("c", *MODEL).count() == 0  # it would refuse what it does not know


def test_searches_ask_for_rescoring_with_oversampling(fake: FakeQdrant, server: Settings) -> None:
    with open_store(server) as store:
        collection = store.create("c", *MODEL)
        collection.upsert(points(5))
        collection.search(points(1)[0].vector, 2)
        collection.search(points(1)[0].vector, 2, exact=True)
    body, exact = (each["searches"][0] for each in fake.sent("POST", "/points/query/batch"))
    assert body["params"]["hnsw_ef"] == 384
    assert body["params"]["quantization"]["rescore"] is True
    assert body["params"]["quantization"]["oversampling"] == 2.0
    assert not body["params"].get("exact")
    assert exact["params"]["exact"] is True


def test_all_that_a_collection_can_do(any_store: Store) -> None:
    collection = any_store.create("test-c", *MODEL)
    assert any_store.create("test-c", *MODEL).metadata == collection.metadata
    with pytest.raises(ModelMismatch):
        any_store.create("test-c", "other", "0" * 16, SIZE)
    written = points(70)
    collection.upsert(written)
    assert "test-c" in [each.name for each in any_store.list()]
    assert collection.count() == 70
    pages = list(collection.ids(32))
    assert [len(page) for page in pages] == [32, 32, 6]
    assert [each for page in pages for each in page] == [point.id for point in written]
    assert collection.present([written[3].id, str(uuid.uuid4())]) == {written[3].id}
    back = collection.points([point.id for point in written])
    for point in written:
        assert back[point.id].payload == point.payload
        np.testing.assert_allclose(back[point.id].vector, point.vector / np.linalg.norm(point.vector), atol=1e-6)
    assert collection.by_sources(["/0/7", "/nowhere"]).keys() == {"/0/7"}
    hits = collection.search(written[5].vector, 3, exclude_ids=[written[6].id])
    assert hits[0].id == written[5].id
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    kind = models.FieldCondition(key="crosslens.kind", match=models.MatchValue(value="image"))
    assert collection.search(written[5].vector, 3, filter=models.Filter(must=[kind])) == []
    collection.set_payload(written[0].id, {"tag": "new"})
    found = collection.get(written[0].id)
    assert found is not None
    assert found.payload == {"tag": "new"}
    assert found.record.locations[0].source == "/0/0"
    np.testing.assert_allclose(collection.vector(written[1].id), back[written[1].id].vector, atol=1e-6)
    collection.delete([written[0].id])
    assert collection.get(written[0].id) is None
    any_store.delete("test-c")
    with pytest.raises(CollectionNotFound):
        any_store.get("test-c")


def test_a_filter_without_an_index_is_refused_with_what_to_do(any_store: Store) -> None:
    collection = any_store.create("test-c", *MODEL, indexes={"tag": models.PayloadSchemaType.KEYWORD})
    collection.upsert(points(4))

    def among(key: str, value: Any) -> models.Filter:
        return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])

    assert len(collection.search(points(1)[0].vector, 9, filter=among("tag", "a"))) == 2
    assert collection.payload_indexes().keys() >= {"tag", "crosslens.kind"}
    with pytest.raises(InvalidRequest, match=r'Index required but not found for "deep\.n"') as refused:
        collection.search(points(1)[0].vector, 9, filter=among("deep.n", 1))
    assert "/index" in refused.value.remedy


@pytest.mark.parametrize("version", ["1.15.9", "0.11.0"])
def test_a_server_that_is_too_old_is_refused(fake: FakeQdrant, server: Settings, version: str) -> None:
    fake.version = version
    with (
        pytest.raises(ServerTooOld, match=rf"is version {version}; Crosslens needs 1\.16 or newer") as refused,
        open_store(server),
    ):
        pass
    assert "Upgrade the server" in refused.value.remedy


@pytest.mark.parametrize(("version", "warned"), [("1.16.0", False), ("1.20.1", False), ("2.0.0", True), ("dev", True)])
def test_a_newer_major_version_is_warned_of(fake: FakeQdrant, server: Settings, version: str, warned: bool) -> None:
    fake.version = version
    with structlog.testing.capture_logs() as logs, open_store(server) as store:
        store.ping()
    assert [each["version"] for each in logs] == ([version] if warned else [])


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, {"hello": "world"}), (404, None)])
def test_what_is_not_qdrant_is_said(fake: FakeQdrant, status: int, body: Any) -> None:
    fake.script.append(Answer("GET", "/", status, body=body))
    with pytest.raises(IndexUnavailable, match="not Qdrant") as refused, open_store(at(fake, "http")):
        pass
    assert "CROSSLENS_QDRANT_URL" in refused.value.remedy


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, InvalidRequest, "scripted"),
        (404, CollectionNotFound, "There is no collection 'c'"),
        (401, IndexUnavailable, "scripted"),
        (403, IndexUnavailable, "scripted"),
        (409, InvalidRequest, "scripted"),
        (500, IndexUnavailable, "scripted"),
    ],
)
def test_refusals_become_our_errors(
    fake: FakeQdrant, server: Settings, status: int, error: type[Exception], said: str
) -> None:
    with open_store(server) as store:
        fake.script.append(Answer("GET", "/collections/c", status, times=99))
        with pytest.raises(error, match=said) as refused:
            store.get("c")
        assert type(refused.value) is error
        if status in (401, 403):
            assert "CROSSLENS_QDRANT_API_KEY" in refused.value.remedy  # type: ignore[attr-defined]
    assert len(fake.sent("GET", "/collections/c")) == 1  # a refusal is not tried again


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_is_not_ready_is_tried_again(fake: FakeQdrant, server: Settings, status: int) -> None:
    with open_store(server) as store:
        collection = store.create("c", *MODEL)
        fake.script.append(Answer("PUT", "/collections/c/points", status, times=2))
        collection.upsert(points(3))
        assert collection.count() == 3
    assert len(fake.sent("PUT", "/points")) == 3


def test_a_server_that_limits_the_rate_gets_the_pause_that_it_asks_for(
    fake: FakeQdrant, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    with open_store(server) as store:
        fake.script.append(Answer("GET", "/collections/c", 429, "too fast", headers={"Retry-After": "7"}, times=99))
        monkeypatch.setattr(connection_module.time, "sleep", pauses.append)
        with pytest.raises(IndexUnavailable, match="no capacity left: too fast"):
            store.get("c")
    assert pauses == [7.0] * 4


def test_a_server_that_stays_away_is_given_up_on_with_where_to_look(fake: FakeQdrant, protocol: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        settings = Settings(
            qdrant_url=f"http://127.0.0.1:{port}", qdrant_grpc_port=port, qdrant_prefer_grpc=protocol == "grpc"
        )
        with pytest.raises(IndexUnavailable, match="does not answer") as refused, open_store(settings):
            pass
    assert f"http://127.0.0.1:{port}" in refused.value.remedy
    assert ("CROSSLENS_QDRANT_PREFER_GRPC=0" in refused.value.remedy) == (protocol == "grpc")


def test_a_collection_with_other_settings_is_used_and_the_difference_said_once(fake: FakeQdrant, protocol: str) -> None:
    with open_store(at(fake, protocol)) as store:
        store.create("c", *MODEL).upsert(points(3))
    other = at(fake, protocol, qdrant_shards=2, qdrant_replicas=3, qdrant_quantization="none")
    with structlog.testing.capture_logs() as logs, open_store(other) as store:
        assert store.create("c", *MODEL).count() == 3
        assert store.get("c").count() == 3
    said = {each["setting"]: (each["there"], each["asked_for"], each["remedy"]) for each in logs}
    assert len(logs) == 3
    assert said["CROSSLENS_QDRANT_SHARDS"][:2] == (1, 2)
    assert "crosslens migrate" in said["CROSSLENS_QDRANT_SHARDS"][2]
    assert said["CROSSLENS_QDRANT_REPLICAS"][:2] == (1, 3)
    assert '"replication_factor": 3' in said["CROSSLENS_QDRANT_REPLICAS"][2]
    assert said["CROSSLENS_QDRANT_QUANTIZATION"][:2] == ("int8", "none")
    assert '{"quantization_config": "Disabled"}' in said["CROSSLENS_QDRANT_QUANTIZATION"][2]
    with structlog.testing.capture_logs() as logs, open_store(at(fake, protocol)) as store:
        store.get("c")
    assert logs == []


def test_others_collections_are_left_alone(fake: FakeQdrant, server: Settings) -> None:
    theirs = QdrantClient(url=fake.url, check_compatibility=False)
    theirs.create_collection("theirs", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    with open_store(server) as store:
        store.create("ours", *MODEL)
        assert [each.name for each in store.list()] == ["ours"]
        fake.requests.clear()
        with pytest.raises(CollectionNotFound, match="not made by Crosslens"):
            store.create("theirs", *MODEL)
    assert fake.sent("PUT", "/index") == []
    theirs.close()


def test_a_collection_whose_maker_died_gets_the_indexes_that_it_lacks(fake: FakeQdrant, server: Settings) -> None:
    with open_store(server) as store:
        fake.script.append(Answer("PUT", "/collections/c/index", 500, times=99))
        with pytest.raises(IndexUnavailable):
            store.create("c", *MODEL)
        fake.script.clear()
        collection = store.create("c", *MODEL)
        collection.upsert(points(3))
        assert collection.by_sources(["/0/1"]).keys() == {"/0/1"}


def test_a_collection_that_another_process_makes_at_the_same_moment_is_used(fake: FakeQdrant, server: Settings) -> None:
    with open_store(server) as store:
        store.create("c", *MODEL)
        fake.script.append(Answer("GET", "/collections/c", 404))  # as seen before the other made it
        assert store.create("c", *MODEL).count() == 0


def test_a_collection_that_the_server_refuses_to_make_says_why(
    fake: FakeQdrant, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_RACE_SECONDS", 0.1)
    with open_store(server) as store:
        fake.script.append(Answer("PUT", "/collections/c", 400, "too many shards", times=99))
        with pytest.raises(InvalidRequest, match="too many shards"):
            store.create("c", *MODEL)
