"""Errors over HTTP: `application/problem+json` (RFC 9457), each with a code and what to do next."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from indexer.errors import CrosslensError

_log = structlog.get_logger("api")

_TYPE = "application/problem+json"
_REMEDIES = {
    400: "Correct the request and send it again.",
    404: "The routes begin with /v1/collections; see the README.",
    405: "Use one of the methods in the Allow header.",
    413: "Send less in one request, or raise CROSSLENS_MAX_BYTES.",
    415: "Send application/json, or multipart/form-data for files.",
    431: "Send fewer headers, or shorter ones.",
}
_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "wrong_content_type",
    431: "headers_too_large",
}


class Refused(CrosslensError):
    """A request that this server does not answer, whatever it asks for."""

    code = "refused"
    status = 403
    default_remedy = "Ask from this machine itself, by a loopback name."


class WrongContentType(CrosslensError):
    """A body of a type that the route does not take."""

    code = "wrong_content_type"
    status = 415
    default_remedy = _REMEDIES[415]


def problem(status: int, code: str, detail: str, remedy: str, **details: Any) -> Response:
    """A problem document as a response; `details` are members of their own."""
    body = _document(status, code, detail, remedy, request_id=g.get("request_id", "-"), **details)
    return Response(json.dumps(body), status=status, content_type=_TYPE)


def answer_unread(status: int, detail: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """The answer to what the server could not read as a request, outside the app: status line, headers and body."""
    status = status if status in _CODES else 400  # also an encoding that is not known: no fault of the server's
    remedy = _REMEDIES.get(status, _REMEDIES[400])
    body = json.dumps(_document(status, _CODES[status], detail, remedy, request_id="-")).encode()
    return f"{status} {HTTPStatus(status).phrase}", [("Content-Type", _TYPE)], body


def _document(status: int, code: str, detail: str, remedy: str, *, request_id: str, **details: Any) -> dict[str, Any]:
    return {
        **details,
        "type": f"urn:crosslens:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
        "instance": f"urn:crosslens:request:{request_id}",
    }


def register(app: Flask) -> None:
    """Make every error of the app a problem document; what nobody foresaw is logged and tells no internals."""

    @app.errorhandler(CrosslensError)
    def crosslens_error(error: CrosslensError) -> Response:
        if error.status >= 500:
            _log.error("request failed", code=error.code, detail=error.message, path=request.path)
        answer = problem(error.status, error.code, error.message, error.remedy, **error.details)
        if "retry_after" in error.details:
            answer.headers["Retry-After"] = str(error.details["retry_after"])
        return answer

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        answer = problem(
            status,
            _CODES.get(status, (error.name or "error").lower().replace(" ", "_")),
            error.description or error.name,
            _REMEDIES.get(status, "Correct the request and send it again."),
        )
        for name, value in error.get_headers():
            if name.lower() not in {"content-type", "content-length"}:
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def defect(error: Exception) -> Response:
        _log.exception("defect", path=request.path, exc_info=error)
        return problem(500, CrosslensError.code, "Crosslens failed on this request.", CrosslensError.default_remedy)
