"""Rescans in shares: planned with their counts, each its own shard, let go of and cancelled in between."""

import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from indexer.items import Location, Record, now, to_payload
from indexer.models.encoder import load_encoder
from indexer.moderation.judging import Judged
from indexer.moderation.policy import Policy
from indexer.moderation.stored import drop_policy, put_policy
from indexer.settings import Settings
from indexer.store import Collection, Point
from tests.workers.conftest import Cluster
from workers import judging
from workers.embedding import run_shard
from workers.job import Job, State
from workers.judging import JUDGED, POLICY, items_to_judge
from workers.planning import Interrupted, plan
from workers.runtime import Runtime

ITEMS = 200


@pytest.fixture
def runtime(cluster: Cluster, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A worker's, with a collection of which nothing is judged, and shares of about 64 items."""
    monkeypatch.setattr(judging, "_SHARE", 64)
    monkeypatch.setattr(judging, "_FEW", 64)
    with Runtime(settings) as runtime:
        encoder = load_encoder(settings)
        runtime.store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        vectors = np.random.default_rng(0).normal(size=(ITEMS, encoder.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        runtime.store.get("media").upsert(
            [Point(str(uuid.uuid4()), vector, to_payload(record(number))) for number, vector in enumerate(vectors)]
        )
        weights = [1.0] + [0.0] * (encoder.dimension - 1)
        put(runtime, {"type": "linear", "weights": weights, "bias": 0.0, "fingerprint": encoder.fingerprint})
        yield runtime


def record(number: int) -> Record:
    where = [Location(source=f"/{number}")]
    return Record(
        kind="text", sha256=f"{number:064x}", locations=where, bytes=1, media_type="text/plain", added_at=now()
    )


def put(runtime: Runtime, detector: dict[str, object]) -> Collection:
    category = {"name": "half", "action": "flag", "detectors": [detector]}
    policy = Policy.model_validate({"name": "neutral", "categories": [category]})
    put_policy(runtime.store, runtime.store.get("media"), policy, by="root")
    return runtime.store.get("media")


def planned(runtime: Runtime) -> Job:
    job = runtime.jobs.create("media", "colours", [POLICY])
    plan(runtime, job.id)
    return runtime.jobs.get(job.id)


def worked_off(runtime: Runtime, job: Job) -> tuple[State, int, int, int]:
    for number in runtime.jobs.open_shards(job.id):
        run_shard(runtime, job.id, number)
    job = runtime.jobs.get(job.id)
    return job.state, job.indexed, job.skipped, job.failed


def test_a_collection_in_columns_is_judged_in_shares(runtime: Runtime) -> None:
    job = planned(runtime)
    assert (job.planned, runtime.jobs.open_shards(job.id)) == (ITEMS, [0, 1, 2, 3])
    assert worked_off(runtime, job) == (State.DONE, ITEMS, 0, 0)
    flagged = runtime.store.get("media").facet("crosslens.verdict.action")
    assert flagged.keys() == {"flag", "allow"}
    assert worked_off(runtime, planned(runtime)) == (State.DONE, 0, ITEMS, 0)


def test_what_is_not_in_columns_comes_by_its_id(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "in_columns", lambda *_, **__: None)  # a server's
        assert [each[JUDGED] for each in items_to_judge(runtime, "media")] == [True] * ITEMS
    assert len(list(items_to_judge(runtime, "media"))) == 4
    put(runtime, {"type": "text", "words": ["x"]})
    assert len(list(items_to_judge(runtime, "media"))) == ITEMS


def test_a_share_is_what_it_was_when_the_policy_has_changed_since(runtime: Runtime) -> None:
    job = planned(runtime)
    run_shard(runtime, job.id, 0)
    put(runtime, {"type": "text", "words": ["x"]})
    state, changed, unchanged, failed = worked_off(runtime, job)
    assert (state, changed + unchanged, failed) == (State.DONE, ITEMS, 0)
    drop_policy(runtime.store, runtime.store.get("media"))
    assert not list(runtime.settings.index_folder.rglob("columns"))


def test_a_worker_that_ends_lets_go_of_its_share(runtime: Runtime) -> None:
    job = planned(runtime)
    runtime.stopping.set()
    with pytest.raises(Interrupted):
        run_shard(runtime, job.id, 0)
    runtime.stopping.clear()
    assert runtime.jobs.open_shards(job.id) == [0, 1, 2, 3]
    state, changed, unchanged, failed = worked_off(runtime, job)
    assert (state, changed + unchanged, failed) == (State.DONE, ITEMS, 0)


def test_a_job_that_is_cancelled_goes_no_further(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    job = planned(runtime)
    seen = 0

    def endless(*_: object, **__: object) -> Iterator[Judged]:
        nonlocal seen
        while True:
            seen += 1
            if seen == 3:
                runtime.jobs.cancel(job.id)
            yield Judged()

    monkeypatch.setattr(judging, "rescan", endless)
    run_shard(runtime, job.id, 0)
    assert seen == 3
    assert runtime.jobs.get(job.id).state is State.CANCELLED
