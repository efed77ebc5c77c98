"""What Prometheus reads, and that the dashboard reads nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from indexer.settings import Settings
from indexer.stages import Stages
from search_api.app import create_app
from search_api.services import Services
from tests.bundles import picture
from tests.search_api.test_http import SEARCH, upload
from tests.workers.conftest import Cluster
from workers.meters import STAGES, Meters
from workers.runtime import connect

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "crosslens.json"


@pytest.fixture
def client(settings: Settings) -> Iterator[FlaskClient]:
    """An API with a queue's broker beside it."""
    cluster = Cluster(settings)
    cluster.start_broker()
    services = Services(settings)
    try:
        with create_app(settings, services).test_client() as client:
            yield client
    finally:
        services.close()
        assert cluster.broker is not None
        cluster.broker.kill()
        cluster.broker.wait()


def worked() -> Stages:
    """A batch that took 20 ms, one of a second, and one that took longer than any bound."""
    stages = Stages()
    for seconds, items in ((0.02, 16), (1.0, 1), (1000.0, 20)):
        stages.note("encode", seconds, items)
    return stages


def read(client: FlaskClient) -> str:
    return client.get("/metrics").get_data(as_text=True)


def test_items_stages_errors_and_the_queue_are_counted(client: FlaskClient) -> None:
    upload(client, ("red.png", picture("red")))
    for _ in range(2):
        assert client.post(SEARCH, json={"query": [{"text": "red"}]}).status_code == 200
    client.get("/v1/collections/gone")
    job = client.post("/v1/collections/media/ingest", json={"source": "/nowhere"})
    assert job.status_code == 202
    text = read(client)
    assert 'crosslens_items{collection="media"} 1.0' in text
    for stage in ("tokenize", "encode", "search", "rank"):
        assert f'crosslens_search_stage_seconds_count{{stage="{stage}"}} 2.0' in text
    tokenizing = re.search(r'crosslens_search_stage_seconds_sum{stage="tokenize"} (\S+)', text)
    assert tokenizing is not None
    assert float(tokenizing[1]) > 0
    assert re.search(r'crosslens_errors_total\{key="[^"]*",status="404"\} 1\.0', text)
    assert 'crosslens_queue_messages{queue="plan"} 1.0' in text
    assert 'crosslens_jobs_unfinished{state="queued"} 1.0' in text
    assert "crosslens_workers 0.0" in text


def test_an_index_or_queue_that_is_away_leaves_the_rest(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "qdrant_url": "http://127.0.0.1:1"})
    services = Services(away)
    with create_app(settings.model_copy(update={"workers": 0}), services).test_client() as client:
        client.get("/healthz")
        assert 'crosslens_requests_total{method="GET",route="/healthz",status="200"} 1.0' in read(client)
    services.close()


def test_the_dashboard_asks_for_metrics_that_there_are(client: FlaskClient) -> None:
    upload(client, ("red.png", picture("red")))
    client.post(SEARCH, json={"query": [{"text": "red"}]})
    client.get("/v1/collections/gone")
    client.post("/v1/collections/media/ingest", json={"source": "/nowhere"})
    client.application.extensions["crosslens"].queue.meters.add(worked())
    text = read(client)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    asked = {name for expression in expressions for name in re.findall(r"crosslens_\w+", expression)}
    there = set(re.findall(r"^(crosslens_\w+)", text, re.MULTILINE))
    assert asked <= there
    assert len({panel["id"] for panel in panels}) == len(panels)
    stages = {name for expression in expressions for name in re.findall(r'stage=~?"([\w|]+)"', expression)}
    assert {each for names in stages for each in names.split("|")} <= set(STAGES)


def test_what_workers_measured_adds_up_and_is_shown_to_every_api(client: FlaskClient) -> None:
    meters = client.application.extensions["crosslens"].queue.meters
    assert "crosslens_worker_stage_seconds_count" not in read(client)
    meters.add(worked(), {"indexed": 5, "skipped": 0, "failed": 1})
    meters.add(worked(), {"indexed": 2, "skipped": 1, "failed": 0})
    text = read(client)
    for le, count in (("0.001", 0), ("0.025", 2), ("0.1", 2), ("2.5", 4), ("600.0", 4), ("+Inf", 6)):
        assert f'crosslens_worker_stage_seconds_bucket{{le="{le}",stage="encode"}} {count}.0' in text
    assert 'crosslens_worker_stage_seconds_count{stage="encode"} 6.0' in text
    assert 'crosslens_worker_stage_seconds_sum{stage="encode"} 2002.04' in text
    assert 'crosslens_worker_batch_items_bucket{le="16.0",stage="encode"} 4.0' in text
    assert 'crosslens_worker_batch_items_sum{stage="encode"} 74.0' in text
    assert [
        f'crosslens_worker_items_total{{outcome="{outcome}"}} {count}.0' in text
        for outcome, count in (("indexed", 7), ("skipped", 1), ("failed", 1))
    ] == [True] * 3


def test_a_broker_that_is_away_costs_a_worker_its_numbers_alone(settings: Settings) -> None:
    Meters(connect(settings, tries=0)).add(worked(), {"indexed": 1})
