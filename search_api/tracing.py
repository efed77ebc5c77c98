"""A span for each request, from before anybody asks for its key to its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request

from indexer import tracing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PROBES = frozenset(("/healthz", "/readyz", "/metrics"))
"""Asked by machines every few seconds; nobody wants to see each time."""

_MOST_STATE = 512
"""Characters of `tracestate` that are passed on: what W3C demands, and no more of what any caller may send."""
_MOST_NAME = 200
"""Characters of a collection's name that are shown; those that there are have fewer."""


def trace(app: Flask) -> None:
    """Trace an app's requests; call it once `tracing.start` has said that there are traces.

    Around all of Flask, since what refuses a request is worth a span, too. A `traceparent` header is followed.
    """
    from opentelemetry.trace import Status, StatusCode, get_current_span  # noqa: PLC0415  an extra

    answer = app.wsgi_app

    def traced(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in _PROBES:
            return answer(environ, start_response)
        with tracing.joined(_carrier(environ)), tracing.span("request", kind="server"):
            return answer(environ, start_response)

    def describe(response: Response) -> Response:
        # The route, not the path: paths are as many as callers like, and may hold what is nobody's business.
        span = get_current_span()
        method, route = (request.method, request.url_rule.rule) if request.url_rule else ("_OTHER", "none")
        span.update_name(f"{method} {route}")
        span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": response.status_code}
        )
        key = g.get("key")
        tracing.note(request_id=g.get("request_id", "-"), key=key.id if key is not None else "none")
        if "name" in (request.view_args or {}):
            tracing.note(collection=str((request.view_args or {})["name"])[:_MOST_NAME])
        if response.status_code >= 500:
            span.set_status(Status(StatusCode.ERROR))
        return response

    app.wsgi_app = traced  # type: ignore[method-assign]
    app.after_request(describe)


def _carrier(environ: WSGIEnvironment) -> dict[str, str]:
    parent, state = environ.get("HTTP_TRACEPARENT", ""), environ.get("HTTP_TRACESTATE", "")
    if not parent:
        return {}
    return {"traceparent": parent, **({"tracestate": state} if 0 < len(state) <= _MOST_STATE else {})}
