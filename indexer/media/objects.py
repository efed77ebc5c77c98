"""Objects in cloud storage as sources: `s3://`, `gs://` and `az://` URLs of an object, a folder, a glob or a bucket.

A URL names a bucket and a key and nothing else: what stands after the bucket is the key to the last character, `?`, `#`
and `%` included. Where the storage is and who asks comes from the environment, in each library's own way. Listings are
read a page at a time, and nothing is kept on disk.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from glob import has_magic
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

from indexer.errors import (
    AccessDenied,
    EmptyFile,
    MediaError,
    MediaGone,
    MissingExtra,
    SourceNotFound,
    TooLarge,
    Unreadable,
    UrlRefused,
)
from indexer.media.cloud_errors import explained
from indexer.media.object_urls import ObjectUrl, check_extra, missing_extra
from indexer.report import Counts, Failure
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.media.clouds import Cloud, Page, Stored

_LOOK = "Check the spelling; the storage's own tool shows what is there."
_MAGIC = re.compile(r"[*?[]")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Object:
    """An object that may become an item."""

    source: str
    size: int
    mtime_ns: int
    """With `size`, what tells that the object has not changed."""


class Objects:
    """Lists and reads objects, by what `settings` allow of size and time. Thread-safe; close it after use.

    Usage:
        with Objects(settings) as objects:
            for each in objects.listed("s3://bucket/photos", suffixes=IMAGE_SUFFIXES, counts=report):
                data = objects.read(each.source, size=each.size)
    """

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_bytes
        self._seconds = settings.fetch_deadline
        self._lock = threading.Lock()
        self._clouds: dict[str, Cloud] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            clouds, self._clouds = list(self._clouds.values()), {}
        for cloud in clouds:
            cloud.close()

    def listed(self, url: str, *, suffixes: Collection[str], counts: Counts) -> Iterator[Object | Failure]:
        """What a URL names: one object, those that a glob matches, or a folder's or bucket's media.

        An object that is named, or matched by a glob as a file would be, is always given. In a folder it is one whose
        name has one of the `suffixes`, in lower case; others, and what is hidden (`.name`, or below a `.folder/`), are
        passed over and counted. They come in the storage's order, a page in memory. The URL is looked up at once.
        A listing that breaks off is one failure, its last.

        Raises:
            UrlRefused, MissingExtra: see `check_object`.
            SourceNotFound: there is no such bucket, object or folder, or the glob matches nothing.
            AccessDenied, FetchFailed, FetchTimeout: the storage does not let itself be listed.
        """
        where = ObjectUrl.parse(url)
        if where.key and not where.key.endswith("/"):
            try:
                return iter((_found(where, self._ask(where, lambda cloud: cloud.stat(where.bucket, where.key))),))
            except (MediaGone, AccessDenied):
                pass  # a folder or a glob; whoever may not list either learns so from the listing
        try:
            found = self._matched(where) if has_magic(where.key) else self._below(where, suffixes, counts)
        except MediaGone as error:
            raise SourceNotFound(
                f"There is no bucket {where.bucket!r}.", remedy="Check its name and account."
            ) from error
        return _to_the_end(where, found)

    def read(self, url: str, *, size: int | None = None) -> bytes:
        """An object's content as it is stored; `size` is what a listing said, else it is asked for first.

        Raises:
            UrlRefused: see `ObjectUrl.parse`, or it names a bucket alone; nothing was asked.
            MediaGone: there is no such object or bucket.
            AccessDenied: there are no credentials, or they do not allow it.
            TooLarge: it has more bytes than the cap; no more were read.
            EmptyFile: it has none.
            FetchFailed, FetchTimeout: the storage does not answer as it should, or not in time; it may another time.
            Unreadable: it is archived, or what reads it is not installed.
        """
        where = ObjectUrl.parse(url)
        if not where.key:
            raise UrlRefused(f"{url!r} is a bucket, not an object in it.", remedy="Name the object as well.")
        try:
            if size is None:
                size = self._ask(where, lambda cloud: cloud.stat(where.bucket, where.key)).size
            data = b""
            if 0 < size <= self._max_bytes:
                # One more than the cap: it may have grown since its size was told.
                most = self._max_bytes + 1
                data = self._ask(where, lambda cloud: cloud.read(where.bucket, where.key, most))
        except MissingExtra as error:
            raise Unreadable(error.message, remedy=error.remedy) from error
        if max(size, len(data)) > self._max_bytes:
            raise TooLarge(f"The object has more than {self._max_bytes:,} bytes.")
        if not data:
            raise EmptyFile("The object is empty.")
        return data

    def _below(self, where: ObjectUrl, suffixes: Collection[str], counts: Counts) -> Iterator[Object]:
        """The media below a folder. The first page is read at once: it tells whether there is such a folder."""
        prefix = where.key if where.key.endswith("/") or not where.key else f"{where.key}/"
        pages = self._pages(where, prefix)
        first = next((page for page in pages if page), [])
        if not first and prefix:
            raise SourceNotFound(f"There is no {str(where)!r}.", remedy=_LOOK)

        def chosen(stored: Stored) -> bool:
            name = stored.key.rpartition("/")[2]
            if not name:
                return False  # what stands for an empty folder
            is_chosen = PurePosixPath(name).suffix.lower() in suffixes and not _is_hidden(stored.key[len(prefix) :])
            counts.passed_over += not is_chosen
            return is_chosen

        return (_found(where, each) for page in itertools.chain((first,), pages) for each in page if chosen(each))

    def _matched(self, where: ObjectUrl) -> Iterator[Object]:
        """The objects that a glob matches. The first is looked for at once: there may be none."""
        prefix = _MAGIC.split(where.key, maxsplit=1)[0]
        base = prefix.rfind("/") + 1
        pattern = where.key[base:].split("/")
        pages = self._pages(where, prefix, flat=len(pattern) > 1 or pattern == ["**"])
        found = (
            _found(where, each)
            for page in pages
            for each in page
            if _matches(pattern, (path := each.key[base:]).split("/")) and not (_is_hidden(path) or path.endswith("/"))
        )
        first = next(found, None)
        if first is None:
            raise SourceNotFound(f"The pattern {str(where)!r} matches nothing.", remedy=_LOOK)
        return itertools.chain((first,), found)

    def _pages(self, where: ObjectUrl, prefix: str, *, flat: bool = True) -> Iterator[list[Stored]]:
        """A listing, page by page; there is at least one."""
        after: str | None = None
        while True:
            page, after = self._ask(where, partial(_page, where.bucket, prefix, after, flat))
            yield page
            if after is None:
                return

    def _ask(self, where: ObjectUrl, question: Callable[[Cloud], Coroutine[Any, Any, _T]]) -> _T:
        """What the storage answers; its errors as ours."""
        cloud = self._cloud(where.scheme)
        from fsspec.asyn import sync  # noqa: PLC0415  of the extra

        try:
            answer: _T = sync(cloud.fs.loop, question, cloud, timeout=self._seconds)
        except Exception as error:  # noqa: BLE001  the libraries have no error in common; `explained` tells them apart
            # Not `from error`: what a library says may hold credentials, and a log prints all of a chain.
            raise explained(error, title=cloud.title, credentials=cloud.credentials, bucket=where.bucket) from None
        return answer

    def _cloud(self, scheme: str) -> Cloud:
        with self._lock:
            if scheme not in self._clouds:
                check_extra(scheme)
                from indexer.media.clouds import CLOUDS  # noqa: PLC0415  opening one loads its library

                kind = CLOUDS[scheme]
                try:
                    self._clouds[scheme] = kind()
                except ImportError as error:
                    raise missing_extra(scheme) from error
                except Exception:  # noqa: BLE001  whatever a library makes of a wrong configuration
                    problem = f"{kind.title} is not configured here, or wrongly."
                    raise AccessDenied(problem, remedy=kind.credentials) from None
            return self._clouds[scheme]


async def _page(bucket: str, prefix: str, after: str | None, flat: bool, cloud: Cloud) -> Page:
    return await cloud.page(bucket, prefix, after, flat=flat)


def _to_the_end(where: ObjectUrl, found: Iterator[Object]) -> Iterator[Object | Failure]:
    """The objects; if their listing breaks off, that as the last."""
    try:
        yield from found
    except MediaError as error:
        yield Failure(str(where), error)


def _found(where: ObjectUrl, stored: Stored) -> Object:
    return Object(str(replace(where, key=stored.key)), stored.size, stored.version)


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _matches(pattern: list[str], names: list[str]) -> bool:
    """Whether a path's parts match a pattern's, of which `**` stands for any number.

    It takes steps in proportion to both: as one regular expression, a pattern could take for ever.
    """
    after = {0}  # how many of the pattern's parts may be done with
    for name in names:
        after = _with_none(pattern, after)
        after = {
            at + (pattern[at] != "**")
            for at in after
            if at < len(pattern) and (pattern[at] == "**" or fnmatchcase(name, pattern[at]))
        }
    return len(pattern) in _with_none(pattern, after)


def _with_none(pattern: list[str], after: set[int]) -> set[int]:
    """These places, and those beyond a `**` that stands for no part."""
    found = set(after)
    for start in after:
        for at in itertools.takewhile(lambda at: pattern[at] == "**", range(start, len(pattern))):
            found.add(at + 1)
    return found
