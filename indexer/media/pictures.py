"""The picture of a stored item, from its original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.items import Kind, Record
from indexer.media.decode import decode, read_file
from indexer.media.frames import Limits, frame_at

if TYPE_CHECKING:
    from PIL import Image

    from indexer.media.originals import Originals
    from indexer.settings import Settings


def stored_picture(record: Record, *, originals: Originals, settings: Settings, target: int) -> Image.Image:
    """An item's picture, frame or page, RGB and upright, its shortest side at least `target` pixels if it has so many.

    Raises:
        MediaGone, FetchFailed, MediaStoreUnavailable: as for `Originals.open`.
        MediaError: the original cannot be decoded.
    """
    with originals.open(record) as content:
        if record.kind in {Kind.VIDEO, Kind.PAGE}:
            limits = Limits.of(settings)
            return frame_at(content, seconds=record.seconds, page=record.page, limits=limits, target=target)
        data = content if isinstance(content, bytes) else read_file(content, max_bytes=settings.max_bytes)
    return decode(data, target=target, max_pixels=settings.max_pixels).image
