"""YAML and JSON with the place of everything in them, so that a mistake can be shown where it is.

Texts come from anywhere: their size, depth and number of values are capped, aliases are refused ("billion laughs"), a
key that stands twice is a mistake, and no YAML tag makes anything but texts, numbers, truths and nothing.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

MOST_BYTES = 2**20
MOST_MISTAKES = 50
"""That are told; a file with more has one cause."""

_DEEPEST = 16
_MOST_VALUES = 200_000
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}
_DECODER = json.JSONDecoder()
_INTEGER = re.compile(r"[-+]?[0-9]{1,15}")

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """Where something begins; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Mistake:
    """One mistake: where, what, and what to do."""

    line: int
    column: int
    where: str
    """The path of keys to it; empty for the file itself."""
    problem: str
    remedy: str


@dataclass
class Document:
    """A file's value, and where its parts are."""

    value: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    """Where the key of a part is; of a list's, where the part is."""
    values: dict[Path, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place_of(self, path: Path) -> Place:
        """Where the part is, or the nearest around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(1, 1))

    def mistake(self, place: Place, path: Path, problem: str, remedy: str) -> None:
        """Note one."""
        if len(self.mistakes) < MOST_MISTAKES:
            self.mistakes.append(Mistake(*place, ".".join(map(str, path)), problem, remedy))


class _Stop(Exception):
    """The rest of a file cannot be read; why is noted."""


def read_yaml(text: str) -> Document:
    """A YAML file's value; what cannot be read is among its mistakes."""
    document = Document()
    if _fits(document, text):
        with suppress(_Stop):
            _Yaml(document).read(text)
    return document


def read_json(text: str) -> Document:
    """A JSON file's value (RFC 8259); what cannot be read is among its mistakes."""
    document = Document()
    if _fits(document, text):
        with suppress(_Stop):
            _Json(document, text).read()
    return document


def _fits(document: Document, text: str) -> bool:
    size = len(text.encode("utf-8", "replace"))
    if size > MOST_BYTES:
        problem = f"has {size:,} bytes; {MOST_BYTES:,} is the most"
        document.mistake(Place(1, 1), (), problem, "Divide it into several policies.")
    return size <= MOST_BYTES


def _twice(document: Document, place: Place, path: Path) -> None:
    first = document.keys[path].line
    document.mistake(place, path, f"stands here a second time, first in line {first}", "Remove one of the two.")


class _Yaml:
    """Nodes into values. Events are looked at first: nesting and aliases are refused before anything is built."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def read(self, text: str) -> None:
        import yaml  # noqa: PLC0415  not for `crosslens --help`

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        depth = count = 0
        try:
            for event in yaml.parse(text, Loader=loader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                count += isinstance(event, yaml.NodeEvent)
                if isinstance(event, yaml.AliasEvent):
                    self._stop(event.start_mark, "is an alias", "Write out what it stands for.")
                if depth > _DEEPEST or count > _MOST_VALUES:
                    self._stop(event.start_mark, "is nested too deep, or has too many values", "Write it plainly.")
            node = yaml.compose(text, Loader=loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            reason = getattr(error, "problem", None) or str(error)
            self._stop(mark, f"is not YAML: {' '.join(str(reason).split())[:200]}", "Correct what stands there.")
        if node is not None:
            self._document.value = self._value(node, ())

    def _stop(self, mark: Any, problem: str, remedy: str) -> NoReturn:
        self._document.mistake(_marked(mark), (), problem, remedy)
        raise _Stop

    def _value(self, node: Any, path: Path) -> Any:
        place = _marked(node.start_mark)
        self._document.values[path] = place
        self._document.keys.setdefault(path, place)
        match node.id:
            case "mapping":
                return self._mapping(node, path)
            case "sequence":
                return [self._value(each, (*path, index)) for index, each in enumerate(node.value)]
            case _:
                return _plain(node)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            place = _marked(key.start_mark)
            if key.id != "scalar":
                self._document.mistake(place, path, "has a key that is no text", "Use a plain word as the key.")
                continue
            name = (*path, key.value)
            if key.value in found:
                _twice(self._document, place, name)
                continue
            self._document.keys[name] = place
            found[key.value] = self._value(value, name)
        return found


def _marked(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def _plain(node: Any) -> Any:
    """A scalar: numbers and truths as YAML 1.1 resolves them; a date, a sexagesimal or anything else is its text."""
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return node.value.lower() in {"yes", "true", "on"}
        case "int" if _INTEGER.fullmatch(node.value):
            return int(node.value)
        case "float":
            try:
                return float(node.value)
            except ValueError:
                return node.value
    return node.value


class _Json:
    """A descent over the text that knows where it is; the standard library's own decoder reads the texts."""

    def __init__(self, document: Document, text: str) -> None:
        self._document = document
        self._text = text
        self._at = 0
        self._count = 0
        self._line, self._line_start, self._counted = 1, 0, 0

    def read(self) -> None:
        self._document.value = self._value(())
        self._skip()
        if self._at < len(self._text):
            self._stop("has something behind its end", "Remove it.")

    def _place(self) -> Place:
        """Of where the reading is; lines are counted once, as it only goes forward."""
        passed = self._text.count("\n", self._counted, self._at)
        if passed:
            self._line += passed
            self._line_start = self._text.rfind("\n", self._counted, self._at) + 1
        self._counted = self._at
        return Place(self._line, self._at - self._line_start + 1)

    def _stop(self, problem: str, remedy: str = "Correct what stands there.") -> NoReturn:
        self._document.mistake(self._place(), (), problem, remedy)
        raise _Stop

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at

    def _next(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _value(self, path: Path) -> Any:
        first = self._next()
        place = self._place()
        self._document.values[path] = place
        self._document.keys.setdefault(path, place)
        self._count += 1
        if len(path) > _DEEPEST or self._count > _MOST_VALUES:
            self._stop("is nested too deep, or has too many values", "Write it plainly.")
        match first:
            case "{":
                return self._object(path)
            case "[":
                return self._array(path)
            case '"':
                return self._string()
        return self._bare()

    def _bare(self) -> Any:
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        number = _NUMBER.match(self._text, self._at)
        if number is None or len(number[0]) > 64:
            self._stop("is not JSON: no value begins here")
        self._at = number.end()
        return float(number[0]) if number[1] or number[2] or len(number[0]) > 15 else int(number[0])

    def _string(self) -> str:
        try:
            text, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = min(error.pos, len(self._text))
            self._stop(f"is not JSON: {error.msg.lower()}")
        return str(text)

    def _array(self, path: Path) -> list[Any]:
        found: list[Any] = []
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return found
        while True:
            found.append(self._value((*path, len(found))))
            if self._ends("]"):
                return found

    def _object(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return found
        while True:
            if self._next() != '"':
                self._stop("is not JSON: a key in double quotes should stand here")
            place = self._place()
            key = self._string()
            name = (*path, key)
            if self._next() != ":":
                self._stop("is not JSON: a colon should stand here")
            self._at += 1
            if key in found:
                _twice(self._document, place, name)
                self._value(name)
            else:
                self._document.keys[name] = place
                found[key] = self._value(name)
            if self._ends("}"):
                return found

    def _ends(self, close: str) -> bool:
        """Whether the collection ends here; else a comma does stand here."""
        following = self._next()
        if following not in {",", close} or not following:
            self._stop(f"is not JSON: a comma or {close} should stand here")
        self._at += 1
        return following == close
