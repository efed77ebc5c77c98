"""Where an item's original bytes are: in the folder or archive it was ingested from, or among the uploads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from indexer.errors import MediaError, MediaGone
from indexer.items import Record, sha256_hex
from indexer.media.archives import Reader
from indexer.media.decode import read_file
from indexer.media.discover import member_of, path_of
from indexer.media.entries import Limits

UPLOAD = "upload:"
"""How the source of an uploaded item begins; its sha256 follows."""


class Originals:
    """Uploads, stored by their content's hash, and a reader of any item's original. Thread-safe.

    `limits` are those of archives; without them, the settings' defaults.
    """

    def __init__(self, folder: Path, *, max_bytes: int, limits: Limits | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._limits = limits or Limits(max_bytes)

    def put(self, data: bytes) -> str:
        """Store an upload; gives its source, `upload:<sha256>`. It is on disk, whole, when this returns."""
        sha256 = sha256_hex(data)
        path = self._path(sha256)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        return UPLOAD + sha256

    def read(self, record: Record) -> bytes:
        """An item's original bytes, from whichever of its locations still has them.

        Raises:
            MediaGone: none has: the file was moved, removed or changed.
        """
        for location in record.locations:
            try:
                data = self._read(location.source)
            except MediaError:
                continue  # the next location may have it
            if sha256_hex(data) == record.sha256:
                return data
        raise MediaGone("The original is no longer where it was indexed from, or has changed since.")

    def _read(self, source: str) -> bytes:
        if source.startswith(UPLOAD):
            return read_file(self.path_of(source), max_bytes=self._max_bytes)
        if member := member_of(source):
            with Reader(self._limits) as reader:
                return reader.read(*member)
        return read_file(path_of(source), max_bytes=self._max_bytes)

    def path_of(self, source: str) -> Path:
        """Where the file of an `upload:` source is."""
        return self._path(source.removeprefix(UPLOAD))

    def discard(self, source: str) -> None:
        """Remove an upload that became no item."""
        self.path_of(source).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256
