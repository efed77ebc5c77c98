"""A page of search results to look at: one HTML file with everything in it, opened by path, online or not.

Nothing on it is trusted: names, captions and payloads are escaped by the template, pictures are re-encoded thumbnails
as data URIs, and a content security policy forbids scripts and anything from elsewhere.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.errors import MediaError, MediaStoreUnavailable
from indexer.items import Kind, Record
from indexer.settings import Settings

if TYPE_CHECKING:
    from search_api.results import SearchAnswer

THUMBNAIL_SIZE = 320
"""Pixels of the longest side."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One term of a query as it is shown: words, or a picture as WebP bytes, or both."""

    words: str | None = None
    picture: bytes | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Section:
    """One query and its answer."""

    asked: Sequence[Asked]
    answer: SearchAnswer


@dataclass(frozen=True, slots=True)
class _Card:
    rank: int
    score: float
    share: int
    """Length of the score's bar, in percent of the section's best."""
    name: str
    source: str
    text: str | None
    caption: str | None
    picture: str | None
    """A data URI."""


def stored_thumbnails(settings: Settings) -> Callable[[Record], bytes | None]:
    """Makes the thumbnail of an item's original; None where that is gone."""
    from indexer.media.thumbnails import Thumbnails  # noqa: PLC0415

    thumbnails = Thumbnails.of(settings)

    def make(record: Record) -> bytes | None:
        try:
            return thumbnails.make(record, THUMBNAIL_SIZE)
        except (MediaError, MediaStoreUnavailable):
            return None

    return make


def write_contact_sheet(
    path: Path, sections: Sequence[Section], *, title: str, thumbnail: Callable[[Record], bytes | None]
) -> Path:
    """Write the page; give its path.

    `thumbnail` gives an image item's thumbnail as WebP, or None where the original is gone; a card says so.
    """
    import jinja2  # noqa: PLC0415  most commands never write a page

    template = jinja2.Environment(
        loader=jinja2.PackageLoader("search_api"), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("contact_sheet.html")
    html = template.render(
        title=title,
        made=datetime.now().astimezone(),
        sections=[
            {
                "asked": [
                    {"words": _shown(term.words), "picture": _data_uri(term.picture), "weight": term.weight}
                    for term in section.asked
                ],
                "model": section.answer.model,
                "took_ms": section.answer.took_ms,
                "reranking": section.answer.reranking,
                "warnings": [_shown(warning) for warning in section.answer.warnings],
                "cards": _cards(section.answer, thumbnail),
            }
            for section in sections
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def _cards(answer: SearchAnswer, thumbnail: Callable[[Record], bytes | None]) -> list[_Card]:
    best = max((result.score or 0.0 for result in answer.results), default=0.0)
    return [
        _Card(
            rank=rank,
            score=result.score or 0.0,
            share=max(0, min(100, round(100 * (result.score or 0.0) / best))) if best > 0 else 0,
            name=_shown(Path(result.source).name) or "",
            source=_shown(result.source) or "",
            text=_shown(result.record.text),
            caption=_shown(_caption(result.payload)),
            picture=_data_uri(thumbnail(result.record)) if result.record.kind is not Kind.TEXT else None,
        )
        for rank, result in enumerate(answer.results, start=1)
    ]


def _caption(payload: dict[str, object]) -> str | None:
    """The payload in one line, a field that calls itself a caption or title first of all."""
    for key in ("caption", "title"):
        if isinstance(value := payload.get(key), str):
            return value
    return " · ".join(f"{key}: {value}" for key, value in payload.items()) or None


def _shown(text: str | None) -> str | None:
    """Text as a page may hold it: file names can have bytes that are no text."""
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _data_uri(webp: bytes | None) -> str | None:
    return None if webp is None else f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
