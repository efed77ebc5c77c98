"""The media store: content by its own hash, in a folder or an object store, whole or not there at all.

A blob's key is `<sha256[:2]>/<sha256>`. Whoever reads one by its hash gets those very bytes or nothing: what lies
there was hashed. Beside them lie thumbnails, under keys of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path

import structlog

from indexer.errors import MediaGone, MediaStoreUnavailable, UsageError
from indexer.items import sha256_hex
from indexer.settings import Settings

IN_MEMORY = 16 * 2**20
"""Bytes of an original that is read into memory; a larger one is handed on as a file."""

_HASH = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_INCOMING = "incoming"
_ABANDONED_SECONDS = 24 * 3600.0
_CHUNK = 2**20

_log = structlog.get_logger("media")


def blob_key(sha256: str) -> str:
    """Where content of this hash lies.

    Raises:
        MediaGone: it is no hash, so that nothing can lie there; a source that a stranger wrote leads nowhere else.
    """
    if not _HASH.fullmatch(sha256):
        raise MediaGone("This is no upload: its name is no SHA-256.", remedy="Take the source from an item.")
    return f"{sha256[:2]}/{sha256}"


class Blobs(ABC):
    """Bytes by key. Thread-safe; a fork may use what was made before it.

    Every method raises `MediaStoreUnavailable` where the store is away, full or refuses: never is that a missing blob.
    """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes that lie there; None if nothing does."""

    @abstractmethod
    def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """What lies there, `max_bytes + 1` bytes of it at most; None if nothing does."""

    @abstractmethod
    def write(self, key: str, content: bytes | Path) -> None:
        """Put bytes, or a file's, there. A reader finds what was there before, or all of them."""

    @abstractmethod
    def remove(self, keys: Iterable[str]) -> None:
        """Remove these; those that are not there are no error."""

    @abstractmethod
    def whole(self, sha256: str) -> AbstractContextManager[bytes | Path | None]:
        """The content of this hash: its bytes, if they are many a file of them; None if it is not there, or damaged.

        The file is there as long as the context is, and is not to be written.
        """

    @abstractmethod
    def check(self) -> None:
        """Ask for a sign of life."""

    def put(self, content: bytes | Path, sha256: str) -> bool:
        """Keep content of this hash; it is there, whole, when this returns. False if it was before.

        Raises:
            MediaGone: a file that is no longer what was hashed.
        """
        key = blob_key(sha256)
        if isinstance(content, Path):
            _check_same(content, sha256)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        before = self.size(key)
        if before != size or not self._is_sound(key, sha256):
            self.write(key, content)
        return before is None

    def _is_sound(self, key: str, sha256: str) -> bool:  # noqa: ARG002  a folder looks closer
        """Whether what lies there, of the right size, is trusted to be what its key says."""
        return True


class Folder(Blobs):
    """Blobs in a folder, which several processes may share, over a network too.

    `make` has the folder made when it is first written to. Without it a folder that is not there is a store that is
    away: what should be mounted there is not.
    """

    def __init__(self, root: Path, *, make: bool = True) -> None:
        self.root = root.absolute()
        self._make = make
        self._swept = False
        self._lock = threading.Lock()

    def size(self, key: str) -> int | None:
        """As `Blobs.size`."""
        with self._errors("read"):
            try:
                return self._path(key).stat().st_size
            except FileNotFoundError:
                self._check_root()
                return None

    def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """As `Blobs.read`."""
        with self._errors("read"):
            try:
                with self._path(key).open("rb") as file:
                    return file.read(max_bytes + 1)
            except FileNotFoundError:
                self._check_root()
                return None

    def write(self, key: str, content: bytes | Path) -> None:
        """Written aside, synced, and renamed."""
        with self._errors("written to"):
            path, incoming = self._path(key), self.root / _INCOMING
            self._check_root()
            incoming.mkdir(parents=True, exist_ok=True)
            self._sweep(incoming)
            with tempfile.NamedTemporaryFile(dir=incoming, delete=False) as file:
                try:
                    if isinstance(content, bytes):
                        file.write(content)
                    else:
                        with content.open("rb") as source:
                            while chunk := source.read(_CHUNK):
                                file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # the new name survives a power cut, too
            finally:
                os.close(descriptor)

    def remove(self, keys: Iterable[str]) -> None:
        """As `Blobs.remove`."""
        with self._errors("written to"):
            self._check_root()
            for key in keys:
                self._path(key).unlink(missing_ok=True)

    @contextmanager
    def whole(self, sha256: str) -> Iterator[bytes | Path | None]:
        """A large one is the store's own file."""
        with self._errors("read"):
            try:
                found = content_at(self._path(blob_key(sha256)), sha256)
            except FileNotFoundError:
                self._check_root()
                found = None
            else:
                if found is None:
                    _log.warning("damaged in the media store", sha256=sha256)
        yield found

    def check(self) -> None:
        """Whether the folder is there."""
        with self._errors("read"):
            self._check_root()

    def touch(self, key: str) -> None:
        """Note that it was just used: `trim` takes it last."""
        with contextlib.suppress(OSError):  # it went meanwhile, or the folder is read-only
            os.utime(self._path(key))

    def trim(self, under: str, most: int, *, down_to: int) -> int:
        """If more than `most` bytes lie below a key's folder, remove the longest unused until `down_to` are left.

        Gives how many bytes are there then.
        """
        with self._errors("written to"):
            files: list[tuple[int, int, str]] = []
            for folder, _, names in os.walk(self._path(under)):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # another process removed it
                        status = (Path(folder) / name).stat()
                        files.append((status.st_mtime_ns, status.st_size, f"{folder}/{name}"))
            total = sum(size for _, size, _ in files)
            if total > most:
                for _, size, path in sorted(files):
                    if total <= down_to:
                        break
                    Path(path).unlink(missing_ok=True)
                    total -= size
            return total

    def _is_sound(self, key: str, sha256: str) -> bool:
        with self._errors("read"):
            return hash_of(self._path(key)) == sha256

    def _path(self, key: str) -> Path:
        return self.root / key

    def _check_root(self) -> None:
        if not self._make and not self.root.is_dir():
            raise MediaStoreUnavailable(
                f"The media store {self.root} is no folder.", remedy="Make it, or mount what should be there."
            )

    def _sweep(self, incoming: Path) -> None:
        """Remove what processes that were killed had begun to write."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        for path in incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    path.unlink()

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MediaStoreUnavailable(
                f"The media store {self.root} cannot be {done}: {error.strerror or error}."
            ) from error


def open_blobs(settings: Settings) -> Blobs:
    """The store of the settings; nothing is asked of it yet.

    Raises:
        UsageError: `media_url` names no kind of store that is known.
        MissingExtra: it needs an extra that is not installed.
    """
    url = settings.media_url
    if url is None:
        return Folder(settings.uploads_folder)
    match = _URL.match(url)
    if match is None:
        return Folder(Path(url).expanduser(), make=False)
    from indexer.media.remote import SCHEMES, Remote  # noqa: PLC0415  fsspec, for those who have such a store

    if match[1].lower() not in SCHEMES:
        raise UsageError(
            f"CROSSLENS_MEDIA_URL begins with {match[0]!r}.", remedy="Give it a folder, or s3://, gs:// or az://."
        )
    return Remote(url)


def content_at(path: Path, sha256: str, known: tuple[int | None, int | None] | None = None) -> bytes | Path | None:
    """A file if it has the content of this hash: its bytes, or, beyond `IN_MEMORY`, its path. None if it has not.

    What is read into memory is hashed. A larger file is hashed once for as long as neither size nor times change; but
    one of the size and mtime in nanoseconds of `known`, as when it was indexed, is taken to be the one that was hashed
    then, as by whoever skips what has not changed.

    Raises:
        OSError: it cannot be read; also FileNotFoundError.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return None  # a pipe would hang
    if status.st_size <= IN_MEMORY:
        with path.open("rb") as file:
            data = file.read(IN_MEMORY + 1)
        return data if sha256_hex(data) == sha256 else None
    if (status.st_size, status.st_mtime_ns) == known or hash_of(path) == sha256:
        return path
    return None


def hash_of(path: Path) -> str:
    """A file's SHA-256, computed once for as long as neither its size nor its times change.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _hash_of(str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=4096)
def _hash_of(path: str, *_version: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_same(path: Path, sha256: str) -> None:
    try:
        same = hash_of(path) == sha256
    except OSError as error:
        raise MediaGone(f"The file went while it was indexed: {error.strerror}.") from error
    if not same:
        raise MediaGone("The file was changed while it was indexed.", remedy="Ingest it again.")
