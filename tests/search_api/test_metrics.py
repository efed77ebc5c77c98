"""What Prometheus reads, and that the dashboard reads nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from indexer.settings import Settings
from search_api.app import create_app
from search_api.services import Services
from tests.bundles import picture
from tests.search_api.test_http import SEARCH, upload
from tests.workers.conftest import Cluster

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
    assert 'crosslens_search_stage_seconds_count{stage="encode"} 2.0' in text
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
    text = read(client)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name for panel in panels for target in panel["targets"] for name in re.findall(r"crosslens_\w+", target["expr"])
    }
    there = set(re.findall(r"^(crosslens_\w+)", text, re.MULTILINE))
    assert asked <= there
    assert len({panel["id"] for panel in panels}) == len(panels)
