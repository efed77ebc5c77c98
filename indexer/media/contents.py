"""The bytes of candidates: of files, of archives' members, of what URLs give, and of objects in cloud storage."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from indexer.errors import MediaError, MediaGone
from indexer.flow import map_ahead
from indexer.media.archives import Reader
from indexer.media.decode import read_file
from indexer.media.discover import Candidate
from indexer.media.entries import Limits
from indexer.media.formats import IMAGE_SUFFIXES, SEQUENCE_TYPES, SNIFF_BYTES, sniff
from indexer.media.object_urls import is_object
from indexer.media.originals import UPLOAD, Originals
from indexer.media.sources import is_url, member_of, path_of
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.media.fetch import Fetcher
    from indexer.media.objects import Objects

_FETCHES = 8
"""URLs and objects that are fetched at once; a host has its own, lower number."""


class Contents:
    """Reads candidates, best in the order in which they were found. For one thread; close it after use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = ExitStack()
        limits = Limits(settings.max_bytes, settings.max_archive_bytes, settings.max_archive_members)
        self._members = self._stack.enter_context(Reader(limits))
        self._originals = Originals.of(settings)
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._fetches: Fetcher | None = None
        self._clouds: Objects | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, bytes | Path | MediaError]]:
        """Each candidate with its bytes, a text's in UTF-8, or with the reason that there are none.

        A video or PDF on disk is given by its path: it may be larger than what is read into memory.
        """
        away = [each for each in candidates if each.text is None and _is_away(each.source)]
        fetched = self._fetched(away) if away else None
        for candidate in candidates:
            if candidate.text is not None:
                yield candidate, candidate.text.encode("utf-8", "replace")
            elif fetched is not None and _is_away(candidate.source):
                yield candidate, next(fetched)
            else:
                try:
                    content: bytes | Path | MediaError = self._local(candidate)
                except MediaError as error:
                    content = error
                yield candidate, content

    def _local(self, candidate: Candidate) -> bytes | Path:
        if candidate.path is None and candidate.source.startswith(UPLOAD):
            return self._originals.read_source(candidate.source)
        if candidate.member is None:
            path = candidate.path or path_of(candidate.source)
            return path if _is_long(path) else read_file(path, max_bytes=self._settings.max_bytes)
        inside = member_of(candidate.source)
        if inside is None:
            raise MediaGone("The archive is no longer there.")
        return self._members.read(*inside, place=candidate.member, version=(candidate.size, candidate.mtime_ns))

    def _fetched(self, candidates: list[Candidate]) -> Iterator[bytes | MediaError]:
        if self._pool is None:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(_FETCHES, "fetch"))
        return map_ahead(self._pool, self._fetch, candidates, ahead=_FETCHES)

    def _fetch(self, candidate: Candidate) -> bytes | MediaError:
        try:
            if is_object(candidate.source):
                return self._objects().read(candidate.source, size=candidate.size)
            return self._fetcher().fetch(candidate.source).data
        except MediaError as error:
            return error

    def _fetcher(self) -> Fetcher:
        from indexer.media.fetch import Fetcher  # noqa: PLC0415  TLS and a resolver, for those who have URLs

        settings = self._settings
        with self._lock:
            if self._fetches is None:
                self._fetches = self._stack.enter_context(
                    Fetcher(
                        max_bytes=settings.max_bytes, allow=settings.fetch_allowed, deadline=settings.fetch_deadline
                    )
                )
            return self._fetches

    def _objects(self) -> Objects:
        from indexer.media.objects import Objects  # noqa: PLC0415  for those who have cloud storage

        with self._lock:
            if self._clouds is None:
                self._clouds = self._stack.enter_context(Objects(self._settings))
            return self._clouds


def _is_away(source: str) -> bool:
    return is_url(source) or is_object(source)


def _is_long(path: Path) -> bool:
    """Whether a file is read piece by piece: a video or a PDF, whatever its size."""
    if path.suffix.lower() in IMAGE_SUFFIXES or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return SEQUENCE_TYPES.get(sniff(file.read(SNIFF_BYTES)) or "") in {"video", "document"}
    except OSError:
        return False  # reading it will say why
