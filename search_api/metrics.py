"""`/metrics`: what Prometheus reads. Each app counts for itself."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flask import Blueprint, Flask, Response, current_app, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from search_api.services import Services

blueprint = Blueprint("metrics", __name__)

_SECONDS = (0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The registry of one app."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Encoders(services))
        self._requests = Counter(
            "crosslens_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "crosslens_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )

    def count(self, response: Response) -> Response:
        """Note a finished request. Its route is counted, not its path: paths are as many as callers like."""
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
