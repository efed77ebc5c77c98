"""One trace from a request through the queue to the worker, and what workers measured at `/metrics`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.bundles import COLOURS, picture
from tests.collector import Collector, Seen, collecting
from tests.waiting import until

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]
PARENT, CALLER = "00f067aa0ba902b7", "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Traced:
    """A server and its workers, where its traces go, and what it logged."""

    url: str
    collector: Collector
    logged: Path

    def logs(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.logged.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[Traced]:
    """`crosslens serve` with one worker, as its users trace it."""
    home = tmp_path_factory.mktemp("traced")
    with collecting() as collector, (home / "log").open("wb") as log:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CROSSLENS_", "OTEL_"))
        }
        environment |= {
            "CROSSLENS_DATA": str(home / "data"),
            "CROSSLENS_MODEL": str(colours),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        process = subprocess.Popen(
            [*CLI, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=log, env=environment
        )
        assert process.stdout is not None
        yield Traced(json.loads(process.stdout.readline())["url"], collector, home / "log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def job(server: Traced, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that is done: photos, texts, and one file that is broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        (folder / f"{number:02}.png").write_bytes(picture(list(COLOURS)[number % len(COLOURS)], mark=number))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "texts.txt").write_text("a red photo\na blue photo\n")
    body = {"source": [str(folder), str(folder / "texts.txt")]}
    headers = {"traceparent": f"00-{CALLER}-{PARENT}-01", "tracestate": "vendor=1"}
    answer = httpx.post(f"{server.url}/v1/collections/media/ingest", json=body, headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    until(lambda: httpx.get(f"{server.url}/v1/jobs/{job}", timeout=30).json()["state"] == "done", 120)
    until(lambda: len(server.collector.named("shard")) >= 2)
    return str(job)


def under(spans: list[Seen], parent: Seen) -> dict[str, Seen]:
    return {span.name: span for span in spans if span.parent == parent.id}


def test_one_trace_joins_the_caller_the_request_the_plan_and_the_shards(server: Traced, job: str) -> None:
    spans = server.collector.of(CALLER)
    (request,) = [span for span in spans if span.parent == PARENT]
    assert (request.service, request.name) == ("crosslens-api", "POST /v1/collections/<name>/ingest")
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["crosslens.collection"] == "media"
    submit = under(spans, request)["submit"]
    plan = under(spans, submit)["plan"]
    shards = [span for span in spans if span.parent == plan.id]
    assert {span.service for span in (plan, *shards)} == {"crosslens-worker"}
    assert {span.attributes["crosslens.job"] for span in (submit, plan, *shards)} == {job}
    assert [span.name for span in shards] == ["shard"] * len(shards)
    assert sorted(span.attributes["crosslens.shard"] for span in shards) == list(range(len(shards)))
    assert sum(span.attributes["crosslens.items"] for span in shards) == 43
    for shard in shards:
        assert {"decode", "encode", "upsert"} <= under(spans, shard).keys()
        assert shard.attributes["crosslens.waited_seconds"] >= 0


def test_logs_of_both_processes_name_the_trace_and_the_request(server: Traced, job: str) -> None:
    (request,) = [span for span in server.collector.of(CALLER) if span.parent == PARENT]
    lines = [line for line in server.logs() if line.get("trace_id") == CALLER]
    (logged,) = [line for line in lines if line["event"] == "request"]
    assert (logged["id"], logged["span_id"]) == (request.attributes["crosslens.request_id"], request.id)


def test_a_search_shows_its_stages_and_a_refusal_is_seen(server: Traced, job: str) -> None:
    body = {"query": [{"text": "a red photo"}]}
    answer = httpx.post(f"{server.url}/v1/collections/media/search", json=body, timeout=60).raise_for_status()
    httpx.post(
        f"{server.url}/v1/collections/media/search/batch", json={"searches": [body] * 3}, timeout=60
    ).raise_for_status()
    assert httpx.get(f"{server.url}/v1/collections/gone", timeout=30).status_code == 404
    refused = httpx.get(f"{server.url}/v1/collections", headers={"Host": "elsewhere.example"}, timeout=30)
    assert refused.status_code == 403
    httpx.get(f"{server.url}/healthz", timeout=30)
    httpx.get(f"{server.url}/no/such/path", timeout=30)
    until(lambda: server.collector.named("_OTHER none"))
    search, batch = (server.collector.named(f"POST /v1/collections/<name>/search{rest}")[-1] for rest in ("", "/batch"))
    for span in (search, batch):
        assert list(under(server.collector.spans, span)) == list(answer.json()["stages"])
    assert search.attributes["crosslens.request_id"] == answer.headers["X-Request-Id"]
    statuses = {
        span.attributes["http.response.status_code"]: span for span in server.collector.named("GET /v1/collections")
    }
    assert statuses[403].attributes["crosslens.request_id"] == refused.headers["X-Request-Id"]
    assert not [span for span in server.collector.spans if "healthz" in span.name or "readyz" in span.name]
    assert not [span for span in server.collector.spans if "such" in json.dumps(span.attributes)]


def test_an_upload_shows_the_stages_of_its_ingest(server: Traced, job: str) -> None:
    files = {"file": ("new.png", picture("red", mark=999), "image/png")}
    httpx.post(f"{server.url}/v1/collections/media/items", files=files, timeout=60).raise_for_status()
    until(lambda: server.collector.named("POST /v1/collections/<name>/items"))
    (upload,) = server.collector.named("POST /v1/collections/<name>/items")
    assert {"decode", "encode", "upsert"} <= under(server.collector.spans, upload).keys()


def test_what_workers_did_is_at_metrics(server: Traced, job: str) -> None:
    text = httpx.get(f"{server.url}/metrics", timeout=30).text

    def value(sample: str) -> float:
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        assert found, sample
        return float(found[1])

    assert value('crosslens_worker_items_total{outcome="indexed"}') == 42
    assert value('crosslens_worker_items_total{outcome="failed"}') == 1
    assert value('crosslens_worker_stage_seconds_count{stage="queue"}') == 2
    assert value('crosslens_worker_stage_seconds_count{stage="decode"}') == 41
    for stage, items in (("tokenize", 2), ("encode", 42), ("upsert", 42)):
        assert value(f'crosslens_worker_batch_items_sum{{stage="{stage}"}}') == items
        assert value(f'crosslens_worker_stage_seconds_sum{{stage="{stage}"}}') > 0
    assert value('crosslens_worker_batch_items_bucket{le="16.0",stage="encode"}') == value(
        'crosslens_worker_batch_items_count{stage="encode"}'
    )
    assert value('crosslens_worker_stage_seconds_bucket{le="+Inf",stage="decode"}') == 41


def test_a_shard_that_is_sent_again_stays_in_its_trace(cluster, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker was killed: who sends it again knows nothing of the trace, and the job does."""
    with collecting() as collector:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        monkeypatch.setenv("CROSSLENS_WORKER_SECONDS", "1")
        planner = cluster.start_worker("plan", **traced)
        job = cluster.submit(photos)
        until(lambda: collector.named("plan"))
        first = cluster.start_worker("embed")
        until(cluster.jobs.claims)
        first.kill()
        cluster.start_worker("embed", **traced)
        assert cluster.wait(job).total == 300
        until(lambda: len(collector.named("shard")) >= 1)
        (plan,) = collector.named("plan")
        assert {(span.trace, span.parent) for span in collector.named("shard")} == {(plan.trace, plan.id)}
        assert planner.poll() is None
