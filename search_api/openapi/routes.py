"""`/openapi.json` and `/docs`: the API described, for programs and for people."""

from __future__ import annotations

import json
from typing import Any, cast

from flask import Blueprint, Response, current_app, render_template

blueprint = Blueprint("openapi", __name__)

_DOCUMENT = "crosslens.openapi"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page loads nothing and runs nothing; its style is in it."""


@blueprint.get("/openapi.json")
def show() -> Response:
    """This API as an OpenAPI 3.1 document."""
    return Response(json.dumps(_document(), separators=(",", ":")), content_type="application/json")


@blueprint.get("/docs")
def page() -> Response:
    """This API as a page to read, without a script."""
    from search_api.openapi.page import chapters, kind, variants  # noqa: PLC0415

    document = _document()
    text = render_template("api.html", document=document, chapters=chapters(document), kind=kind, variants=variants)
    response = Response(text, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


def _document() -> dict[str, Any]:
    """Made at the first request: it loads every model."""
    kept = current_app.extensions
    if _DOCUMENT not in kept:
        from search_api.openapi.document import document  # noqa: PLC0415

        kept[_DOCUMENT] = document(current_app)
    return cast("dict[str, Any]", kept[_DOCUMENT])
