"""What the models' own validators demand, said in JSON Schema, which pydantic cannot do from Python code.

Each function takes the schema that pydantic made of a model and gives one that lets through what the model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from indexer.models.templates import SETS

Schema = dict[str, Any]

COLLECTION_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
# Python's \s has some that JSON Schema's has not.
_FIELD_NAME = r"^[^\s\u001c-\u001f\u0085\[\].]+(\.[^\s\u001c-\u001f\u0085\[\].]+)*$"
_KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\*?$"
_BASE64 = (
    r"^(data:[A-Za-z0-9_.+-]+/[A-Za-z0-9_.+-]+;base64,)?"
    r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$"
)
_NULL: Schema = {"type": "null"}
_OF_TERM = ("text", "image", "item", "vector")
_WITH_QUERY = ("diversity", "collapse", "min_relevance", "rerank", "explain", "exact", "group_size")


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


def _not_null(schema: Schema) -> Schema:
    """A member that may be null, when it may not; its description stays."""
    kept = [each for each in schema.get("anyOf", ()) if each != _NULL]
    about = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    return {**about, **(kept[0] if len(kept) == 1 else {"anyOf": kept})}


def _object(properties: Schema, required: tuple[str, ...], **more: Any) -> Schema:
    shape = {"type": "object", "properties": properties, "additionalProperties": False, **more}
    return {**shape, "required": list(required)} if required else shape


def _template() -> Schema:
    one_place = {"type": "string", "maxLength": 1000, "pattern": r"^[^{}]*\{\}[^{}]*$"}
    return {"anyOf": [{"enum": sorted(SETS)}, one_place]}


def _image(about: Mapping[str, Any]) -> Schema:
    return {
        "description": about.get("description", "") + " A file's bytes go as base64 or as a data URL; in a form, the "
        "name of another part will do.",
        "anyOf": [
            {"type": "string", "pattern": _BASE64},
            {"type": "string", "pattern": "^https?://", "format": "uri"},
        ],
    }


def term(schema: Schema, *, plain: bool = False) -> Schema:
    """Of `Term`: one of text, image, item and vector each; `plain` without weights and vectors, as classified items."""
    given = schema["properties"]
    weight = {
        "description": given["weight"].get("description", "Any but 0; a negative one leads away."),
        "default": 1.0,
        "anyOf": [
            {"type": "number", "minimum": -1000, "exclusiveMaximum": 0},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
        ],
    }
    own: dict[str, Schema] = {"text": {"template": _or_null(_template())}, "vector": {"modality": given["modality"]}}
    variants = []
    for name in _OF_TERM[:3] if plain else _OF_TERM:
        value = _image(given["image"]) if name == "image" else _not_null(given[name])
        optional = {other: _NULL for other in _OF_TERM if other != name}
        if not plain:
            optional |= {"template": _NULL, "modality": _NULL, **own.get(name, {}), "weight": weight}
        elif name != "vector":
            optional |= {"modality": _NULL}
        variants.append(_object({name: value, **optional}, (name,), title=f"By {name}"))
    return {"title": schema["title"], "description": schema["description"], "anyOf": variants}


def thing(schema: Schema) -> Schema:
    """Of `Term`, where it is judged: a text, or an image."""
    given = schema["properties"]
    values = {"text": _not_null(given["text"]), "image": _image(given["image"])}
    variants = [_object({name: value}, (name,), title=f"By {name}") for name, value in values.items()]
    return {"title": "ModeratedTerm", "description": "What is judged: a text, or an image.", "anyOf": variants}


def moderate_request(schema: Schema) -> Schema:
    """Of `ModerateRequest`: texts and images; a policy is given as PUT takes it."""
    given = schema["properties"]
    given["items"]["items"] = {"$ref": "#/components/schemas/ModeratedTerm"}
    name, _, null = given["policy"]["anyOf"]
    given["policy"]["anyOf"] = [name, {"$ref": "#/components/schemas/Policy"}, null]
    return schema


def decision(schema: Schema) -> Schema:
    """Of `Decision`: what is approved or withdrawn is of nothing more, and who recategorises names categories."""
    given = schema["properties"]

    def variant(title: str, *what: str, needs: tuple[str, ...] = ("what",), **more: Schema) -> Schema:
        said = {"what": {**given["what"], "enum": list(what)}, "action": _NULL, "categories": _NULL, **more}
        return _object(said, needs, title=title)

    variants = [
        variant("Approve, or withdraw", "approve", "withdraw"),
        variant("Reject", "reject", action=given["action"], categories=given["categories"]),
        variant(
            "Recategorise", "recategorise", needs=("what", "categories"), categories=_not_null(given["categories"])
        ),
    ]
    return {"title": schema["title"], "description": schema["description"], "anyOf": variants}


def search_request(schema: Schema) -> Schema:
    """Of `SearchRequest`: a search, a walk without a query, or the next page of either."""
    given = dict(schema["properties"])
    given["group_by"] = _field_or_null(given["group_by"])
    of_first_page = {**given, "cursor": _NULL}
    wanted = {"minItems": 1}
    # Either it decides the order, or one of these does.
    in_its_order = {"properties": {"order_by": _NULL, "diversity": {"const": 0}}}
    ordered = [{"properties": {"rerank": {"const": False}}}, in_its_order]
    search, liked = (
        _object(
            {**of_first_page, name: {**_without_default(given[name]), **wanted}}, (name,), title=title, anyOf=ordered
        )
        for name, title in (("query", "By terms"), ("like", "By examples"))
    )
    empty = {name: {"type": "array", "maxItems": 0} for name in ("query", "like", "dislike")}
    kept = {name: value for name, value in of_first_page.items() if name not in {*_WITH_QUERY, *empty}}
    page = _object({"cursor": _not_null(given["cursor"]), "limit": given["limit"]}, ("cursor",), title="The next page")
    walk = _object({**kept, **empty}, (), title="A walk")
    return {
        "title": schema["title"],
        "description": schema["description"],
        "anyOf": [search, liked, walk, page],
    }


def _without_default(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "default"}


def searches(schema: Schema) -> Schema:
    """Of `Searches`: with queries each, and without cursors."""
    each = {"$ref": "#/components/schemas/SearchRequest"}
    asked = {"anyOf": [{"required": ["query"], "properties": {"query": {"minItems": 1}}},
                       {"required": ["like"], "properties": {"like": {"minItems": 1}}}]}  # fmt: skip
    schema["properties"]["searches"]["items"] = {"allOf": [each, asked]}
    return schema


def _field_or_null(schema: Schema) -> Schema:
    about = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**about, **_or_null({"type": "string", "minLength": 1, "maxLength": 256, "pattern": _FIELD_NAME})}


def facet_request(schema: Schema) -> Schema:
    """Of `FacetRequest`: names of fields."""
    schema["properties"]["fields"]["items"]["pattern"] = _FIELD_NAME
    schema["properties"]["group_by"] = _field_or_null(schema["properties"]["group_by"])
    return schema


def _payload(schema: Schema) -> Schema:
    return {**schema, "properties": {"crosslens": False}}


def new_item(schema: Schema, *, files: bool) -> Schema:
    """Of `NewItem`: a text, or (in a form) a file."""
    given = {**schema["properties"], "payload": _payload(schema["properties"]["payload"])}
    text = _object({**given, "text": _not_null(given["text"]), "file": _NULL}, ("text",), title="A text")
    file = _object({**given, "file": _not_null(given["file"]), "text": _NULL}, ("file",), title="A file of the form")
    return {"title": schema["title"], "description": schema["description"], "anyOf": [text, file] if files else [text]}


def change(schema: Schema) -> Schema:
    """Of `Change`: any payload but Crosslens' own key."""
    schema["properties"]["payload"] = _payload(schema["properties"]["payload"])
    return schema


def classify_request(schema: Schema) -> Schema:
    """Of `ClassifyRequest`: by a stored set, or by labels named in it."""
    given = dict(schema["properties"])
    given["items"] = {**given["items"], "items": {"$ref": "#/components/schemas/ClassifiedTerm"}}
    own = {**given, "labels": _labels(_not_null(given["labels"])), "template": _or_null(_template()), "set": _NULL}
    stored = {**given, "set": _not_null(given["set"]), "labels": _NULL, "template": _NULL, "multi": _NULL}
    return {
        "title": schema["title"],
        "description": schema["description"],
        "anyOf": [
            _object(own, ("items", "labels"), title="By labels"),
            _object(stored, ("items", "set"), title="By a label set"),
        ],
    }


def _labels(schema: Schema) -> Schema:
    name = {"type": "string", "minLength": 1, "maxLength": 100}
    return {**schema, "items": {"anyOf": [name, {"$ref": "#/components/schemas/Label"}]}}


def label_set(schema: Schema) -> Schema:
    """Of `LabelSet`: its name may be left out, since the path has it."""
    schema["properties"]["labels"] = _labels(schema["properties"]["labels"])
    schema["properties"]["template"] = {**_template(), "default": "ensemble"}
    schema["required"].remove("name")
    return schema


def new_key(schema: Schema) -> Schema:
    """Of `NewKey`: patterns of collections, and times or spans."""
    given = schema["properties"]
    given["roles"].pop("uniqueItems", None)  # twice is as once
    given["collections"]["items"]["pattern"] = _KEY_PATTERN
    given["expires"]["anyOf"][0]["examples"] = ["90d"]
    return schema


def new_items(schema: Schema) -> Schema:
    """Of `NewItems`: in JSON there is nothing else, so at least one."""
    schema["properties"]["items"]["minItems"] = 1
    return schema


def duplicates_request(schema: Schema) -> Schema:
    """Of `DuplicatesRequest`: the same bytes have no threshold."""
    others = {"properties": {"by": {"enum": ["picture", "alike"]}}}
    return {**schema, "anyOf": [others, {"properties": {"threshold": _NULL}}]}


RESHAPED: Mapping[str, Callable[[Schema], Schema]] = {
    "Term": term,
    "SearchRequest": search_request,
    "Searches": searches,
    "FacetRequest": facet_request,
    "DuplicatesRequest": duplicates_request,
    "NewItems": new_items,
    "NewItem": lambda schema: new_item(schema, files=False),
    "Change": change,
    "ClassifyRequest": classify_request,
    "LabelSet": label_set,
    "NewKey": new_key,
    "ModerateRequest": moderate_request,
    "Decision": decision,
}
