"""What is kept of pictures for reranking, in memory and on disk, so that a picture is looked at once.

A cache: what is not there, cut short or changed is computed again. Several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import structlog
from numpy.typing import NDArray

from indexer.errors import MediaStoreUnavailable
from indexer.items import Kind, Record, fragment
from indexer.media.blobs import Folder
from indexer.models.rerank.manifest import FeatureShapes
from indexer.models.rerank.reranker import Features, Reranker
from indexer.settings import Settings

_ROOM = 0.9
"""What is left of the cap after features were removed: so it is not to be done again at once."""
_RECOUNT = 0.02
"""The share of the cap after which the folder is counted again: other processes write to it, too."""
_PAUSE_SECONDS = 60.0
"""How long nothing is written after the folder refused: a full disk is said once a minute, not once a picture."""
_DIGEST_BYTES = 32
_INFINITE = np.uint16(0x7C00)
"""The exponent that half precision's values have which are not finite."""

_log = structlog.get_logger("rerank")


def feature_key(record: Record) -> str:
    """Names the picture of an item: 64 hex digits of its file's content, and of which part of the file it shows.

    An item of the same id may get another content, and then another key; the same content in another collection has
    the same.
    """
    part = fragment(record.seconds, record.page) if record.parent is not None else ""
    return hashlib.sha256(f"{record.sha256}{part}".encode()).hexdigest()


def discard_features(records: Iterable[Record], settings: Settings) -> None:
    """Remove from disk what is kept of items that were removed, for any reranker; of memory it goes by itself.

    Raises:
        MediaStoreUnavailable: the folder cannot be written to.
    """
    keys = [feature_key(record) for record in records if record.kind is not Kind.TEXT]
    folder = Folder(settings.rerank_folder)
    rerankers = settings.rerank_folder.iterdir() if keys and settings.rerank_folder.is_dir() else ()
    for reranker in rerankers:
        folder.remove(_path(reranker.name, key) for key in keys)


class FeatureCache:
    """Features of one reranker by `feature_key`. Thread-safe.

    On disk they lie in `<data>/rerank/<fingerprint>/`; the cap is on all rerankers' together, and may be passed by a
    few hundredths where several processes write. A file is the two arrays, and a hash of them and the key.
    """

    def __init__(self, reranker: Reranker, settings: Settings) -> None:
        self._shapes: FeatureShapes = reranker.shapes
        self._fingerprint = reranker.fingerprint
        self._memory_cap, self._disk_cap = settings.rerank_memory_bytes, settings.rerank_cache_bytes
        self._folder = Folder(settings.rerank_folder)
        self._memory: OrderedDict[str, Features] = OrderedDict()
        self._memory_bytes = 0
        self._lock = threading.Lock()
        self._trimming = threading.Lock()
        self._unseen: int | None = None
        """Bytes written since the folder was counted; None before it was."""
        self._paused_until = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._memory_bytes

    @property
    def takes(self) -> bool:
        """Whether more can be kept on disk."""
        return bool(self._disk_cap) and time.monotonic() >= self._paused_until

    def get(self, key: str) -> Features | None:
        """What is kept under a key; None if nothing sound is."""
        with self._lock:
            found = self._memory.get(key)
            if found is not None:
                self._memory.move_to_end(key)
        if found is None and (found := self._read(key)) is not None:
            self._remember(key, found)
        if found is not None and self._disk_cap:
            self._folder.touch(_path(self._fingerprint, key))
        return found

    def has(self, key: str) -> bool:
        """Whether something is kept under a key, sound or not."""
        with self._lock:
            if key in self._memory:
                return True
        try:
            return bool(self._disk_cap) and self._folder.size(_path(self._fingerprint, key)) is not None
        except MediaStoreUnavailable:
            return False

    def put(self, key: str, features: Features) -> None:
        """Keep features; where the disk refuses, in memory alone, with a warning."""
        self._remember(key, features)
        self.write(key, features)

    def write(self, key: str, features: Features) -> None:
        """Keep features on disk alone, for whoever looks for them later; where it refuses, with a warning."""
        if not self.takes:
            return
        content = features.features.tobytes() + features.queries.tobytes()
        content += self._digest(key, content)
        try:
            self._folder.write(_path(self._fingerprint, key), content)
            self._trim(len(content))
        except MediaStoreUnavailable as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            _log.warning("features not kept on disk", reason=error.message)

    def trim(self) -> None:
        """Remove from disk what is beyond the cap, which may have been a larger one before."""
        try:
            self._folder.trim("", self._disk_cap, down_to=int(_ROOM * self._disk_cap))
        except MediaStoreUnavailable as error:
            _log.warning("features not removed", reason=error.message)

    def _remember(self, key: str, features: Features) -> None:
        with self._lock:
            if (old := self._memory.pop(key, None)) is not None:
                self._memory_bytes -= old.nbytes
            if features.nbytes > self._memory_cap:
                return
            self._memory[key] = features
            self._memory_bytes += features.nbytes
            while self._memory_bytes > self._memory_cap:
                _, oldest = self._memory.popitem(last=False)
                self._memory_bytes -= oldest.nbytes

    def _read(self, key: str) -> Features | None:
        if not self._disk_cap:
            return None
        (tokens, width), (count, depth) = self._shapes.features, self._shapes.queries
        whole = 2 * (tokens * width + count * depth)
        try:
            content = self._folder.read(_path(self._fingerprint, key), max_bytes=whole + _DIGEST_BYTES)
        except MediaStoreUnavailable as error:
            _log.warning("features not read", reason=error.message)
            return None
        if content is None:
            return None
        if content[whole:] != self._digest(key, memoryview(content)[:whole]):
            _log.warning("features damaged", key=key)
            return None
        values: NDArray[np.float16] = np.frombuffer(content, dtype="<f2", count=whole // 2)
        if ((values.view(np.uint16) & _INFINITE) == _INFINITE).any():
            return None  # nobody who computes features writes such ones
        middle = tokens * width
        return Features(values[:middle].reshape(tokens, width), values[middle:].reshape(count, depth))

    def _digest(self, key: str, content: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(f"{self._fingerprint}/{key}/".encode())
        digest.update(content)
        return digest.digest()

    def _trim(self, added: int) -> None:
        if not self._trimming.acquire(blocking=False):
            return  # another thread is at it; what it does not see, it sees the next time
        try:
            self._unseen = None if self._unseen is None else self._unseen + added
            if self._unseen is None or self._unseen > _RECOUNT * self._disk_cap:
                self._folder.trim("", self._disk_cap, down_to=int(_ROOM * self._disk_cap))
                self._unseen = 0
        finally:
            self._trimming.release()


def _path(fingerprint: str, key: str) -> str:
    return f"{fingerprint}/{key[:2]}/{key}"
