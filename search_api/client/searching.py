"""What is looked for, and what is found: a page, all pages, or as many results as are wanted."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from search_api.openapi.answers import Result, SearchAnswer

Picture = str | Path | bytes
"""A path, an http(s) URL, or the file's bytes."""
Filter = Mapping[str, Any] | str
Terms = Sequence[Mapping[str, Any]]
_URLS = ("http://", "https://")
MOST_RERANKING = 60.0
"""Seconds, of all searches of a request."""


def search_body(
    text: str | None = None,
    *,
    image: Picture | None = None,
    item: str | None = None,
    vector: Sequence[float] | None = None,
    query: Terms = (),
    filter: Filter | None = None,
    limit: int = 10,
    **options: Any,
) -> dict[str, Any]:
    """The request of a search, of which every part is as `Crosslens.search` has it.

    Raises:
        OSError: a picture cannot be read.
    """
    named = {"text": text, "image": image, "item": item, "vector": vector}
    terms = [{name: value} for name, value in named.items() if value is not None]
    given = {"query": [sent_term(each) for each in (*terms, *query)] or None, "filter": filter, **options}
    # `group_by=None` asks for something: every frame and page. Other members that are None are left out.
    return {"limit": limit, **{name: value for name, value in given.items() if value is not None or name == "group_by"}}


def reranking_seconds(*bodies: Mapping[str, Any]) -> float:
    """What a request's searches may take longer for reranking: their deadlines, and together a minute at most."""
    asked = [body.get("rerank") for body in bodies]
    deadlines = [each.get("deadline_ms") for each in asked if isinstance(each, Mapping)]
    known = [each for each in deadlines if isinstance(each, int | float)]
    return min(sum(known), 1000 * MOST_RERANKING) / 1000


def sent_term(term: Mapping[str, Any]) -> dict[str, Any]:
    """A term as it is sent: pictures by their URL or their bytes.

    Raises:
        OSError: a picture cannot be read.
    """
    sent = dict(term)
    if (image := sent.get("image")) is not None:
        sent["image"] = image if isinstance(image, str) and image.startswith(_URLS) else _encoded(image)
    if (vector := sent.get("vector")) is not None:
        sent["vector"] = [float(value) for value in vector]
    return sent


def _encoded(image: Picture) -> str:
    content = image if isinstance(image, bytes) else Path(image).read_bytes()
    return base64.b64encode(content).decode("ascii")


class Found:
    """What a search finds. The first page is asked for when it is first needed, the others as they are walked to.

    As an iterable it is its first page.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], SearchAnswer], request: dict[str, Any]) -> None:
        self._ask = ask
        self._request = request

    @cached_property
    def answer(self) -> SearchAnswer:
        """The first page."""
        return self._ask(self._request)

    @property
    def results(self) -> list[Result]:
        """Those of the first page, best first."""
        return self.answer.results

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def pages(self) -> Iterator[SearchAnswer]:
        """Every page; each is asked for with the cursor of the one before, which lives for ten minutes."""
        answer = self.answer
        yield answer
        while answer.cursor is not None:
            answer = self._ask({"cursor": answer.cursor, "limit": self._request["limit"]})
            yield answer

    def all(self, limit: int | None = None) -> Iterator[Result]:
        """Results of all pages, up to so many."""
        return islice((result for page in self.pages() for result in page.results), limit)
