"""What is uploaded: files and texts, as the parts of a multipart form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class File:
    """A file to upload: where it is, or its bytes."""

    content: str | Path | bytes
    """A path, or the bytes."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    """Unless given, its content's."""
    name: str | None = None
    """By which errors name it; the path's unless given."""


@dataclass(frozen=True)
class Text:
    """A text to upload."""

    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


Thing = str | Path | bytes | File | Text
"""A string is a path; a text is a `Text`."""


@contextmanager
def form(things: Sequence[Thing], payload: Mapping[str, Any]) -> Iterator[list[tuple[str, Any]]]:
    """The parts of an upload as httpx takes them; files are open, and read as they are sent, while the context lasts.

    `payload` is every item's, under its own.

    Raises:
        OSError: a file cannot be opened.
    """
    items: list[dict[str, Any]] = []
    parts: list[tuple[str, Any]] = []
    with ExitStack() as opened:
        for number, thing in enumerate(things):
            item: dict[str, Any]
            if isinstance(thing, Text):
                item = {"text": thing.text}
            else:
                thing = thing if isinstance(thing, File) else File(thing)  # noqa: PLW2901  the same, with a name
                item = {"file": f"part-{number}"}
                parts.append((f"part-{number}", _part(thing, number, opened)))
            about = {"payload": {**payload, **thing.payload}, "id": thing.id}
            items.append({**item, **{name: value for name, value in about.items() if value}})
        yield [("request", (None, json.dumps({"items": items}), "application/json")), *parts]


def _part(file: File, number: int, opened: ExitStack) -> tuple[str, Any]:
    if isinstance(file.content, bytes):
        return file.name or f"file-{number}", file.content
    path = Path(file.content)
    return file.name or path.name, opened.enter_context(path.open("rb"))
