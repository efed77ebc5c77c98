"""Jobs through a real broker and real workers: killed, stopped and poisoned, the counts are exact."""

import contextlib
import json
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from indexer.settings import Settings
from tests.waiting import until
from tests.workers.conftest import Cluster
from workers.broker import redis_url
from workers.job import OVER, Job, State
from workers.jobs import Jobs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """The dead are found in two seconds, shards are small; workers inherit both."""
    monkeypatch.setenv("CROSSLENS_WORKER_SECONDS", "2")
    monkeypatch.setenv("CROSSLENS_SHARD_SIZE", "64")


def in_work(jobs: Jobs, job: Job) -> bool:
    """Whether a part of a shard is in work right now."""
    states = [jobs.load_state(job.id, number) for number in jobs.open_shards(job.id)]
    return any(state is not None and state.current is not None for state in states)


def exact(job: Job, indexed: int, *, failed: int = 0) -> None:
    assert job.state is State.DONE, job
    assert (job.indexed, job.skipped, job.failed) == (indexed, 0, failed)
    assert job.planned == job.total == indexed + failed


def test_a_folder_goes_through_the_queue(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    cluster.start_worker()
    (photos / "broken.jpg").write_bytes(b"no picture")
    job = cluster.wait(cluster.submit(photos))
    exact(job, 300, failed=1)
    assert [failure["code"] for failure in cluster.jobs.failures(job.id)] == ["not_an_image"]
    assert cluster.count() == 300
    again = cluster.wait(cluster.submit(photos))
    assert (again.indexed, again.skipped, again.failed) == (0, 300, 1)


def test_a_worker_killed_mid_shard_loses_nothing_and_counts_nothing_twice(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    job = cluster.submit(photos)
    for _ in range(2):
        worker = cluster.start_worker()
        until(lambda: in_work(cluster.jobs, job))
        worker.kill()
        worker.wait()
    cluster.start_worker()
    exact(cluster.wait(job), 300)
    assert cluster.count() == 300


def test_a_stopped_worker_is_overtaken_and_its_own_counts_come_too_late(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    job = cluster.submit(photos)
    stopped = cluster.start_worker()
    until(lambda: in_work(cluster.jobs, job))
    stopped.send_signal(signal.SIGSTOP)
    cluster.start_worker()
    done = cluster.wait(job)
    stopped.send_signal(signal.SIGCONT)
    second = cluster.wait(cluster.submit(photos))  # both workers take part
    assert (second.indexed, second.skipped) == (0, 300)
    assert cluster.jobs.get(job.id).as_dict()["total"] == done.total == 300
    assert cluster.count() == 300


def test_a_broker_that_is_killed_and_comes_back_has_it_all(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    cluster.start_worker()
    job = cluster.submit(photos)
    until(lambda: in_work(cluster.jobs, job))
    assert cluster.broker is not None
    cluster.broker.kill()
    cluster.broker.wait()
    cluster.start_broker()
    done = cluster.wait(job)
    assert (done.state, done.total, done.failed) == (State.DONE, 300, 0)
    assert cluster.count() == 300


def test_a_planner_killed_while_planning_goes_on_where_it_was(
    cluster: Cluster, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSLENS_QUEUE_LIMIT", "1")  # planning waits after the first shard
    planner = cluster.start_worker("plan")
    job = cluster.submit(photos)
    until(lambda: cluster.jobs.get(job.id).planned > 0)
    planner.kill()
    planner.wait()
    cluster.start_worker("plan")
    cluster.start_worker()
    exact(cluster.wait(job), 300)


def test_a_worker_told_to_end_finishes_its_shard_and_the_rest_waits(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    job = cluster.submit(photos)
    worker = cluster.start_worker()
    until(lambda: in_work(cluster.jobs, job))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert cluster.jobs.claims() == {}
    cluster.start_worker()
    exact(cluster.wait(job), 300)


POISON = """
import os
import indexer.media.decode as real

decode = real.decode

def killing(data, **options):
    if b"poison" in data:
        os.kill(os.getpid(), 9)
    return decode(data, **options)

real.decode = killing
"""


def test_items_that_kill_their_worker_are_quarantined_and_their_neighbours_go_in(
    cluster: Cluster, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "sitecustomize.py").write_text(POISON)
    for name in ("010.png", "200.png"):
        (photos / name).write_bytes((photos / name).read_bytes() + b"poison")
    cluster.start_worker("plan")
    job = cluster.submit(photos)
    path = f"{tmp_path / 'poison'}:{Path.cwd()}"
    deaths = 0
    while cluster.jobs.get(job.id).state is not State.DONE:
        worker = cluster.start_worker(PYTHONPATH=path)
        until(lambda: worker.poll() is not None or cluster.jobs.get(job.id).state is State.DONE)  # noqa: B023
        deaths += worker.poll() is not None
        assert deaths < 40
    exact(cluster.jobs.get(job.id), 298, failed=2)
    failures = cluster.jobs.failures(job.id)
    assert {Path(failure["source"]).name: failure["code"] for failure in failures} == {
        "010.png": "quarantined",
        "200.png": "quarantined",
    }
    assert cluster.count() == 298
    # Once they are mended, the failures alone are tried again.
    for name in ("010.png", "200.png"):
        (photos / name).write_bytes((photos / name).read_bytes().removesuffix(b"poison"))
    again = cluster.jobs.create("media", job.model, [f"failures:{job.id}"])
    cluster.plan(again)
    cluster.start_worker()
    exact(cluster.wait(again), 2)


def test_an_index_that_dies_is_waited_for(cluster: Cluster, photos: Path) -> None:
    cluster.start_worker("plan")
    cluster.start_worker()
    job = cluster.submit(photos)
    address = cluster.settings.index_folder / "address.json"
    until(lambda: in_work(cluster.jobs, job) and address.exists())  # the worker starts the index that it needs
    psutil.Process(json.loads(address.read_text())["pid"]).kill()
    exact(cluster.wait(job), 300)
    assert cluster.count() == 300


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 1 GB with the data folder on it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_waited_for_and_the_job_goes_on_when_there_is_room(
    small_disk: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSLENS_DATA", str(small_disk / "data"))
    cluster = Cluster(Settings())
    try:
        cluster.start_broker()
        cluster.start_worker("plan")
        first = cluster.submit(photos, collection="before")
        cluster.start_worker()
        exact(cluster.wait(first), 300)
        worker = cluster.processes[-1]
        job = cluster.submit(photos)
        until(lambda: in_work(cluster.jobs, job))
        worker.send_signal(signal.SIGSTOP)
        filler = small_disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 2**20)
                file.flush()
        worker.send_signal(signal.SIGCONT)
        client = redis.Redis.from_url(redis_url(cluster.settings))
        # Either the index says so and the job notes it, or the broker cannot even note that.
        until(lambda: cluster.jobs.get(job.id).note or client.info("persistence")["aof_last_write_status"] != "ok")
        assert cluster.jobs.get(job.id).state not in OVER
        filler.unlink()
        running = {"plan": cluster.processes[0], "embed": worker}

        def over() -> bool:
            for queues, process in running.items():
                if process.poll() is not None:  # the broker refused what it said; a supervisor starts it again
                    running[queues] = cluster.start_worker(queues)
            with contextlib.suppress(redis.RedisError):
                return cluster.jobs.get(job.id).state in OVER
            return False

        until(over, 120)
        exact(cluster.jobs.get(job.id), 300)
        assert cluster.count() == 300
    finally:
        cluster.stop()


def test_an_archive_and_a_table_go_through_the_queue(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for number in range(100):
            archive.write(photos / f"{number:03}.png", f"inside/{number}.png")
    rows = [f"photos/{number:03}.png,caption {number}" for number in range(100, 200)]
    (tmp_path / "table.csv").write_text("\n".join(["file,caption", *rows]))
    cluster.start_worker("plan")
    cluster.start_worker()
    exact(cluster.wait(cluster.submit(tmp_path / "some.zip", tmp_path / "table.csv")), 200)
    again = cluster.wait(cluster.submit(tmp_path / "some.zip", tmp_path / "table.csv"))
    assert (again.indexed, again.skipped) == (0, 200)
