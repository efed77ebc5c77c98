"""Label sets: what can be told apart, in words; named, checked, and read from JSON or YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from indexer.errors import InvalidRequest
from indexer.items import RECORD_KEY
from indexer.models.templates import PLACE, filled, is_template
from indexer.store.fields import DEFAULTS

MOST_LABELS = 256
MOST_PROMPTS = 2048
"""Texts of one set that have to be embedded, its template's included."""
MOST_BYTES = 64 * 2**10
"""Of a set as JSON or YAML."""

_DEEPEST = 10
_SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_FIELD = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,3}$"
VERSIONS_KEY = "labels_version"
"""The payload key under which items say which version of a set their tags are from."""


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode") from error
    return text


def _template(text: str) -> str:
    if not is_template(text):
        raise ValueError(f"is no set of prompts, and no prompt with one {PLACE}")
    return text


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_encodable)]
Prompt = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_encodable)]
Template = Annotated[str, Field(max_length=1000), AfterValidator(_encodable), AfterValidator(_template)]
SetName = Annotated[str, Field(pattern=_SET_NAME)]


class Label(BaseModel):
    """One label: a name, and prompts of its own where the template's would not do. A plain string is its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=32)] = ()
    """Texts that describe it, `{}` standing for its name; none: the set's template."""

    def texts(self, template: str) -> list[str]:
        """What is embedded for it."""
        return [prompt.replace(PLACE, self.name) for prompt in self.prompts] or filled(self.name, template)


Labels = Annotated[tuple[Annotated[Label, BeforeValidator(_named)], ...], Field(min_length=1, max_length=MOST_LABELS)]


class LabelSet(BaseModel):
    """Labels that belong together, and how they are given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: SetName
    labels: Labels
    template: Template = "ensemble"
    """A set of prompts by its name (`models.templates`), or one prompt with `{}` in the label's place."""
    multi: Annotated[bool, Field(strict=True)] = False
    """Whether an item can have several labels; else it has one, or none of them."""
    threshold: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.5
    """The probability from which on a label is given."""
    field: Annotated[str, Field(pattern=_FIELD, max_length=256)] | None = None
    """The payload field that the labels are written to; `labels.<name>` when unset."""

    @property
    def target(self) -> str:
        """The payload field that labels are written to."""
        return self.field or f"labels.{self.name}"

    @property
    def version_field(self) -> str:
        """The payload field that says which version an item's labels are from."""
        return f"{VERSIONS_KEY}.{self.name}"

    @property
    def texts(self) -> list[list[str]]:
        """What is embedded for each label."""
        return [label.texts(self.template) for label in self.labels]

    @property
    def digest(self) -> str:
        """16 hex digits of everything in it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        names = [label.name.casefold() for label in self.labels]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"has the label {min(twice)!r} twice")
        if sum(map(len, self.texts)) > MOST_PROMPTS:
            raise ValueError(f"has more than {MOST_PROMPTS:,} prompts in all")
        if self.target in DEFAULTS or self.target.split(".")[0] in {RECORD_KEY, VERSIONS_KEY}:
            raise ValueError(f"writes to {self.target!r}, which holds something else")
        return self


def parse_label_set(body: Any) -> LabelSet:
    """A label set from decoded JSON or YAML.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        labels = LabelSet.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "labels"
        raise InvalidRequest(f"{where}: {first['msg'].removeprefix('Value error, ')}.", field=where) from error
    if len(labels.model_dump_json()) > MOST_BYTES:
        raise InvalidRequest(f"A label set can have no more than {MOST_BYTES // 1024} KiB.")
    return labels


def read_label_set(path: Path) -> LabelSet:
    """A label set from a file: JSON by its suffix, else YAML. Without a name in it, the file's is the set's.

    Raises:
        InvalidRequest: it cannot be read, is too large, or is no label set.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    if len(data) > MOST_BYTES:
        raise InvalidRequest(f"{path} is larger than {MOST_BYTES // 1024} KiB.", remedy="Divide the set.")
    body = _json(data, path) if path.suffix == ".json" else _yaml(data, path)
    return parse_label_set({"name": path.stem, **body} if isinstance(body, dict) else body)


def of_names(names: Sequence[str], *, template: str = "ensemble", multi: bool = False) -> LabelSet:
    """A set of labels that have names alone, for one use."""
    return parse_label_set({"name": "labels", "labels": list(names), "template": template, "multi": multi})


def _json(data: bytes, path: Path) -> Any:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{path} is not JSON: {error}.", remedy="Correct the file.") from error


def _yaml(data: bytes, path: Path) -> Any:
    import yaml  # noqa: PLC0415  not for `crosslens --help`

    try:
        # Aliases can make a short file a huge document ("billion laughs"), and brackets one that takes minutes.
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise InvalidRequest(f"{path} has an alias, or is nested too deep.", remedy="Write a list of labels.")
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise InvalidRequest(f"{path} is not YAML: {words[:300]}.", remedy="Correct the file.") from error


def as_document(labels: LabelSet) -> dict[str, Any]:
    """The set as JSON has it; what is as by default is left out, but for the names and the labels."""
    document: dict[str, Any] = json.loads(labels.model_dump_json(exclude_defaults=True))
    return document
