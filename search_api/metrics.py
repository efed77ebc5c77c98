"""`/metrics`: what Prometheus reads. Each app counts for itself."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import accumulate

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from indexer.errors import CrosslensError
from indexer.moderation.visible import visible
from indexer.stages import Histogram as Measured
from indexer.stages import Stage
from search_api.services import Services

blueprint = Blueprint("metrics", __name__)

_SECONDS = (0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The registry of one app."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        for collector in (_Encoders(services), _Index(services), _Queue(services)):
            self.registry.register(collector)
        self._requests = Counter(
            "crosslens_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "crosslens_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )

        self._errors = Counter(
            "crosslens_errors", "Requests that were refused or failed, by the caller's key.", ("key", "status"),
            registry=self.registry,
        )  # fmt: skip
        self._stages = Histogram(
            "crosslens_search_stage_seconds", "Time of a search's stages.", ("stage",), buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def count(self, response: Response) -> Response:
        """Note a finished request. Its route is counted, not its path: paths are as many as callers like."""
        for stage, milliseconds in g.get("stages", {}).items():
            self._stages.labels(stage).observe(milliseconds / 1000)
        if response.status_code >= 400:
            key = g.get("key")
            self._errors.labels(key.id if key is not None else "none", str(response.status_code)).inc()
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.url_rule else "other"
        self._requests.labels(method, route, str(response.status_code)).inc()
        self._seconds.labels(route).observe(time.perf_counter() - g.get("started", time.perf_counter()))
        return response


class _Encoders(Collector):
    """Which models are loaded, and where their towers run."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """One series a tower that is open."""
        labels = ("model", "fingerprint", "tower", "device")
        family = GaugeMetricFamily("crosslens_encoder_tower", "1 for each tower that is open.", labels=labels)
        for encoder in self._services.encoders.loaded():
            for tower, device in encoder.devices.items():
                family.add_metric((encoder.name, encoder.fingerprint, tower, device), 1)
        yield family


class _Index(Collector):
    """How many items each collection shows."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """One series a collection; none while the index is away."""
        family = GaugeMetricFamily("crosslens_items", "Items in a collection.", labels=("collection",))
        with suppress(CrosslensError):
            for collection in self._services.store.list():
                family.add_metric((collection.name,), visible(collection).count())
        yield family


class _Queue(Collector):
    """What waits, who works and what they did, and how jobs stand."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Nothing where there is no queue, or while it is away."""
        settings = self._services.settings
        if not settings.has_queue:
            return
        from workers.app import EMBED_CPU, EMBED_GPU, PLAN, RERANK  # noqa: PLC0415  Celery, for who has a queue
        from workers.submit import available  # noqa: PLC0415

        waiting = GaugeMetricFamily("crosslens_queue_messages", "Messages that wait in a queue.", labels=("queue",))
        working = GaugeMetricFamily("crosslens_workers", "Workers that give signs of life.")
        unfinished = GaugeMetricFamily("crosslens_jobs_unfinished", "Jobs that are not over.", labels=("state",))
        with suppress(CrosslensError), available(settings):
            jobs = self._services.queue.jobs
            for queue in (PLAN, EMBED_CPU, EMBED_GPU):
                waiting.add_metric((queue,), jobs.queued(queue))
            if settings.rerank_in == "worker":
                from workers.rerank.messages import QUEUES  # noqa: PLC0415

                waiting.add_metric((RERANK,), jobs.queued(*QUEUES))
            working.add_metric((), len(jobs.workers()))
            for state, count in Counts(job.state.value for job in jobs.unfinished()).items():
                unfinished.add_metric((state,), count)
            yield from _of_workers(*self._services.queue.meters.read())
        yield from (waiting, working, unfinished)


def _of_workers(stages: Mapping[str, Stage], outcomes: Mapping[str, int]) -> Iterable[Metric]:
    """What all workers did since the queue was made; each API process shows the same."""
    seconds = HistogramMetricFamily(
        "crosslens_worker_stage_seconds",
        "Time of a piece of a stage's work: a shard's wait, an image decoded, a batch encoded or stored.",
        labels=("stage",),
    )
    sizes = HistogramMetricFamily("crosslens_worker_batch_items", "Items of such a piece.", labels=("stage",))
    items = CounterMetricFamily("crosslens_worker_items", "Items of jobs, by what became of them.", labels=("outcome",))
    for name, stage in stages.items():
        seconds.add_metric((name,), _buckets(stage.seconds), stage.seconds.sum)
        sizes.add_metric((name,), _buckets(stage.sizes), stage.sizes.sum)
    for outcome, count in outcomes.items():
        items.add_metric((outcome,), count)
    return seconds, sizes, items


def _buckets(histogram: Measured) -> list[tuple[str, float]]:
    """As Prometheus has them: each with those below it, the last one without a bound."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))


def register(app: Flask, services: Services) -> None:
    """Count this app's requests, and serve what was counted."""
    metrics = app.extensions["crosslens.metrics"] = Metrics(services)
    app.after_request(metrics.count)
    app.register_blueprint(blueprint)


@blueprint.get("/metrics")
def show() -> Response:
    """The metrics in Prometheus' text format."""
    metrics: Metrics = current_app.extensions["crosslens.metrics"]
    return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)
