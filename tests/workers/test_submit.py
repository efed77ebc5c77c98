"""Handing jobs in: refused before the queue drowns, and with a sentence where there is none."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli import main
from indexer.settings import Settings
from search_api.app import create_app
from search_api.services import Services
from tests.workers.conftest import Cluster
from workers.broker import socket_path
from workers.job import State

INGEST = "/v1/collections/media/ingest"


def test_too_many_jobs_are_answered_with_when_to_come_again(cluster: Cluster, photos: Path) -> None:
    settings = cluster.settings.model_copy(update={"job_limit": 2})
    services = Services(settings)
    with create_app(settings, services).test_client() as client:
        jobs = [client.post(INGEST, json={"source": str(photos)}) for _ in range(3)]
        assert [answer.status_code for answer in jobs] == [202, 202, 429]
        assert int(jobs[2].headers["Retry-After"]) > 0
        assert jobs[2].get_json()["code"] == "too_busy"
        first = jobs[0].get_json()["job"]
        assert client.post(f"/v1/jobs/{first}/cancel").get_json()["state"] == "cancelled"
        assert client.post(INGEST, json={"source": str(photos)}).status_code == 202
    services.close()


def test_without_a_queue_a_sentence_says_what_to_start(settings: Settings, photos: Path) -> None:
    services = Services(settings)
    with create_app(settings, services).test_client() as client:
        answer = client.post(INGEST, json={"source": str(photos)})
        # Keys are in the queue's Redis, too: who asks cannot be told before it answers.
        assert (answer.status_code, answer.get_json()["code"]) == (503, "keys_unavailable")
        assert answer.get_json()["remedy"]
    services.close()
    done = CliRunner().invoke(main, ["jobs", "list"])
    assert done.exit_code == 2
    assert "does not answer" in done.stderr
    assert "crosslens serve" in done.stderr


def test_a_cancelled_job_is_left_by_its_workers(
    cluster: Cluster, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSLENS_QUEUE_LIMIT", "1")
    planner = cluster.start_worker("plan")
    job = cluster.submit(photos)
    assert cluster.jobs.cancel(job.id)
    assert not cluster.jobs.cancel(job.id)
    cluster.start_worker()
    after = cluster.wait(cluster.submit(photos, collection="other"))
    assert (after.state, after.total) == (State.DONE, 300)
    assert cluster.jobs.get(job.id).state is State.CANCELLED
    assert planner.poll() is None


def test_a_worker_needs_what_other_machines_reach() -> None:
    done = CliRunner().invoke(main, ["worker"])
    assert done.exit_code == 2
    assert "CROSSLENS_REDIS_URL" in done.stderr
    assert "crosslens serve" in done.stderr


def test_a_long_data_folder_gets_a_short_socket(tmp_path: Path) -> None:
    deep = Settings(data=tmp_path / ("x" * 120))
    assert len(str(socket_path(deep))) < 108
    assert socket_path(deep) != socket_path(Settings(data=tmp_path / ("y" * 120)))
    assert socket_path(Settings(data=Path("/tmp/d"))) == Path("/tmp/d/broker/valkey.sock")
