"""What a body would put in, counted before it is: as the routes read it, and by what they read it with."""

from __future__ import annotations

from flask import request

from search_api import bodies


def items_in_upload() -> int:
    """How many items the body of an upload has: those that its JSON names, and files that it does not.

    Raises:
        InvalidRequest, WrongContentType: as the route itself would.
    """
    from search_api.items import NewItems  # noqa: PLC0415  it opens much

    if not bodies.is_form():
        return len(bodies.validated(NewItems, _json()).items)
    files = [(part, file.filename or part) for part, file in request.files.items(multi=True) if part != "request"]
    body = bodies.form_json("request")
    for file in request.files.getlist("request"):
        file.seek(0)  # the route reads it, too
    items = bodies.validated(NewItems, body).items if body is not None else []
    named = {item.file for item in items}
    return len(items) + sum(not {part, filename} & named for part, filename in files)


def sources_in_body() -> list[str]:
    """The sources that the body of an ingest names.

    Raises:
        InvalidRequest, WrongContentType: as the route itself would.
    """
    from search_api.jobs import NewJob  # noqa: PLC0415  it opens much

    source = bodies.validated(NewJob, _json()).source
    return [source] if isinstance(source, str) else source


def _json() -> object:
    request.get_data(cache=True)  # so that the route finds it, too
    return bodies.json_body()
