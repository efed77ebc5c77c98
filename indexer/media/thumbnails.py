"""Small WebP pictures of large ones, to look at; made once, then kept in the media store.

Sizes are few, so that nobody can fill the store by asking for a thousand of one picture. What is kept is no original:
it can be made again, and in a folder those not seen for longest go when they are too many.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from typing import Self

import structlog
from PIL import Image

from indexer.errors import MediaStoreUnavailable
from indexer.items import Kind, Record, fragment
from indexer.media.blobs import Folder, blob_key
from indexer.media.decode import decode
from indexer.media.originals import Originals
from indexer.media.pictures import stored_picture
from indexer.settings import Settings

SIZES = (128, 256, 512, 1024)
"""Pixels of the longest side; between them, the next larger one is made."""

_FOLDER = "thumbnails"
_MAX_BYTES = 4 * 2**20
_ROOM = 0.9
"""What is left of the cap after thumbnails were removed: so it is not to be done again at once."""

_BLURRED_TO = 8
"""Pixels of a blurred thumbnail's longest side, before it is made large again."""

_log = structlog.get_logger("media")


class Thumbnails:
    """Thumbnails of items, made from their originals and kept beside them. Thread-safe."""

    def __init__(self, originals: Originals, settings: Settings) -> None:
        self._originals = originals
        self._settings = settings
        self._blobs = originals.blobs
        self._folder = originals.blobs if isinstance(originals.blobs, Folder) else None
        self._trimming = threading.Lock()
        self._bytes: int | None = None
        """What those in the folder come to: counted at the first that is added, then added to, so not exact."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those in the settings' media store."""
        return cls(Originals.of(settings), settings)

    def get(self, record: Record, size: int) -> bytes:
        """A WebP of an item's picture, its longest side `size` pixels or the next of `SIZES`; smaller ones as they are.

        One that is kept is given as it is; the original is not asked for then, and may be gone.

        Raises:
            MediaGone, FetchFailed, MediaStoreUnavailable: as for `Originals.open`.
            MediaError: the original cannot be decoded.
        """
        size = step_of(size)
        key = _key(record, size)
        try:
            kept = self._blobs.read(key, max_bytes=_MAX_BYTES)
            away = False
        except MediaStoreUnavailable:
            kept, away = None, True  # the original may be elsewhere
        if kept is not None and _is_whole(kept):
            if self._folder is not None:
                self._folder.touch(key)
            return kept
        webp = self.make(record, size)
        if not away and len(webp) <= _MAX_BYTES:
            self._add(key, webp)
        return webp

    def make(self, record: Record, size: int) -> bytes:
        """As `get`, for any size; it is made now and not kept."""
        image = stored_picture(record, originals=self._originals, settings=self._settings, target=size)
        return _webp(image, size)

    def discard(self, records: Iterable[Record]) -> None:
        """Remove those of items that were removed.

        Raises:
            MediaStoreUnavailable: the store does not answer.
        """
        self._blobs.remove([_key(record, size) for record in records if record.kind is not Kind.TEXT for size in SIZES])

    def _add(self, key: str, webp: bytes) -> None:
        try:
            self._blobs.write(key, webp)
            if self._folder is not None:
                self._trim(self._folder, len(webp))
        except MediaStoreUnavailable as error:
            _log.warning("thumbnail not kept", reason=error.message)

    def _trim(self, folder: Folder, added: int) -> None:
        if not self._trimming.acquire(blocking=False):
            return  # another thread is at it; what it does not see, it sees the next time
        try:
            cap = self._settings.thumbnail_bytes
            self._bytes = None if self._bytes is None else self._bytes + added
            if self._bytes is None or self._bytes > cap:
                self._bytes = folder.trim(_FOLDER, cap, down_to=int(_ROOM * cap))
        finally:
            self._trimming.release()


def step_of(size: int) -> int:
    """The size that is made for one that was asked for."""
    return next((step for step in SIZES if step >= size), SIZES[-1])


def thumbnail(data: bytes, size: int, max_pixels: int) -> bytes:
    """A WebP of the image in `data`, its longest side `size` pixels at most; metadata is left behind.

    Raises:
        MediaError: the image cannot be decoded.
    """
    return _webp(decode(data, target=size, max_pixels=max_pixels).image, size)


def blur(webp: bytes) -> bytes:
    """A thumbnail of which no more than colours and rough shapes is left.

    It is made tiny first: what a blur leaves of a large picture can be sharpened again to some degree, what eight
    pixels leave cannot.
    """
    with Image.open(io.BytesIO(webp), formats=["WEBP"]) as image:
        size = image.size
        tiny = image.convert("RGB")
        tiny.thumbnail((_BLURRED_TO, _BLURRED_TO), Image.Resampling.BOX)
    return _webp(tiny.resize(size, Image.Resampling.BICUBIC), max(size))


def _webp(image: Image.Image, size: int) -> bytes:
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    webp = io.BytesIO()
    image.save(webp, "WEBP", quality=80)
    return webp.getvalue()


def _key(record: Record, size: int) -> str:
    part = fragment(record.seconds, record.page) if record.parent is not None else ""
    behind = {"#t": "-t", "#p": "-p"}.get(part[:2], "") + part.partition("=")[2]
    return f"{_FOLDER}/{blob_key(record.sha256)}{behind}-{size}.webp"


def _is_whole(webp: bytes) -> bool:
    """Whether it is as long as its header says: a cache is not hashed, but what was cut is made again."""
    return webp[:4] == b"RIFF" and webp[8:12] == b"WEBP" and len(webp) == int.from_bytes(webp[4:8], "little") + 8
