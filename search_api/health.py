"""`/healthz` and `/readyz`: the process is there; its parts answer, and answer rightly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify

from indexer.errors import CrosslensError
from search_api.problems import problem
from search_api.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers; nothing else is looked at."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether each part can answer: the model gives its golden vector for a canary, the index answers a ping."""
    parts = {"model": _tried(services().encoders.check), "index": _tried(services().check_index)}
    if services().settings.has_queue:
        parts["queue"] = _tried(services().check_queue)
    if services().settings.media_url is not None:
        parts["media"] = _tried(services().check_media)
    parts["model"]["devices"] = services().encoders.devices()
    ready, reasons = all(part["ok"] for part in parts.values()), _reasons(parts)
    if (workers := services().rerank_workers) is not None:
        parts["rerank"] = _tried(workers.check)  # without them searches keep their order: no reason to ask elsewhere
    if ready:
        return jsonify({"status": "ready", "parts": parts})
    return problem(503, "not_ready", reasons, "Wait a moment; the log says more if it stays so.", parts=parts)


def _reasons(parts: dict[str, dict[str, Any]]) -> str:
    return " ".join(part["reason"] for part in parts.values() if not part["ok"])


def _tried(check: Callable[[], None]) -> dict[str, Any]:
    try:
        check()
    except CrosslensError as error:
        return {"ok": False, "code": error.code, "reason": error.message}
    return {"ok": True}
