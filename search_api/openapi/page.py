"""The document as a page shows it: operations by tag, schemas as rows, and a curl command for each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

_ADDRESS = "http://localhost:8000"
_METHODS = ("get", "put", "post", "patch", "delete")
_EXAMPLES = {
    "name": "media", "item": "car", "job_id": "20270131-120000-0a1b2c", "label_set_name": "colours",
    "key_id": "0a1b2c3d4e5f",
}  # fmt: skip
_DEEPEST = 6


@dataclass(frozen=True)
class Shown:
    """One operation as the page shows it."""

    method: str
    path: str
    operation: Schema
    parameters: list[Schema]
    curl: str


@dataclass(frozen=True)
class Row:
    """One member of an object."""

    name: str
    type: str
    about: str
    required: bool


def chapters(document: Schema) -> list[tuple[Schema, list[Shown]]]:
    """Each tag with its operations, in the document's order."""
    shown = [
        Shown(method, path, item[method], [*item.get("parameters", ()), *item[method].get("parameters", ())],
              curl(method, path, item[method]))
        for path, item in document["paths"].items() for method in _METHODS if method in item
    ]  # fmt: skip
    return [(tag, [each for each in shown if tag["name"] in each.operation["tags"]]) for tag in document["tags"]]


def curl(method: str, path: str, operation: Schema) -> str:
    """A command that asks for an operation."""
    for name, value in _EXAMPLES.items():
        path = path.replace(f"{{{name}}}", value)
    words = ["curl"] if method == "get" else ["curl", "-X", method.upper()]
    words.append(f"{_ADDRESS}{path}")
    if operation.get("security") != []:
        words += ["-H", "Authorization: Bearer $CROSSLENS_KEY"]
    content = operation.get("requestBody", {}).get("content", {})
    for example in content.get("application/json", {}).get("examples", {}).values():
        words += ["--json", json.dumps(example["value"])]
        break
    # Double quotes, so that the shell fills in the key.
    return " ".join(f'"{word}"' if "$CROSSLENS_KEY" in word else shlex.quote(word) for word in words)


def kind(schema: Schema, depth: int = 0) -> str:
    """A schema's type in words; names of other schemas as they are."""
    if depth > _DEEPEST:
        return "..."
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if union := next((schema[name] for name in ("anyOf", "oneOf", "allOf") if name in schema), None):
        return " | ".join(dict.fromkeys(kind(each, depth + 1) for each in union))
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(each) for each in schema.get("enum", [schema.get("const")]))
    return _plain(schema, depth)


def _plain(schema: Schema, depth: int) -> str:
    name = schema.get("type", "any")
    if name == "array":
        return f"array of {kind(schema.get('items', {}), depth + 1)}"
    if name == "object" and schema.get("title") and "properties" in schema:
        return str(schema["title"])
    return str(name) + _limits(schema)


def _limits(schema: Schema) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum", schema.get("minLength")))
    high = schema.get("maximum", schema.get("exclusiveMaximum", schema.get("maxLength")))
    if low is None and high is None:
        return f" ({schema['format']})" if "format" in schema else ""
    unit = " characters" if "maxLength" in schema or "minLength" in schema else ""
    return f" ({'' if low is None else low}..{'' if high is None else high}{unit})"


def variants(schema: Schema) -> Iterator[tuple[str, list[Row]]]:
    """The members of a schema; of one that is a union of objects, those of each."""
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield str(each.get("title", "")), _rows(each)
    else:
        yield "", _rows(schema)


def _rows(schema: Schema) -> list[Row]:
    required = set(schema.get("required", ()))
    return [
        Row(name, kind(each), each.get("description", ""), name in required)
        for name, each in schema.get("properties", {}).items()
        if each != {"type": "null"} and each is not False
    ]
