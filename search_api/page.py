"""`/`: the search page for people, and what it loads: a stylesheet and modules, from here alone.

The page holds no data. What it shows its modules ask the API for, as any other client and with the same key, and put
into it as text, never as HTML. Its policy lets nothing else run: no inline script or style, and no other origin.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path

from flask import Blueprint, Response, abort, render_template, request

blueprint = Blueprint("page", __name__)

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Named here: what the system's table says of them differs, and browsers run no module of another type."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The last two: a browser that knows them refuses HTML from a string, should a module ever try."""


@blueprint.get("/")
def search_page() -> Response:
    """The page to search with, for people."""
    text = render_template("search.html", version=version("crosslens"))
    response = Response(text, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/static/<asset>")
def page_asset(asset: str) -> Response:
    """What the page loads: its stylesheet, modules and icon."""
    content = _assets().get(asset)
    if content is None:
        abort(404)
    response = Response(content, content_type=_TYPES[Path(asset).suffix])
    response.headers["Cache-Control"] = "no-cache"  # kept by the browser, and asked about: a new version shows at once
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def _assets() -> dict[str, bytes]:
    """What is served, by name: a name from a request never becomes a path."""
    return {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _TYPES}
