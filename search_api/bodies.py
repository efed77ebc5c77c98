"""Request bodies: strict JSON and multipart forms, turned into checked models."""

from __future__ import annotations

from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from indexer.errors import InvalidRequest
from search_api.problems import WrongContentType
from search_api.request import invalid_request, parse_json

Model = TypeVar("Model", bound=BaseModel)
_REQUIRED = object()


def json_body(default: Any = _REQUIRED) -> Any:
    """The body as JSON; `default` when there is none.

    Raises:
        WrongContentType: the body says it is something else.
        InvalidRequest: it is not JSON, or missing without a default.
    """
    data = request.get_data(cache=False)
    if not data:
        if default is _REQUIRED:
            raise InvalidRequest("The body is empty.", remedy="Send a JSON document.")
        return default
    if not request.is_json:
        raise WrongContentType(f"The body is {request.mimetype or 'of no type'}, not application/json.")
    return parse_json(data)


def is_form() -> bool:
    """Whether the body is a multipart form."""
    return request.mimetype == "multipart/form-data"


def form_files(*, apart_from: str) -> list[tuple[str, str, bytes]]:
    """The files of a multipart form: (part name, file name, content), in order, without its JSON part."""
    return [
        (name, file.filename or name, file.read())
        for name, file in request.files.items(multi=True)
        if name != apart_from
    ]


def named_files(*, apart_from: str) -> dict[str, bytes]:
    """The content of a form's files by the names of their parts, which the JSON part refers to.

    Raises:
        InvalidRequest: two have one name.
    """
    parts: dict[str, bytes] = {}
    for part, _, content in form_files(apart_from=apart_from):
        if part in parts:
            raise InvalidRequest(f"Two parts are named {part!r}.", remedy="Give each image a name of its own.")
        parts[part] = content
    return parts


def form_json(field: str) -> Any | None:
    """A form's JSON part, sent as a field or as a file; None if there is none.

    Raises:
        InvalidRequest: it is not JSON, is there twice, or the form has other fields.
    """
    if unknown := sorted(set(request.form) - {field}):
        raise InvalidRequest(f"The form has a field {unknown[0]!r}; it takes {field!r} and files.")
    values = [
        *(value.encode("utf-8", "surrogatepass") for value in request.form.getlist(field)),
        *(file.read() for file in request.files.getlist(field)),
    ]
    if len(values) > 1:
        raise InvalidRequest(f"The form has the part {field!r} {len(values)} times.")
    return parse_json(values[0], f"The part {field!r}") if values else None


def validated(model: type[Model], body: Any) -> Model:
    """The body as a model.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error) from error
