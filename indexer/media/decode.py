"""Files into RGB images, within limits: every file is hostile until it is decoded.

The type is told by content. The pixel cap is checked from the header, before any pixel is decoded. A file that ends
early is refused, never half-read. Only the one plugin for the sniffed type is tried. JPEG is decoded at a reduced
scale, at least twice what is asked for, which costs a sixth of the time at 12 megapixels and 0.2 grey levels.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageFile

from indexer.errors import (
    EmptyFile,
    MediaError,
    NotAnImage,
    TooLarge,
    TooManyPixels,
    Truncated,
    Unreadable,
    UnsupportedFormat,
)
from indexer.media.formats import PILLOW_FORMATS, SNIFF_BYTES, sniff

# Our own cap is checked from the header, for every format; Pillow's, which only warns at first, is then in the way.
Image.MAX_IMAGE_PIXELS = None
# What Pillow warns of (odd metadata, mostly) is either harmless or becomes an error below.
warnings.filterwarnings("ignore", module=r"PIL\.")

_DRAFT_SCALE = 2
_ORIENTATION = 0x0112
_ENDS_EARLY = ("truncated", "premature", "not enough", "end of file", "eof", "incomplete", "broken data", "cannot read")
_SIXTEEN_BIT = frozenset(("I;16", "I;16L", "I;16B", "I;16N"))


@dataclass(frozen=True)
class Decoded:
    """A decoded image."""

    image: Image.Image
    """RGB, upright; a reduced one if a target allowed it."""
    width: int
    height: int
    """Of the full image, as seen: after EXIF orientation."""
    box: tuple[float, float, float, float]
    """The part of `image` that the full image fills. A reduction rounds up: 4001 pixels become 501 at an eighth, of
    which the last is an eighth full. Who takes it for a whole one shifts a centre crop by a pixel."""
    media_type: str

    @classmethod
    def whole(cls, image: Image.Image) -> Self:
        """An RGB image that is here already, at full size."""
        return cls(image, image.width, image.height, (0, 0, *image.size), "image/x-raw")


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """A file's content.

    Raises:
        TooLarge: it has more bytes than the cap; none was read.
        EmptyFile: it has none.
        Unreadable: it cannot be opened or read.
    """
    try:
        with path.open("rb") as file:
            # One more than the cap: a file may grow after its size was asked for.
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(f"The file cannot be read: {reason}.") from error
    if len(data) > max_bytes:
        raise TooLarge(f"The file has more than {max_bytes:,} bytes.")
    if not data:
        raise EmptyFile("The file is empty.")
    return data


def decode(data: bytes, *, target: int | None = None, max_pixels: int) -> Decoded:
    """Decode one image to upright RGB; transparency lies over white, animations give their first frame.

    `target` is the shortest side that will be used: a JPEG of more than twice that is decoded at a reduced scale.
    16-bit and float greys are scaled to 8 bits, CMYK is converted as Pillow does it, without its profile.

    Raises:
        EmptyFile, NotAnImage, UnsupportedFormat: by content, nothing was decoded.
        TooManyPixels: by the header, nothing was decoded.
        Truncated: it ends before its image does.
        Unreadable: it cannot be decoded for another reason.
    """
    media_type = _media_type(data)
    _check_end(data, media_type)
    with _errors_of_pillow():
        with _opened(data, media_type) as opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise TooManyPixels(f"The image declares {width:,} x {height:,} pixels; {max_pixels:,} is the cap.")
            if width < 1 or height < 1:
                raise Unreadable("The image declares no pixels.")
            orientation = _orientation(opened)
            fills = _reduce(opened, target) if media_type == "image/jpeg" and target is not None else opened.size
            opened.load()
            image = _rgb(opened)
        box = _turned_box((0, 0, *fills), image.size, orientation)
        image = _upright(image, orientation)
    if orientation >= 5:  # these lie on their side
        width, height = height, width
    return Decoded(image, width, height, box, media_type)


def _reduce(opened: ImageFile.ImageFile, target: int) -> tuple[float, float]:
    """Have a JPEG decoded at a reduced scale if it is large; give the width and height that it will fill, exactly."""
    reduced = opened.draft(None, (_DRAFT_SCALE * target, _DRAFT_SCALE * target))
    if reduced is None:
        return opened.size
    _mode, (_left, _top, width, height) = reduced
    return width, height


Box = tuple[float, float, float, float]


def _turned_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box of an image of this size lies once the image is upright."""
    left, top, right, bottom = box
    width, height = size
    if orientation in {2, 3, 7, 8}:  # left and right change places; for those on their side, before the transposition
        left, right = width - right, width - left
    if orientation in {3, 4, 6, 7}:
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)


def _media_type(data: bytes) -> str:
    if not data:
        raise EmptyFile("The file is empty.")
    media_type = sniff(data[:SNIFF_BYTES])
    if media_type is None:
        raise NotAnImage("The content is no image that is known.")
    if media_type not in PILLOW_FORMATS:
        raise UnsupportedFormat(f"The content is {media_type}, which is not read.")
    return media_type


def _opened(data: bytes, media_type: str) -> ImageFile.ImageFile:
    form = PILLOW_FORMATS[media_type]
    if form == "HEIF":
        import pillow_heif  # noqa: PLC0415  25 ms that only who has such files pays

        pillow_heif.register_heif_opener(thumbnails=False)
    return Image.open(io.BytesIO(data), formats=[form])


@contextmanager
def _errors_of_pillow() -> Iterator[None]:
    """Whatever Pillow and its decoders raise over a bad file, as an error of ours."""
    try:
        yield
    except MediaError:
        raise
    except (EOFError, struct.error, IndexError) as error:
        raise Truncated("The file ends before its image does.") from error
    except (
        OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError,
        MemoryError, AssertionError, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        if any(sign in reason.lower() for sign in _ENDS_EARLY):
            raise Truncated("The file ends before its image does.") from error
        raise Unreadable(f"The image cannot be decoded: {reason[:200]}.") from error


def _check_end(data: bytes, media_type: str) -> None:
    """Refuse what ends early where a decoder would fill the rest with grey, or not look."""
    tail = data.rstrip(b"\0\r\n ")
    match media_type:
        case "image/jpeg":
            # Some cameras and editors append data after the end mark, so it is searched for, not expected last.
            whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
        case "image/png":
            whole = b"IEND" in data[-(2**20) :]
        case "image/gif":
            whole = tail.endswith(b";") or b"\0;" in data[-(2**16) :]
        case "image/webp":
            whole = len(data) >= int.from_bytes(data[4:8], "little") + 8 - 1  # a padding byte may be missing
        case "image/bmp":
            declared = int.from_bytes(data[2:6], "little")
            whole = declared <= len(data) or declared > 2**31
        case "image/avif" | "image/heic":
            whole = _boxes_fit(data)
        case _:
            whole = True
    if not whole:
        raise Truncated("The file ends before its image does.")


def _boxes_fit(data: bytes) -> bool:
    """Whether the top-level boxes of an ISO base media file fill it (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size == 0:  # to the end of the file
            return True
        if size < 8:
            return False
        at += size
    return at <= len(data)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it makes no sense. HEIF and AVIF decoders apply it."""
    if image.format in {"HEIF", "AVIF"}:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, EOFError):
        return 1  # broken metadata is no reason to refuse the picture
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: deep greys scaled, transparency over white."""
    if image.mode in _SIXTEEN_BIT or image.mode in {"I", "F"}:
        image = _eight_bit(image)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    # A copy even of RGB: what is given must not hang on the opened file.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Greys of 16 or 32 bits or of floats as 8 bits: by the type's range, or by the picture's own beyond it."""
    values = np.asarray(image, dtype=np.float32)
    if not np.isfinite(values).all():
        raise Unreadable("The image has values that are no numbers.")
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if image.mode == "F" and high <= 1.0 and low >= 0.0:
        top = 1.0
    else:
        top = 255.0 if high <= 255.0 and image.mode == "F" else 65535.0
    if low < 0.0 or high > top:
        values, top = values - low, max(high - low, 1e-9)
    return Image.fromarray((values * (255.0 / top)).round().astype(np.uint8))
