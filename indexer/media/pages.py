"""A PDF's pages as pictures, with their text.

PDFium draws what a page shows. The environment that would fill forms and run scripts is never set up. A page's size in
pixels is chosen before it is drawn, so a page of any size in inches is as large as is asked for.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from indexer.errors import Encrypted, MediaError, TooManyPixels, Truncated, Unreadable

MAX_TEXT = 4000
"""Characters of a page's text that are kept."""

_LOCK = threading.RLock()  # PDFium runs in one thread at a time, whichever document it is
_DOTS_PER_POINT = 2.0  # 144 dpi, where no target says otherwise
_DRAFT_SCALE = 2
_TAIL = 2**16
_DEEP = 15  # form XObjects in one another
_MAX_IMAGES = 10_000  # of a page, that are looked at
_LINE_BREAK_HYPHEN = re.compile("[\x02\ufffe](?:\r?\n)?")


class Page(NamedTuple):
    """A page that was drawn."""

    image: Image.Image
    """RGB, over white."""
    number: int
    """1 is the first."""
    text: str | None
    """As it can be selected, at most `MAX_TEXT` characters; None if there is none."""


def pages(source: bytes | Path, *, target: int | None, most: int, max_pixels: int) -> Iterator[Page]:
    """The first `most` pages of a PDF, each with its shortest side at twice `target` (without one, at 144 dpi).

    A page that would have more than `max_pixels` is drawn smaller. One that cannot be drawn is left out; its error is
    raised once the others were given.

    Raises:
        Encrypted: it opens with a password only.
        TooManyPixels: a page holds an image of more pixels than the cap, which was not decoded.
        Truncated: it ends early; raised after the pages that are there.
        Unreadable: it or one of its pages cannot be read, or it has no pages.
    """
    try:
        ends_early = _ends_early(source)
        with _LOCK:
            document = _opened(source, ends_early=ends_early)
    except OSError as error:
        raise Unreadable(f"The file cannot be read: {error.strerror or error}.") from error
    failed: MediaError | None = None
    try:
        with _LOCK:
            count = len(document)
        if count < 1 and not ends_early:
            raise Unreadable("The document has no pages.")
        for number in range(1, min(count, most) + 1):
            try:
                with _LOCK:
                    page = _page(document, number, target, max_pixels)
            except MediaError as error:
                failed = failed or error
            else:
                yield page
    finally:
        with _LOCK:
            document.close()
    if ends_early:
        raise Truncated("The document ends before its last page does.")
    if failed is not None:
        raise failed


def page_at(source: bytes | Path, number: int, *, target: int | None, max_pixels: int) -> Page:
    """One page of a PDF, as `pages` gives it; the others are not drawn.

    Raises:
        Encrypted, TooManyPixels: as for `pages`.
        Truncated, Unreadable: the document or this page cannot be read, or it has no such page.
    """
    try:
        ends_early = _ends_early(source)
    except OSError as error:
        raise Unreadable(f"The file cannot be read: {error.strerror or error}.") from error
    with _LOCK:
        document = _opened(source, ends_early=ends_early)
        try:
            if not 1 <= number <= len(document):
                raise Unreadable(f"The document has no page {number}.")
            return _page(document, number, target, max_pixels)
        finally:
            document.close()


def _opened(source: bytes | Path, *, ends_early: bool) -> Any:
    # Not by the class itself: it would take a document without pages for one that failed, with an older error's code.
    if isinstance(source, bytes):
        handle = pdfium.FPDF_LoadMemDocument64(source, len(source), None)
    else:
        handle = pdfium.FPDF_LoadDocument(os.fsencode(source.absolute()) + b"\0", None)
    if handle:
        return pypdfium2.PdfDocument(handle)
    if pdfium.FPDF_GetLastError() in {pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY}:
        raise Encrypted("The document opens with a password only.")
    if ends_early:
        raise Truncated("The document ends before its last page does.")
    raise Unreadable("The document cannot be read: it has no pages, or no table of them.")


def _page(document: Any, number: int, target: int | None, max_pixels: int) -> Page:
    try:
        page = document[number - 1]
        try:
            _check_images(page, number, max_pixels)
            width, height = page.get_size()
            bitmap = page.render(scale=_scale(width, height, target, max_pixels), may_draw_forms=False)
            try:
                image: Image.Image = bitmap.to_pil().convert("RGB")  # a copy, which outlives the bitmap
            finally:
                bitmap.close()
            return Page(image, number, _text(page))
        finally:
            page.close()
    except MediaError:
        raise
    except (RuntimeError, ValueError, ArithmeticError, MemoryError, OSError, ctypes.ArgumentError) as error:
        raise Unreadable(f"Page {number} cannot be drawn: {str(error)[:200] or type(error).__name__}.") from error


def _scale(width: float, height: float, target: int | None, max_pixels: int) -> float:
    """Pixels per point, for a page of so many points."""
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise Unreadable(f"The page declares a size of {width} x {height} points.")
    scale = _DOTS_PER_POINT if target is None else _DRAFT_SCALE * target / min(width, height)
    scale = min(scale, math.sqrt(max_pixels / width / height))
    while math.ceil(width * scale) * math.ceil(height * scale) > max_pixels:  # sides are rounded up
        scale *= 0.99
    return scale


def _check_images(page: Any, number: int, max_pixels: int) -> None:
    """Refuse a page that would have PDFium decode a larger image than may be decoded."""
    width, height = ctypes.c_uint(), ctypes.c_uint()
    for image in islice(page.get_objects((pdfium.FPDF_PAGEOBJ_IMAGE,), max_depth=_DEEP), _MAX_IMAGES):
        if not pdfium.FPDFImageObj_GetImagePixelSize(image, ctypes.byref(width), ctypes.byref(height)):
            continue
        if width.value * height.value > max_pixels:
            size = f"{width.value:,} x {height.value:,}"
            raise TooManyPixels(f"Page {number} holds an image of {size} pixels; {max_pixels:,} is the cap.")


def _text(page: Any) -> str | None:
    text_page = page.get_textpage()
    try:
        text: str = text_page.get_text_bounded()
    finally:
        text_page.close()
    text = _LINE_BREAK_HYPHEN.sub("", text).replace("\r\n", "\n").replace("\0", "")
    return text.strip()[:MAX_TEXT].rstrip() or None


def _ends_early(source: bytes | Path) -> bool:
    """Whether a PDF has no end: neither its mark nor the offset of its table, even before something appended."""
    if isinstance(source, bytes):
        tail = source[-_TAIL:]
    else:
        with source.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read(_TAIL)
    return b"%%EOF" not in tail and b"startxref" not in tail
