"""The client itself: a server's address and key, and what can be asked of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from search_api.client.jobs import Job, Jobs
from search_api.client.searching import Filter, Found, Picture, Terms, reranking_seconds, search_body, sent_term
from search_api.client.transport import Transport
from search_api.client.uploads import Thing, form
from search_api.openapi.answers import (
    Collection,
    CollectionList,
    Facets,
    Item,
    SearchAnswer,
    SearchAnswers,
    Uploaded,
)
from search_api.openapi.moderation_answers import Moderated

_DEFAULT = "http://localhost:8000"
_CHUNK = 2**20


class Crosslens:
    """A Crosslens server. Close it, or use it as a context; threads may share it."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        collection: str = "media",
        timeout: float = 60.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`url` and `key` are CROSSLENS_URL's and CROSSLENS_KEY's unless given; `collection` is that of every call
        that names no other. `timeout` is in seconds, to which a search's deadline for reranking is added; `retries`
        counts the tries behind the first. `transport` is httpx's, for tests and proxies.
        """
        self._transport = Transport(
            url or os.environ.get("CROSSLENS_URL") or _DEFAULT,
            key=key or os.environ.get("CROSSLENS_KEY"),
            timeout=timeout,
            retries=retries,
            transport=transport,
        )
        self._collection = collection
        self.collections = Collections(self._transport)
        self.jobs = Jobs(self._transport)
        self.items = Items(self._transport, collection)

    def upload(
        self, *things: Thing, payload: Mapping[str, Any] | None = None, collection: str | None = None
    ) -> Uploaded:
        """Upload files and texts in one request; what cannot become an item has its error, and stops no other.

        `payload` is every item's, under its own.

        Raises:
            ApiError: nothing could be stored; it is the first one's error.
        """
        with form(things, payload or {}) as parts:
            return self._transport.ask(Uploaded, "POST", f"{self._path(collection)}/items", files=parts)

    def ingest(self, *sources: str | Path, collection: str | None = None) -> Job:
        """Queue folders, files, globs and URLs, as the server's workers reach them."""
        return self.jobs.submitted(f"{self._path(collection)}/ingest", [str(source) for source in sources])

    def search(
        self,
        text: str | None = None,
        *,
        image: Picture | None = None,
        item: str | None = None,
        vector: Sequence[float] | None = None,
        query: Terms = (),
        filter: Filter | None = None,
        limit: int = 10,
        collection: str | None = None,
        **options: Any,
    ) -> Found:
        """What is like a text, an image, an item, a vector, or all of them together; without any, everything.

        `query` holds whole terms, such as `{"text": "people", "weight": -0.5}`; `limit` is of a page; `options` are
        the request's other members: `kind`, `like`, `dislike`, `order_by`, `diversity`, `collapse`, `group_by`,
        `group_size`, `min_relevance`, `rerank`, `explain`, `exact`.
        """
        path = f"{self._path(collection)}/search"
        request = search_body(
            text, image=image, item=item, vector=vector, query=query, filter=filter, limit=limit, **options
        )

        def ask(body: dict[str, Any]) -> SearchAnswer:
            return self._transport.ask(SearchAnswer, "POST", path, json=body, more_seconds=reranking_seconds(body))

        return Found(ask, request)

    def search_many(
        self, searches: Sequence[Mapping[str, Any]], *, collection: str | None = None
    ) -> list[SearchAnswer]:
        """The answers to several searches with queries, asked in one request: each has `search`'s arguments."""
        bodies = [search_body(**search) for search in searches]
        path = f"{self._path(collection)}/search/batch"
        more = reranking_seconds(*bodies)
        return self._transport.ask(SearchAnswers, "POST", path, json={"searches": bodies}, more_seconds=more).answers

    def facets(
        self,
        *fields: str,
        filter: Filter | None = None,
        limit: int = 20,
        collection: str | None = None,
        **options: Any,
    ) -> Facets:
        """The values of fields, and how many items have each; `options` are `kind` and `group_by`."""
        body = {"fields": list(fields), "filter": filter, "limit": limit, **options}
        return self._transport.ask(Facets, "POST", f"{self._path(collection)}/facets", json=body)

    def moderate(
        self,
        things: Terms,
        *,
        policy: str | Mapping[str, Any] | None = None,
        collection: str | None = None,
    ) -> Moderated:
        """What a policy would do with texts and pictures, `{"text": ...}` or `{"image": ...}` each; nothing is stored.

        `policy` is a starting one's name, or one whole; else that of `collection`, or of the server's own collection.

        Raises:
            OSError: a picture cannot be read.
        """
        given = {"policy": policy, "collection": collection}
        asked = {name: value for name, value in given.items() if value is not None}
        body = {"items": [sent_term(thing) for thing in things], **asked}
        return self._transport.ask(Moderated, "POST", "/v1/moderate", json=body)

    def ready(self) -> bool:
        """Whether the server can answer; asked once."""
        return self._transport.is_ready()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _path(self, collection: str | None) -> str:
        return _path(collection or self._collection)


class Collections:
    """The collections of a server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Collection]:
        """Every collection, by name."""
        return self._transport.get(CollectionList, "/v1/collections").collections

    def get(self, name: str) -> Collection:
        """One collection."""
        return self._transport.get(Collection, _path(name))

    def create(
        self,
        name: str,
        *,
        model: str | None = None,
        fields: Mapping[str, str] | None = None,
        rerank_features: bool | None = None,
    ) -> Collection:
        """Make a collection; one that is there, unless with another model, stays. Fields are declared in either.

        With `rerank_features`, what a reranker sees in pictures is computed when they are ingested; without it, when
        they are first found. None leaves that as it is.
        """
        given = {"model": model, "fields": dict(fields or {}) or None, "rerank_features": rerank_features}
        asked = {name: value for name, value in given.items() if value is not None}
        return self._transport.ask(Collection, "PUT", _path(name), json=asked)

    def declare(
        self, name: str, fields: Mapping[str, str] | None = None, *, rerank_features: bool | None = None
    ) -> Collection:
        """Declare fields of a collection's items with their types (`{"trip": "keyword"}`), for filters and facets.

        Those that are declared as such already stay. `rerank_features` is as of `create`.

        Raises:
            ApiError: there is no such collection, no such type, or a field is another type's already.
        """
        self.get(name)  # what is asked below would make one
        return self.create(name, fields=fields, rerank_features=rerank_features)

    def delete(self, name: str) -> None:
        """Remove a collection with all that is in it."""
        self._transport.send("DELETE", _path(name))


class Items:
    """The items of a server's collections."""

    def __init__(self, transport: Transport, collection: str) -> None:
        self._transport = transport
        self._collection = collection

    def get(self, item: str, *, collection: str | None = None) -> Item:
        """One item."""
        return self._transport.get(Item, self._path(item, collection))

    def patch(self, item: str, payload: Mapping[str, Any], *, collection: str | None = None) -> Item:
        """Set fields of an item's payload; those that are None are removed, and all others stay."""
        path = self._path(item, collection)
        return self._transport.ask(Item, "PATCH", path, json={"payload": dict(payload)})

    def delete(self, item: str, *, collection: str | None = None) -> None:
        """Remove an item."""
        self._transport.send("DELETE", self._path(item, collection))

    def media(self, item: str, *, collection: str | None = None) -> bytes:
        """The original's bytes."""
        return self._transport.send("GET", f"{self._path(item, collection)}/media").content

    def download(self, item: str, path: str | Path, *, collection: str | None = None) -> None:
        """Write the original to a file, a piece at a time."""
        with (
            self._transport.stream("GET", f"{self._path(item, collection)}/media") as response,
            Path(path).open("wb") as file,
        ):
            for chunk in response.iter_bytes(_CHUNK):
                file.write(chunk)

    def thumbnail(self, item: str, size: int = 256, *, collection: str | None = None) -> bytes:
        """A WebP whose longest side has about so many pixels."""
        path = f"{self._path(item, collection)}/thumbnail"
        return self._transport.send("GET", path, params={"size": size}).content

    def _path(self, item: str, collection: str | None) -> str:
        return f"{_path(collection or self._collection)}/items/{quote(item, safe='')}"


def _path(collection: str) -> str:
    return f"/v1/collections/{quote(collection, safe='')}"
