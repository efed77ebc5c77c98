"""Where an item's original bytes are: in the folder it was ingested from, or among the uploads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from indexer.errors import MediaError, MediaGone
from indexer.items import Record, sha256_hex
from indexer.media.decode import read_file
from indexer.media.discover import path_of

UPLOAD = "upload:"
"""How the source of an uploaded item begins; its sha256 follows."""


class Originals:
    """Uploads, stored by their content's hash, and a reader of any item's original. Thread-safe."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

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
            uploaded = location.source.startswith(UPLOAD)
            path = self._path(record.sha256) if uploaded else path_of(location.source)
            try:
                data = read_file(path, max_bytes=self._max_bytes)
            except MediaError:
                continue  # the next location may have it
            if sha256_hex(data) == record.sha256:
                return data
        raise MediaGone("The original is no longer where it was indexed from, or has changed since.")

    def path_of(self, source: str) -> Path:
        """Where the file of an `upload:` source is."""
        return self._path(source.removeprefix(UPLOAD))

    def discard(self, source: str) -> None:
        """Remove an upload that became no item."""
        self.path_of(source).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256
