"""Searching on a server instead of in a data folder of this machine: `crosslens search --url`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexer.items import Location, Record, now
from search_api.client import Crosslens
from search_api.openapi.answers import Result, SearchAnswer
from search_api.results import SearchAnswer as LocalAnswer
from search_api.results import SearchResult


def ask(
    url: str, key: str | None, collection: str, *, text: str | None, images: tuple[Path, ...], items: tuple[str, ...],
    limit: int, options: dict[str, Any],
) -> SearchAnswer:  # fmt: skip
    """The answer of a server's collection.

    Raises:
        ApiError: the server refuses, or does not answer.
        OSError: a picture cannot be read.
    """
    query = [{"image": image} for image in images] + [{"item": item} for item in items]
    with Crosslens(url, key, collection=collection) as client:
        return client.search(text, query=query, limit=limit, **options).answer


def shown(answer: SearchAnswer) -> LocalAnswer:
    """The answer as the table shows those of this machine."""
    return LocalAnswer(
        results=[_result(each) for each in answer.results],
        took_ms=answer.took_ms,
        model=answer.model,
        fingerprint=answer.fingerprint,
        warnings=answer.warnings,
    )


def _result(result: Result) -> SearchResult:
    # Of an item's record, an answer has what is shown.
    record = Record(
        kind=result.kind, sha256="", locations=[Location(source=result.source)], bytes=0, media_type="",
        text=result.text, added_at=now(),
    )  # fmt: skip
    return SearchResult(result.id, result.score, result.relevance, record, result.payload)
