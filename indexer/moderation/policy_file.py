"""Policies from files: every mistake is told at once, each with its line, its column and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from indexer.errors import PolicyInvalid
from indexer.moderation.documents import MOST_BYTES, Document, Mistake, read_json, read_yaml
from indexer.moderation.documents import Path as Keys
from indexer.moderation.policy import Action, Category, Classifier, Hash, Linear, Policy, Prompts, Text

_PARTS = {"prompts": Prompts, "classifier": Classifier, "linear": Linear, "hash": Hash, "text": Text}


def parse_policy(text: str, *, form: str = "yaml", name: str = "The policy") -> Policy:
    """A policy from a file's text; `form` is `yaml` or `json`, and `name` is what messages call it.

    Raises:
        PolicyInvalid: with all of its mistakes, the first in the message.
    """
    document = read_json(text) if form == "json" else read_yaml(text)
    if document.mistakes and document.value is None:
        raise _refused(document, name)
    _same_names(document)
    try:
        policy = Policy.model_validate(document.value)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            if each["type"] != "category_twice":  # told already, with both of its lines
                _note(document, each)
    if document.mistakes:
        raise _refused(document, name)
    return policy


def read_policy(path: Path) -> Policy:
    """A policy from a file: JSON by its suffix, else YAML.

    Raises:
        PolicyInvalid: it cannot be read, is too large, or has mistakes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig") if len(data) <= MOST_BYTES else ""
    except OSError as error:
        raise PolicyInvalid(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{path} is not UTF-8 at byte {error.start}.", remedy="Save it as UTF-8.") from error
    if len(data) > MOST_BYTES:
        raise PolicyInvalid(f"{path} has more than {MOST_BYTES:,} bytes.", remedy="Divide it into several policies.")
    return parse_policy(text, form="json" if path.suffix.lower() == ".json" else "yaml", name=str(path))


def _refused(document: Document, name: str) -> PolicyInvalid:
    """The error; mistakes stand in the order of their lines."""
    mistakes = sorted(document.mistakes, key=lambda each: (each.line, each.column))
    first, more = mistakes[0], len(mistakes) - 1
    said = f"{name}, line {first.line}, column {first.column}: {_said(first)}."
    others = "" if not more else f" There {'is one more mistake' if more == 1 else f'are {more} more mistakes'}."
    return PolicyInvalid(
        said + others,
        remedy=f"{first.remedy} The policy in force stays.",
        line=first.line,
        column=first.column,
        mistakes=[asdict(each) for each in mistakes],
    )


def _said(mistake: Mistake) -> str:
    return f"{mistake.where or 'the file'} {mistake.problem}"


def _same_names(document: Document) -> None:
    """Note categories of one name. The model says so as well, but only where nothing else is wrong."""
    categories = document.value.get("categories") if isinstance(document.value, dict) else None
    lines: dict[str, int] = {}
    for index, each in enumerate(categories if isinstance(categories, list) else ()):
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            continue
        path = ("categories", index, "name")
        place = document.place_of(path)
        if name in lines:
            problem = f"is {name!r}, which the category in line {lines[name]} is called already"
            document.mistake(place, path, problem, "Give it another name, or make one category of the two.")
        lines.setdefault(name, place.line)


def _note(document: Document, error: Any) -> None:
    """Note a mistake that the model found, where it is in the file."""
    path = _path(document, error["loc"])
    place = document.place_of(path)
    match error["type"]:
        case "missing":
            path = _path(document, error["loc"][:-1])
        case "extra_forbidden":
            place = document.keys.get(path, place)
        case "union_tag_invalid":
            path = (*path, "type")
            place = document.place_of(path)
        case "too_short" if _value(document, path):
            return  # its parts are wrong, which is told of each: none of them counted
    document.mistake(place, path, *_told(document, path, error))


def _told(document: Document, path: Keys, error: Any) -> tuple[str, str]:
    """What is wrong, and the remedy."""
    said = error["msg"].removeprefix("Value error, ").rstrip(".")
    last = path[-1] if path else ""
    actions, parts = ", ".join(Action), ", ".join(_PARTS)
    plain: dict[str, tuple[str, str]] = {
        "union_tag_not_found": ("has no 'type'", f"Add one of: {parts}."),
        "union_tag_invalid": ("is no detector that is known", f"Known are: {parts}."),
        "enum": ("is no action", f"Use one of: {actions}."),
        "string_type": ("is no text", "Write a text; put words such as no, on or 1 in quotes."),
        "model_type": ("is no mapping of keys to values", "Write keys such as name: and what belongs to them."),
        "too_short": ("is empty", f"Add a {str(last).removesuffix('s').replace('ie', 'y') or 'value'}."),
        "value_error": (said, "Correct it as said."),
    }
    match error["type"]:
        case "missing":
            key = error["loc"][-1]
            return f"has no {key!r}", f"Add {key!r} to it."
        case "extra_forbidden":
            return "is no key that is known here", f"Known are: {', '.join(_known(document, path))}."
        case "greater_than" | "less_than" if last == "threshold":
            return "is out of range", "A threshold is a probability: above 0 and below 1."
        case kind if kind in plain:
            return plain[kind]
    return f"cannot be so: {said[:200].lower()}", "Keep to what is said there."


def _path(document: Document, location: tuple[Any, ...]) -> Keys:
    """The keys of the file in an error's location: what the model adds, such as which kind of detector, left out."""
    path: Keys = ()
    value = document.value
    for part in location:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            path, value = (*path, part), value[part]
    return path


def _known(document: Document, path: Keys) -> list[str]:
    """The keys that may stand beside the one at the path."""
    match len(path):
        case 1:
            model: Any = Policy
        case 3:
            model = Category
        case _:
            model = _PARTS[_value(document, path[:-1])["type"]]
    return sorted(model.model_fields)


def _value(document: Document, path: Keys) -> Any:
    value = document.value
    for part in path:
        value = value[part]
    return value
