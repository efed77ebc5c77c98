"""Asking a server instead of a data folder of this machine: `--url` of `search`, `jobs` and `collections`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexer.items import Location, Record, now
from search_api.client import Crosslens
from search_api.openapi.answers import Answer, Result, SearchAnswer
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
        stages=answer.stages,
        warnings=answer.warnings,
        reranked=answer.reranked,
    )


@contextmanager
def jobs(url: str, key: str | None) -> Iterator[RemoteJobs]:
    """The jobs of a server, for as long as the context lasts."""
    with Crosslens(url, key) as client:
        yield RemoteJobs(client)


class RemoteJobs:
    """A server's jobs as `crosslens jobs` asks for them (`workers.cli.jobs.Asked`); all raise `ApiError`."""

    def __init__(self, client: Crosslens) -> None:
        self._jobs = client.jobs

    def list(self, limit: int) -> list[dict[str, Any]]:
        """The newest, the newest first."""
        return [_document(job) for job in self._jobs.list(limit)]

    def get(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return _document(self._jobs.get(job_id))

    def failures(self, job_id: str) -> Iterator[dict[str, Any]]:
        """What failed in a job."""
        return map(_document, self._jobs.failures(job_id))

    def retry(self, job_id: str) -> dict[str, Any]:
        """A new job of what failed in one."""
        return _document(self._jobs.retry(job_id))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job; it as it is then."""
        return _document(self._jobs.cancel(job_id))


@contextmanager
def collections(url: str, key: str | None) -> Iterator[RemoteCollections]:
    """The collections of a server, for as long as the context lasts."""
    with Crosslens(url, key) as client:
        yield RemoteCollections(client)


class RemoteCollections:
    """A server's collections as `crosslens collections` asks for them; all raise `ApiError`."""

    def __init__(self, client: Crosslens) -> None:
        self._collections = client.collections

    def list(self) -> list[Mapping[str, Any]]:
        """All, by name."""
        return [_document(each) for each in self._collections.list()]

    def get(self, name: str) -> Mapping[str, Any]:
        """One of them."""
        return _document(self._collections.get(name))

    def create(
        self, name: str, model: str | None, fields: Mapping[str, str], rerank_features: bool | None
    ) -> Mapping[str, Any]:
        """Make one; it, also if it was there."""
        return _document(self._collections.create(name, model=model, fields=fields, rerank_features=rerank_features))

    def declare(self, name: str, fields: Mapping[str, str], rerank_features: bool | None) -> Mapping[str, Any]:
        """Declare fields of one; it as it is then."""
        return _document(self._collections.declare(name, fields, rerank_features=rerank_features))

    def delete(self, name: str) -> None:
        """Remove one."""
        self._collections.delete(name)


def _document(answer: Answer) -> dict[str, Any]:
    return answer.model_dump(mode="json", exclude_unset=True)


def _result(result: Result) -> SearchResult:
    # Of an item's record, an answer has what is shown.
    record = Record(
        kind=result.kind, sha256="", locations=[Location(source=result.source)], bytes=0, media_type="",
        text=result.text, added_at=now(),
    )  # fmt: skip
    return SearchResult(result.id, result.score, result.relevance, record, result.payload)
