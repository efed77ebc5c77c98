"""Small WebP pictures of large ones, to look at."""

from __future__ import annotations

import io

from PIL import Image

from indexer.media.decode import decode


def thumbnail(data: bytes, size: int, max_pixels: int) -> bytes:
    """A WebP of the image in `data`, its longest side `size` pixels at most; metadata is left behind.

    Raises:
        MediaError: the image cannot be decoded.
    """
    image = decode(data, target=size, max_pixels=max_pixels).image
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    webp = io.BytesIO()
    image.save(webp, "WEBP", quality=80)
    return webp.getvalue()
