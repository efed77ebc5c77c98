"""Pairs to evaluate with: one query and what it should find, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexer.errors import InvalidRequest
from indexer.items import Modality, point_id

if TYPE_CHECKING:
    from indexer.items import Record
    from indexer.store.collection import Collection

MOST_PAIRS = 100_000
_MOST_LINE = 2**20
_AT_ONCE = 256

Source = Annotated[str, Field(min_length=1, max_length=4096)]


class ImageQuery(BaseModel):
    """A query by a picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Source
    """A path; relative ones begin at the file of pairs, else here."""


class Pair(BaseModel):
    """One line: a query, and the items that it should find."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[str, Field(min_length=1, max_length=10_000)] | ImageQuery
    relevant: Annotated[list[Source], Field(min_length=1, max_length=1000)]
    """Sources or ids, any of which is right."""

    @property
    def modality(self) -> Modality:
        """What the query is."""
        return "image" if isinstance(self.query, ImageQuery) else "text"

    @property
    def words(self) -> str:
        """The query as a person would name it."""
        return self.query.image if isinstance(self.query, ImageQuery) else self.query


@dataclass(frozen=True)
class Target:
    """An item that a query should find."""

    id: str
    modality: Modality
    file: str
    """What stands for its file: of frames and pages the first one's id, else its own."""


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file of JSON lines; empty lines are passed over.

    Raises:
        InvalidRequest: it cannot be read, has no pair or too many, or a line is none, by its number.
    """
    pairs: list[Pair] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE + 1), b""), start=1):
                if len(line) > _MOST_LINE or len(pairs) >= MOST_PAIRS:
                    raise InvalidRequest(f"{path}:{number}: the line is too long, or there are too many.")
                if line.strip():
                    pairs.append(_pair(line, path, number))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    if not pairs:
        raise InvalidRequest(f"{path} has no pairs.", remedy=_EXAMPLE)
    return pairs


_EXAMPLE = 'Each line is one: {"query": "a dog on a beach", "relevant": ["photos/dog.jpg"]}'


def _pair(line: bytes, path: Path, number: int) -> Pair:
    try:
        return Pair.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[-1]
        where = ".".join(str(step) for step in first["loc"] if step not in {"str", "ImageQuery"})
        raise InvalidRequest(
            f"{path}:{number}: {where}: {first['msg']}." if where else f"{path}:{number}: {first['msg']}.",
            remedy=_EXAMPLE,
        ) from error


def find_targets(
    pairs: Sequence[Pair], collection: Collection, *, beside: Path
) -> tuple[list[list[Target]], list[tuple[int, str]]]:
    """The items that each pair names, and the names that stand for none, each with its pair's number from 0.

    A name is an item's id, or its source: as it is stored, or as a path, from the folder `beside` or from here.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair.relevant))
    found: dict[str, Target] = {}
    for at in range(0, len(names), _AT_ONCE):
        some = names[at : at + _AT_ONCE]
        by_id = collection.get_many([point_id(collection.name, name) for name in some])
        by_source = collection.by_sources([each for name in some for each in _spellings(name, beside)])
        for name in some:
            if (stored := by_id.get(point_id(collection.name, name))) is not None:
                found[name] = _target(stored.id, stored.record)
                continue
            for spelling in _spellings(name, beside):
                if spelling in by_source:
                    found[name] = _target(*by_source[spelling])
                    break
    targets = [
        list({found[name].id: found[name] for name in pair.relevant if name in found}.values()) for pair in pairs
    ]
    missing = [(number, name) for number, pair in enumerate(pairs) for name in pair.relevant if name not in found]
    return targets, missing


def _spellings(name: str, beside: Path) -> list[str]:
    return list(dict.fromkeys([name, str((beside / name).resolve()), str(Path.cwd() / name)]))


def _target(item_id: str, record: Record) -> Target:
    return Target(item_id, record.kind.modality, record.parent or item_id)
