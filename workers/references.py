"""Item references: what a shard holds of an item until it is read, as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from indexer.errors import CrosslensError
from indexer.media.discover import Candidate
from indexer.media.object_urls import is_object
from indexer.media.originals import UPLOAD
from indexer.media.sources import is_url, member_of, path_of
from indexer.report import Failure

_FAILURE = "failure"
_FIELDS = tuple(field.name for field in dataclasses.fields(Candidate) if field.name != "path")


def to_reference(found: Candidate | Failure) -> dict[str, Any]:
    """A candidate, or what failed before it was one, as JSON; what is unset is left out."""
    if isinstance(found, Failure):
        return {"source": found.source, _FAILURE: found.error.as_dict()}
    fields = ((name, getattr(found, name)) for name in _FIELDS)
    return {name: value for name, value in fields if value not in (None, {})}


def from_reference(reference: dict[str, Any]) -> Candidate | Failure:
    """The candidate, or failure, that `to_reference` was given."""
    if _FAILURE in reference:
        return Failure(reference["source"], _Noted(reference[_FAILURE]))
    source = reference["source"]
    if "text" in reference or is_url(source) or is_object(source) or source.startswith(UPLOAD):
        return Candidate(**reference)
    inside = member_of(source) if "member" in reference else None
    return Candidate(path=inside[0] if inside else path_of(source), **reference)


class _Noted(CrosslensError):
    """An error that was noted when its item was found."""

    def __init__(self, noted: dict[str, Any]) -> None:
        super().__init__(noted["message"], remedy=noted["remedy"])
        self._noted = noted

    def as_dict(self) -> dict[str, Any]:
        return dict(self._noted)
