"""The Flask application: routes, guards, headers and request logs, put together by a factory."""

from __future__ import annotations

import secrets
import time

import structlog
from flask import Flask, Response, current_app, g, request
from flask_cors import CORS

from indexer.settings import Settings
from search_api import classify, collections, duplicates, facets, health, items, jobs, metrics, page, problems, search
from search_api.access import routes as access
from search_api.access.guard import Guard
from search_api.access.keys import without_secrets
from search_api.moderation import fit, hash_lists, moderate, policies, policy, rescans, review
from search_api.openapi import routes as openapi
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
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_INSIST_ON_TLS = {"Strict-Transport-Security": "max-age=31536000"}
"""Said behind a proxy that speaks TLS alone: on loopback it would lock out every other service of this machine."""

_EXPOSED = ["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id"]
"""What pages of the origins that may ask may read of an answer, beside its body."""


def create_app(
    settings: Settings, services: Services | None = None, *, public: bool = False, guard: Guard | None = None
) -> Flask:
    """The HTTP API of one data folder.

    Nothing is opened before the first request that needs it; `services` and `guard` can be shared or prepared by the
    caller, who closes the services. `public`: other machines reach it, so that keys are demanded whether there are any.

    Raises:
        UndeclaredRoute: nobody said what a route needs (`access.needs`).
        InvalidRequest: the admin key that the environment brings will not do.
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
    app.after_request(_finish)
    metrics.register(app, services)
    of_collections = (collections, items, search, facets, duplicates, classify)
    of_moderation = (policies, policy, rescans, review, fit, hash_lists, moderate)
    for module in (*of_collections, *of_moderation, jobs, health, access, openapi, page):
        app.register_blueprint(module.blueprint)
    (guard or Guard(settings, public=public)).register(app)
    if settings.allowed_origins:
        # Never with credentials: keys come in a header, which pages have to set themselves.
        CORS(app, origins=list(settings.allowed_origins), expose_headers=_EXPOSED, max_age=600)
    app.extensions["crosslens.headers"] = _HEADERS | (_INSIST_ON_TLS if settings.behind_tls else {})
    return app


def _begin() -> None:
    g.started = time.perf_counter()
    g.request_id = secrets.token_hex(8)


def _finish(response: Response) -> Response:
    for name, value in current_app.extensions["crosslens.headers"].items():
        response.headers.setdefault(name, value)
    request_id = g.get("request_id", "-")
    response.headers["X-Request-Id"] = request_id
    _log.info(
        "request",
        id=request_id,
        method=request.method,
        path=without_secrets(request.path),
        status=response.status_code,
        ms=round((time.perf_counter() - g.get("started", time.perf_counter())) * 1000, 2),
    )
    return response
