"""The media store in an object store, through fsspec: S3 and what speaks like it, Google Cloud Storage, Azure.

A blob is one object, put in one request, or in parts that count once the last is there. Credentials and addresses are
those of the services' own environment variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), never part of the URL.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog

from indexer.errors import MediaStoreUnavailable, MissingExtra
from indexer.items import sha256_hex
from indexer.media.blobs import IN_MEMORY, Blobs, blob_key, hash_of
from indexer.media.cloud_errors import explained

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "memory": "fsspec"}
"""What a URL may begin with, and the package that speaks it. `memory` ends with its process: it is for tests."""

_MARK = "crosslens-media"
"""A key whose object says that the bucket is there: a missing one is otherwise told like a missing object."""
_SEEN_SECONDS = 60.0
_OPTIONS: dict[str, dict[str, Any]] = {
    # A request waits for it; botocore's own patience would be minutes.
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 1}}},
}
_TITLES = {"s3fs": "S3", "gcsfs": "Google Cloud Storage", "adlfs": "Azure Storage", "fsspec": "Memory"}

_log = structlog.get_logger("media")


class Remote(Blobs):
    """Blobs below a URL such as `s3://bucket/prefix`; the bucket has to be there.

    Raises:
        MissingExtra: what speaks to the store is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._scheme = url.partition("://")[0].lower()
        self._seen_until = 0.0
        needed = ("fsspec", SCHEMES[self._scheme])
        if any(importlib.util.find_spec(name) is None for name in needed):
            raise MissingExtra(f"{self._scheme}:// is spoken by {needed[1]}: pip install 'crosslens[cloud]'")

    def size(self, key: str) -> int | None:
        """Of the object, by its metadata."""
        with self._errors():
            try:
                return int(self._files.info(self._path(key))["size"])
            except FileNotFoundError:
                self._check_bucket()
                return None

    def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """In one request, for these bytes alone."""
        with self._errors():
            try:
                data: bytes = self._files.cat_file(self._path(key), start=0, end=max_bytes + 1)
            except FileNotFoundError:
                self._check_bucket()
                return None
            return data

    def write(self, key: str, content: bytes | Path) -> None:
        """In one request, or in parts that count once the last is there."""
        with self._errors():
            if isinstance(content, bytes):
                self._files.pipe_file(self._path(key), content)
            else:
                self._files.put_file(str(content), self._path(key))

    def remove(self, keys: Iterable[str]) -> None:
        """In one request where the store can."""
        paths = [self._path(key) for key in keys]
        if not paths:
            return
        with self._errors():
            try:
                self._files.rm(paths)
            except FileNotFoundError:
                for path in paths:
                    with contextlib.suppress(FileNotFoundError):
                        self._files.rm_file(path)

    @contextmanager
    def whole(self, sha256: str) -> Iterator[bytes | Path | None]:
        """A large one is fetched into a temporary file."""
        key = blob_key(sha256)
        size = self.size(key)
        if size is None:
            yield None
        elif size <= IN_MEMORY:
            data = self.read(key, max_bytes=IN_MEMORY)
            yield _sound(data, sha256) if data is not None else None
        else:
            with tempfile.TemporaryDirectory(prefix="crosslens-") as folder:
                path = Path(folder) / "original"
                with self._errors():
                    self._files.get_file(self._path(key), str(path))
                yield _sound(path, sha256)

    def check(self) -> None:
        """Whether the store answers, and the bucket is there."""
        with self._errors():
            self._seen_until = 0.0
            self._check_bucket()

    def _check_bucket(self) -> None:
        """Fail if the bucket is not there: then nothing is, and nothing is missing. Asked anew once a minute."""
        if time.monotonic() < self._seen_until:
            return
        mark = self._path(_MARK)
        try:
            self._files.info(mark)
        except FileNotFoundError:
            self._files.pipe_file(mark, b"Crosslens keeps originals and thumbnails here.\n")
        self._seen_until = time.monotonic() + _SEEN_SECONDS

    @cached_property
    def _files(self) -> Any:
        import fsspec  # noqa: PLC0415  it loads the store's own client

        # What another process put or removed has to be seen.
        options = {"use_listings_cache": False, **_OPTIONS.get(self._scheme, {})}
        files = fsspec.filesystem(self._scheme, **options)
        if self._scheme == "s3":
            files.retries = 1  # it would multiply botocore's
        return files

    def _path(self, key: str) -> str:
        return f"{self._url}/{key}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Whatever a store's client raises, as a store that is away; clients have no error in common."""
        try:
            yield
        except MediaStoreUnavailable:
            raise
        except Exception as error:
            title, bucket = _TITLES[SCHEMES[self._scheme]], self._url.partition("://")[2].partition("/")[0]
            why = explained(error, title=title, credentials=MediaStoreUnavailable.default_remedy, bucket=bucket)
            _log.warning("media store away", url=self._url, error=type(error).__name__, reason=why.message)
            raise MediaStoreUnavailable(f"The media store {self._url} is away. {why.message}") from error


def _sound(content: bytes | Path, sha256: str) -> bytes | Path | None:
    if (sha256_hex(content) if isinstance(content, bytes) else hash_of(content)) == sha256:
        return content
    _log.warning("damaged in the media store", sha256=sha256)
    return None
