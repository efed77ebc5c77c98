"""Traces through API, queue and workers, as OpenTelemetry has them, for whoever runs a collector.

They are on where OTEL_EXPORTER_OTLP_ENDPOINT names one and the extra `otel` is there: `start` looks, once a process.
Elsewhere nothing of OpenTelemetry is imported, and every function here does nothing. What else can be set is
OpenTelemetry's own (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, ...); spans go out as OTLP over HTTP.

Usage:
    with tracing.joined(carrier), tracing.span("shard", kind="consumer", job=job.id):
        tracing.note(items=512)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Kind = Literal["internal", "server", "producer", "consumer"]

_STOP_SECONDS = 3.0
"""How long what is not sent yet may take at the end; less than a supervisor's grace."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = structlog.get_logger("tracing")
_nothing: AbstractContextManager[None] = nullcontext()
_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def start(service: str) -> bool:
    """Trace from now on, as `service` unless OTEL_SERVICE_NAME says otherwise; False where traces are off.

    What hinders it is logged and hinders nothing else.
    """
    global _provider, _tracer
    if not _wanted():
        return False
    from importlib.metadata import version  # noqa: PLC0415  slow

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        resource = Resource.create({"service.version": version("crosslens")})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service}))
        # Not OpenTelemetry's own handler at exit, which waits for half a minute: see `stop`.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ImportError as error:
        _log.warning("no traces", reason=str(error), remedy="Install them: pip install 'crosslens[otel]'.")
        return False
    except ValueError as error:
        _log.warning("no traces", reason=str(error), remedy="Correct the OTEL_... variables.")
        return False
    _provider, _tracer = provider, provider.get_tracer("crosslens", version("crosslens"))
    return True


def _wanted() -> bool:
    environment = os.environ
    return (
        any(environment.get(name, "").strip() for name in _ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "none"
    )


def is_on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def stop() -> None:
    """Send what is left, for a moment: a collector that is away holds up nobody's end."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_STOP_SECONDS)


def span(name: str, *, kind: Kind = "internal", **attributes: str | float) -> AbstractContextManager[Span | None]:
    """A span around a block, under the one that is open in this thread; what the block raises is noted in it."""
    if _tracer is None:
        return _nothing
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    return _tracer.start_as_current_span(name, kind=SpanKind[kind.upper()], attributes=_ours(attributes))


def note(**attributes: str | float) -> None:
    """Say something of the span that is open."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span  # noqa: PLC0415

        get_current_span().set_attributes(_ours(attributes))


def record(name: str, begin: int, end: int, **attributes: str | float) -> None:
    """A span of something that is over, under the one that is open; times in nanoseconds since 1970."""
    if _tracer is not None:
        _tracer.start_span(name, start_time=begin, attributes=_ours(attributes)).end(end)


def record_stages(milliseconds: Mapping[str, float]) -> None:
    """Spans of stages that came one after the other, the last of which is just over."""
    if _tracer is not None:
        begin = time.time_ns() - int(sum(milliseconds.values()) * 1e6)
        for stage, took in milliseconds.items():
            record(stage, begin, begin + int(took * 1e6))
            begin += int(took * 1e6)


def carrier() -> dict[str, str]:
    """The trace and span that are open, as W3C's headers `traceparent` and `tracestate`; empty if there is none."""
    headers: dict[str, str] = {}
    if _tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        TraceContextTextMapPropagator().inject(headers)
    return headers


def joined(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """A block whose spans belong to what `carrier` gave elsewhere; to a new trace, if that is empty or is none."""
    return _nothing if _tracer is None else _attached(headers)


@contextmanager
def _attached(headers: Mapping[str, str]) -> Iterator[None]:
    from opentelemetry import context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    token = context.attach(TraceContextTextMapPropagator().extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the span that is open, as logs name them; empty if there is none."""
    if _tracer is None:
        return {}
    from opentelemetry.trace import format_span_id, format_trace_id, get_current_span  # noqa: PLC0415

    here = get_current_span().get_span_context()
    if not here.is_valid:
        return {}
    return {"trace_id": format_trace_id(here.trace_id), "span_id": format_span_id(here.span_id)}


def _ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Named so that nobody takes them for OpenTelemetry's conventions."""
    return {f"crosslens.{name}": value for name, value in attributes.items()}
