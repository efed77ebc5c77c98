"""The page holds everything and trusts nothing."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from indexer.items import Kind, Location, Record
from search_api.contact_sheet import Asked, Section, write_contact_sheet
from search_api.results import SearchAnswer, SearchResult

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n\U0001f600 \udcff"


def result(kind: Kind = Kind.IMAGE, *, source: str = "/photos/cat.jpg", text: str | None = None, **payload: Any) -> Any:
    record = Record(
        kind=kind,
        sha256="0" * 64,
        locations=[Location(source=source)],
        bytes=1,
        media_type="image/jpeg",
        text=text,
        added_at=datetime.now(UTC),
    )
    return SearchResult(id="an-id", score=0.25, relevance=0.5, record=record, payload=payload)


def page(folder: Path, *results: SearchResult, asked: Asked | None = None, thumbnail: bytes | None = b"webp") -> str:
    answer = SearchAnswer(results=list(results), took_ms=1.0, model="tiny", fingerprint="0123", warnings=["cut"])
    path = folder / "deep" / "sheet.html"
    section = Section([asked or Asked(words="a cat")], answer)
    assert write_contact_sheet(path, [section], title="Found", thumbnail=lambda _: thumbnail) == path
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements and attributes of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_names_texts_and_payloads_cannot_become_elements(tmp_path: Path) -> None:
    hostile = [
        result(source=f"/photos/{HOSTILE}", caption=HOSTILE),
        result(Kind.TEXT, text=HOSTILE),
        result(**{HOSTILE: HOSTILE}),
    ]
    found = Elements(page(tmp_path, *hostile, asked=Asked(words=HOSTILE))).found
    assert not [tag for tag, _ in found if tag == "script"]
    assert not [attrs for _, attrs in found if any(name.startswith("on") for name in attrs)]
    assert {attrs["src"] for tag, attrs in found if tag == "img"} == {"data:image/webp;base64,d2VicA=="}


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = page(tmp_path, result(), asked=Asked(words="like this", picture=b"query", weight=-0.5))
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)", html)
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for pair in sources for source in pair if source)
    assert "default-src 'none'" in html


def test_the_query_the_texts_and_the_scores_are_shown(tmp_path: Path) -> None:
    html = page(tmp_path, result(Kind.TEXT, text="a dog in snow"), asked=Asked(words="dogs", weight=-0.5))
    for shown in ("dogs", "a dog in snow", "0.250", "× -0.5", "cut"):
        assert shown in html


def test_an_original_that_is_gone_is_said(tmp_path: Path) -> None:
    assert "the original is gone" in page(tmp_path, result(), thumbnail=None)


def test_no_result_is_a_page_too(tmp_path: Path) -> None:
    assert "0 results" in page(tmp_path)
