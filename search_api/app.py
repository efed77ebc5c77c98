"""The Flask application: routes, guards, headers and request logs, put together by a factory."""

from __future__ import annotations

import time
import uuid
from urllib.parse import urlsplit

import structlog
from flask import Flask, Response, g, request

from indexer.settings import Settings
from search_api import collections, health, items, jobs, metrics, problems, search
from search_api.loopback import is_loopback
from search_api.services import Services

_log = structlog.get_logger("api")

_OVERHEAD = 2**20
"""What multipart framing and JSON parts may take beside the files of a request."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings, services: Services | None = None) -> Flask:
    """The HTTP API of one data folder.

    Nothing is opened before the first request that needs it; `services` can be shared or prepared by the caller.
    The caller closes them.
    """
    app = Flask("search_api", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_bytes + _OVERHEAD,
        MAX_FORM_MEMORY_SIZE=_OVERHEAD,
        MAX_FORM_PARTS=1000,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.compact = True  # type: ignore[attr-defined]
    services = app.extensions["crosslens"] = services or Services(settings)

    problems.register(app)
    app.before_request(_begin)
    app.before_request(_refuse_foreign_hosts)
    app.before_request(_refuse_foreign_pages)
    app.after_request(_finish)
    metrics.register(app, services)
    for module in (collections, items, search, jobs, health):
        app.register_blueprint(module.blueprint)
    return app


def _begin() -> None:
    g.started = time.perf_counter()
    g.request_id = uuid.uuid4().hex[:16]


def _refuse_foreign_hosts() -> None:
    """Stop DNS rebinding: a page whose name was made to resolve to this machine still sends its own name."""
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise problems.Refused("The Host header names another machine than this one.")


def _refuse_foreign_pages() -> None:
    """Stop other sites' pages from writing: a form upload needs no permission of the server's, only a browser."""
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    origin = request.headers.get("Origin")
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"} or (
        origin is not None and origin != request.host_url.rstrip("/")
    ):
        raise problems.Refused("The request comes from a page of another site.")


def _finish(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    request_id = g.get("request_id", "-")
    response.headers["X-Request-Id"] = request_id
    _log.info(
        "request",
        id=request_id,
        method=request.method,
        path=request.path,
        status=response.status_code,
        ms=round((time.perf_counter() - g.get("started", time.perf_counter())) * 1000, 2),
    )
    return response
