"""Items' original bytes: where they were indexed from, or in the media store; always proven by their hash."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from indexer.errors import AccessDenied, FetchFailed, MediaError, MediaGone
from indexer.items import Location, Record, fragment, sha256_hex
from indexer.media.archives import Reader
from indexer.media.blobs import Blobs, Folder, blob_key, content_at, open_blobs
from indexer.media.decode import read_file
from indexer.media.entries import Limits
from indexer.media.object_urls import is_object
from indexer.media.sources import is_url, member_of, path_of
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.media.fetch import Fetcher
    from indexer.media.objects import Objects

UPLOAD = "upload:"
"""How the source of an uploaded item begins; its sha256 follows."""

_GONE = frozenset((404, 410))


class Originals:
    """Uploads and copies, kept by their content's hash, and a reader of any item's original.

    Thread-safe; a fork may use it. Close it after use, or leave it to the end of the process.

    Usage:
        originals = Originals.of(settings)
        with originals.open(record) as content:  # bytes, or of a large one the path
            ...
    """

    def __init__(self, blobs: Blobs, settings: Settings) -> None:
        self._blobs = blobs
        self._settings = settings
        self._limits = Limits(settings.max_bytes, settings.max_archive_bytes, settings.max_archive_members)
        self._lock = threading.Lock()
        self._fetcher: Fetcher | None = None
        self._objects: Objects | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the settings' media store.

        Raises:
            UsageError, MissingExtra: as for `open_blobs`.
        """
        return cls(open_blobs(settings), settings)

    @property
    def blobs(self) -> Blobs:
        """The media store."""
        return self._blobs

    def put(self, data: bytes) -> str:
        """Store an upload; gives its source, `upload:<sha256>`. It is there, whole, when this returns.

        Raises:
            MediaStoreUnavailable: the store does not take it.
        """
        sha256 = sha256_hex(data)
        self._blobs.put(data, sha256)
        return UPLOAD + sha256

    def keep(self, content: bytes | Path, sha256: str) -> bool:
        """Copy content of this hash, or a file's, into the store; False if it was there before.

        Raises:
            MediaGone: the file is no longer what was hashed.
            MediaStoreUnavailable: the store does not take it.
        """
        return self._blobs.put(content, sha256)

    @contextmanager
    def open(self, record: Record) -> Iterator[bytes | Path]:
        """An item's original: its bytes, or, if they are more than `blobs.IN_MEMORY`, a file that has them.

        Of a frame or page it is the whole file. The places it was indexed from come first, then the store; the hash of
        what is given is the record's. Only of a large file in a folder that still has the size and mtime it was indexed
        with, that is believed without reading it again. The file is there as long as the context is; it is the
        original itself, or a temporary copy.

        Raises:
            MediaGone: none of its places has it: it was moved, removed or changed; and there is no copy.
            FetchFailed, AccessDenied: a URL may have it, but its host does not answer or refuses; and there is no copy.
            MediaStoreUnavailable: only the store may have it, and is away.
        """
        away: list[MediaError] = []
        if (found := self._referenced(record, away)) is not None:
            yield found
            return
        with self._blobs.whole(record.sha256) as kept:
            if kept is not None:
                yield kept
                return
        if away:
            raise away[0]
        raise MediaGone("The original is no longer where it was indexed from, or has changed since.")

    def read(self, record: Record) -> bytes:
        """An item's original in memory.

        Raises:
            TooLarge: it has more than `max_bytes`.
            MediaGone, FetchFailed, MediaStoreUnavailable: as for `open`.
        """
        with self.open(record) as content:
            return content if isinstance(content, bytes) else read_file(content, max_bytes=self._settings.max_bytes)

    def read_source(self, source: str) -> bytes:
        """The content of an `upload:` source, on whichever machine it was uploaded.

        Raises:
            MediaGone: the store has no such upload, or it is damaged.
            TooLarge: it has more than `max_bytes`.
            MediaStoreUnavailable: the store does not answer.
        """
        with self._blobs.whole(source.removeprefix(UPLOAD)) as content:
            if content is None:
                raise MediaGone("The media store has no such upload.", remedy="Upload it again.")
            return content if isinstance(content, bytes) else read_file(content, max_bytes=self._settings.max_bytes)

    def path_of(self, source: str) -> Path | None:
        """Where the file of an `upload:` source is; None if the store is on no disk of this machine."""
        key = blob_key(source.removeprefix(UPLOAD))
        return self._blobs.root / key if isinstance(self._blobs, Folder) else None

    def discard(self, hashes: Iterable[str]) -> None:
        """Remove uploads and copies by their hashes; those that are not there are no error.

        Raises:
            MediaStoreUnavailable: the store does not answer.
        """
        self._blobs.remove([blob_key(sha256) for sha256 in hashes])

    def is_empty(self) -> bool:
        """Whether the store surely has nothing yet, not even thumbnails: its folder is still to be made.

        Raises:
            MediaStoreUnavailable: a folder that is not made by us is not there.
        """
        if not isinstance(self._blobs, Folder):
            return False
        self._blobs.check()
        return not self._blobs.root.exists()

    def close(self) -> None:
        """Let go of what reads URLs."""
        with self._lock:
            for reader in (self._fetcher, self._objects):
                if reader is not None:
                    reader.close()
            self._fetcher = self._objects = None

    def _referenced(self, record: Record, away: list[MediaError]) -> bytes | Path | None:
        """The original from the first place that has it; hosts that may, but do not answer, are noted in `away`."""
        for source, location in _sources(record):
            try:
                content = self._at(source, location, record.sha256)
            except (FetchFailed, AccessDenied) as error:
                if error.details.get("http_status") not in _GONE:
                    away.append(error)
            except (MediaError, OSError, ValueError):
                continue  # the next place may have it; a ValueError is a NUL in a path
            else:
                if content is not None:
                    return content
        return None

    def _at(self, source: str, location: Location, sha256: str) -> bytes | Path | None:
        """What is at a source, if it is the content of this hash."""
        if source.startswith(UPLOAD):
            return None  # the store has it under its hash
        if is_url(source):
            data = self._fetch(source)
        elif is_object(source):
            data = self._object(source)
        elif member := member_of(source):
            with Reader(self._limits) as reader:
                data = reader.read(*member)
        else:
            return content_at(path_of(source), sha256, (location.size, location.mtime_ns))
        return data if sha256_hex(data) == sha256 else None

    def _fetch(self, url: str) -> bytes:
        from indexer.media.fetch import Fetcher  # noqa: PLC0415  TLS and a resolver, for those who have URLs

        settings = self._settings
        with self._lock:
            if self._fetcher is None:
                self._fetcher = Fetcher(
                    max_bytes=settings.max_bytes, allow=settings.fetch_allowed, deadline=settings.fetch_deadline
                )
            fetcher = self._fetcher
        return fetcher.fetch(url).data

    def _object(self, url: str) -> bytes:
        from indexer.media.objects import Objects  # noqa: PLC0415  for those who have such sources

        with self._lock:
            if self._objects is None:
                self._objects = Objects(self._settings)
            objects = self._objects
        return objects.read(url)


def _sources(record: Record) -> Iterator[tuple[str, Location]]:
    """Where an item's file may be. A frame's or page's fragment is no part of that, though a name may look like one."""
    behind = fragment(record.seconds, record.page) if record.parent is not None else ""
    for location in record.locations:
        if behind and location.source.endswith(behind):
            yield location.source.removesuffix(behind), location
            if is_url(location.source) or is_object(location.source):
                continue
        yield location.source, location
