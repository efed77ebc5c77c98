"""Labels through the queue: a job like any other, whose counts add up, and which is repeated at no cost."""

from pathlib import Path

import pytest

from indexer.classify.labels import parse_label_set
from indexer.classify.stored import delete_label_set, put_label_set
from tests.workers.conftest import Cluster
from workers.classifying import LABELS_OF
from workers.job import Job, State
from workers.runtime import Runtime


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards; workers inherit it."""
    monkeypatch.setenv("CROSSLENS_SHARD_SIZE", "64")


def counts(job: Job) -> tuple[State, int, int, int]:
    return job.state, job.indexed, job.skipped, job.failed


def label(cluster: Cluster, name: str) -> Job:
    job = cluster.jobs.create("media", "colours", [LABELS_OF + name])
    cluster.plan(job)
    return cluster.wait(job)


def test_a_collection_is_labelled_through_the_queue(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    cluster.start_worker()
    cluster.wait(cluster.submit(photos))
    with Runtime(cluster.settings) as runtime:
        labels = parse_label_set({"name": "colour", "labels": ["red", "green", "blue"]})
        put_label_set(runtime.store, runtime.store.get("media"), labels)
        assert counts(label(cluster, "colour")) == (State.DONE, 300, 0, 0)
        there = runtime.store.get("media")
        assert there.facet("labels.colour") == {"red": 100, "green": 100, "blue": 100}
        assert counts(label(cluster, "colour")) == (State.DONE, 0, 300, 0)

        item = next(iter(there.scan()))
        there.set_payload(item.id, {"labels": "mine"})
        job = label(cluster, "colour")
        assert counts(job) == (State.DONE, 0, 299, 1)
        assert cluster.jobs.failures(job.id)[0]["item"] == {"source": item.id, "labels": "colour"}
        there.set_payload(item.id, {})
        again = cluster.jobs.create("media", "colours", [f"failures:{job.id}"])
        cluster.plan(again)
        assert counts(cluster.wait(again)) == (State.DONE, 1, 0, 0)

        delete_label_set(runtime.store, there, "colour")
        gone = label(cluster, "colour")
        assert gone.state is State.FAILED
        assert gone.error is not None
        assert gone.error["code"] == "label_set_not_found"
