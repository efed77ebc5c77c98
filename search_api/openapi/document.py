"""The OpenAPI 3.1 document, made of an app's routes, the table of operations, and the models.

Of each operation, the summary and the description are its view's docstring; who may ask is `access.needs`.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from indexer import errors
from indexer.classify.labels import LabelSet
from indexer.errors import CrosslensError
from indexer.moderation.policy import Policy
from search_api.access.needs import NEEDS, Need, Scope
from search_api.openapi.answers import Job, Problem
from search_api.openapi.docstrings import describe, with_parts
from search_api.openapi.operation import Content, Operation, Query
from search_api.openapi.operations import OPERATIONS, PATHS, TAGS
from search_api.openapi.service_answers import MadeKey
from search_api.openapi.shapes import RESHAPED, Schema, new_item, term, thing
from search_api.problems import Refused

METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
_REF = "#/components/schemas/{model}"
_VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")
_ANY: tuple[type[CrosslensError], ...] = (Refused, errors.RateLimited, errors.KeysUnavailable, CrosslensError)
"""What any operation can answer."""
_WITH_KEY = (errors.KeyRequired, errors.KeyInvalid, errors.KeyForbids)
_PROBLEM = "application/problem+json"
_BY_SETTING = "GET /metrics"
_REFUSED_RANGE = "requested_range_not_satisfiable"
_ABOUT = """\
Search, ingest and classify photos, video frames, PDF pages and texts by what they mean.

Every error is `application/problem+json` (RFC 9457), with a `code` for programs and a `remedy` for people. Uploads can
be sent again: an item's id comes from its content, or from the caller, so that the same again is no change. Answers may
get members that are not described here; pass over those that you do not know.

A key goes into `Authorization: Bearer` or `X-API-Key`. A server on loopback for which no key was made needs none.
"""


def document(app: Flask) -> Schema:
    """The whole document of an app's routes.

    Raises:
        KeyError: a route is in no table.
    """
    paths: dict[str, Schema] = {}
    for rule, method in routes(app):
        path = _VARIABLE.sub(r"{\1}", rule.rule)
        item = paths.setdefault(path, _path_item(rule))
        item[method.lower()] = _operation(rule, method, app.view_functions[rule.endpoint])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Crosslens",
            "version": version("crosslens"),
            "summary": "Multimodal search over HTTP.",
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key, as `crosslens keys` makes them."},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
            },
        },
    }


def routes(app: Flask) -> list[tuple[Rule, str]]:
    """Every rule with each of its methods, in the order of the table of tags and of operations."""
    place = {route: number for number, route in enumerate(OPERATIONS)}
    found = [
        (rule, method) for rule in app.url_map.iter_rules() for method in sorted((rule.methods or set()) & {*METHODS})
    ]
    return sorted(found, key=lambda pair: place.get(f"{pair[1]} {pair[0].rule}", len(place)))


def _path_item(rule: Rule) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True, "description": PATHS[name][1], "schema": PATHS[name][0]}
        for name in _VARIABLE.findall(rule.rule)
    ]
    return {"parameters": parameters} if parameters else {}


def _operation(rule: Rule, method: str, view: Callable[..., Any]) -> Schema:
    route = f"{method} {rule.rule}"
    about, need = OPERATIONS[route], NEEDS[route]
    summary, description = _docstring(view)
    parts: Schema = {
        "operationId": operation_id(rule.endpoint),
        "tags": [about.tag],
        "summary": summary,
        "description": "\n\n".join(filter(None, (description, _needed(need)))),
    }
    if parameters := [_parameter(each, "query") for each in about.query] + [
        _parameter(each, "header") for each in about.headers
    ]:
        parts["parameters"] = parameters
    if about.body is not None:
        parts["requestBody"] = _request_body(about)
    parts["responses"] = _responses(about, need, has_path=bool(_VARIABLE.search(rule.rule)))
    if need.without_key == "anybody":
        parts["security"] = []
    elif route == _BY_SETTING:
        parts["security"] = [{}, {"bearer": []}, {"header": []}]
        parts["description"] += " `CROSSLENS_METRICS_ACCESS` says who needs none."
    return parts


def operation_id(endpoint: str) -> str:
    """A view's own name; of those in `_NAMED` a better one."""
    name = endpoint.rpartition(".")[2]
    return _NAMED.get(endpoint, name)


_NAMED = {
    "metrics.show": "metrics",
    "openapi.show": "openapi",
    "openapi.page": "docs",
    "jobs.retry": "retry_job",
    "jobs.cancel": "cancel_job",
    "jobs.events": "job_events",
    "jobs.get_failures": "job_failures",
    "items.media": "get_media",
    "items.thumbnail": "get_thumbnail",
    "classify.put_label_set_of": "put_label_set",
    "classify.delete_label_set_of": "delete_label_set",
    "policy.put_policy_of": "put_policy",
    "hash_lists.put_hash_list_of": "put_hash_list",
    "hash_lists.delete_hash_list_of": "delete_hash_list",
}


def _docstring(view: Callable[..., Any]) -> tuple[str, str]:
    text = (inspect.getdoc(view) or "").split("\nRaises:")[0]
    summary, _, description = text.partition("\n")
    return summary.rstrip("."), description.strip()


def _needed(need: Need) -> str:
    if need.without_key == "anybody":
        return "Needs no key."
    whole = " that is for all collections" if need.scope is Scope.EVERYTHING else ""
    return f"Needs a key with the role `{need.role.value}`{whole}."


def _parameter(query: Query, where: str) -> Schema:
    return {"name": query.name, "in": where, "description": query.about, "schema": query.schema}


def _request_body(about: Operation) -> Schema:
    body = about.body
    schema = body if isinstance(body, dict) else {"$ref": _REF.format(model=_name_of(body))}
    examples = {name: {"value": value} for name, value in about.examples.items()}
    content: Schema = {"application/json": {"schema": schema, "examples": examples}}
    content |= {media_type: {"schema": other} for media_type, other in about.other_bodies.items()}
    if about.form is not None:
        content["multipart/form-data"] = {
            "schema": about.form,
            "encoding": {"request": {"contentType": "application/json"}},
        }
    return {"required": about.body_required, "content": content}


def _name_of(model: type[BaseModel] | None) -> str:
    return "" if model is None else model.__name__


def _responses(about: Operation, need: Need, *, has_path: bool) -> Schema:
    told: dict[int, Schema] = {status: _answer(status, answer, about) for status, answer in about.answers.items()}
    codes: dict[int, dict[str, str]] = {}
    given = [*about.errors, *_ANY, *(() if need.without_key == "anybody" else _WITH_KEY)]
    for error in given:
        sentence = (inspect.getdoc(error) or "").partition("\n")[0]
        codes.setdefault(error.status, {})[error.code] = "What nobody foresaw." if error is CrosslensError else sentence
    if has_path:
        codes.setdefault(404, {})["not_found"] = "No route of that path."
    if about.body is not None:
        codes.setdefault(413, {})["too_large"] = "A body of more bytes than the cap."
    if "Range" in {each.name for each in about.headers}:
        codes.setdefault(416, {})[_REFUSED_RANGE] = "The content ends before the range begins."
    if about.problem is not None:
        codes.setdefault(503, {})["not_ready"] = "A part of the server does not answer."
    for status, sentences in sorted(codes.items()):
        told[status] = _problem(status, sentences, about)
    return {str(status): response for status, response in told.items()}


def _answer(status: int, answer: type[BaseModel] | Content | None, about: Operation) -> Schema:
    headers: Schema = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if answer is MadeKey or (answer is Job and status == 202):  # what was made just now
        headers["Location"] = {"$ref": "#/components/headers/Location"}
    if about.headers and answer is not None and status in {200, 201, 206}:
        headers["ETag"] = {"$ref": "#/components/headers/ETag"}
    response: Schema = {"description": _said(status, answer), "headers": headers}
    if isinstance(answer, Content) and answer.media_type:
        response["content"] = {answer.media_type: {} if answer.schema is None else {"schema": answer.schema}}
    elif isinstance(answer, type):
        response["content"] = {"application/json": {"schema": {"$ref": _REF.format(model=answer.__name__)}}}
    if about.links and isinstance(answer, type):
        response["links"] = {
            name: {"operationId": operation, "parameters": dict(parameters)}
            for name, (operation, parameters) in about.links.items()
        }
    return response


def _said(status: int, answer: type[BaseModel] | Content | None) -> str:
    if answer is None:
        return "Done."
    if isinstance(answer, Content):
        return answer.about
    new = " It is new." if status == 201 else " It was queued." if status == 202 else ""
    return (inspect.getdoc(answer) or "").partition("\n")[0] + new


def _problem(status: int, sentences: dict[str, str], about: Operation) -> Schema:
    model = about.problem if status == 503 and about.problem is not None else Problem
    schema = {
        "allOf": [
            {"$ref": _REF.format(model=model.__name__)},
            {"properties": {"code": {"enum": sorted(sentences)}, "status": {"const": status}}},
        ]
    }
    headers: Schema = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status in {429, 503}:
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if status == 401:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
    description = "\n".join(f"- `{code}`: {sentence}" for code, sentence in sorted(sentences.items()))
    return {"description": description, "headers": headers, "content": {_PROBLEM: {"schema": schema}}}


_HEADERS: Schema = {
    "X-Request-Id": {
        "description": "Names the request in the server's log.", "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    },
    "Location": {"description": "Where what was made is.", "required": True, "schema": {"type": "string"}},
    "ETag": {"description": "Names the content.", "required": True, "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to ask.", "required": True, "schema": {"type": "string"}},
}  # fmt: skip


def _models() -> Iterable[type[BaseModel]]:
    for operation in OPERATIONS.values():
        for each in (operation.body, operation.problem, *operation.answers.values()):
            if isinstance(each, type):
                yield each
    yield from (Problem, LabelSet, Policy)


@cache
def _schemas() -> Schema:
    models = list(dict.fromkeys(_models()))
    _, made = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas: Schema = copy.deepcopy(made["$defs"])
    for model in with_parts(models):
        describe(schemas[model.__name__], model)
    schemas["ClassifiedTerm"] = term(copy.deepcopy(schemas["Term"]), plain=True)
    schemas["ModeratedTerm"] = thing(copy.deepcopy(schemas["Term"]))
    form_items = copy.deepcopy(schemas["NewItems"])
    form_items["properties"]["items"]["items"] = {"$ref": _REF.format(model="FormItem")}
    schemas["FormItems"] = form_items
    schemas["FormItem"] = new_item(copy.deepcopy(schemas["NewItem"]), files=True)
    for name, reshape in RESHAPED.items():
        schemas[name] = reshape(copy.deepcopy(schemas[name]))
    schemas["FormClassification"] = _without_items(schemas["ClassifyRequest"])
    schemas["FormModeration"] = _without_items({"anyOf": [schemas["ModerateRequest"]]})["anyOf"][0]
    return {name: _without_null_defaults(schema) for name, schema in sorted(schemas.items())}


def _without_null_defaults(schema: Any) -> Any:
    """A schema without `default: null`, which says nothing, and of members that cannot be null something wrong."""
    if isinstance(schema, list):
        return [_without_null_defaults(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_null_defaults(value) for name, value in schema.items() if name != "default" or value is not None
    }


def _without_items(schema: Schema) -> Schema:
    """In a form, items may be left out: the other parts are classified then."""
    schema = copy.deepcopy(schema)
    for variant in schema["anyOf"]:
        variant["required"].remove("items")
    return schema
