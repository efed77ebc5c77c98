"""Golden inputs: pictures drawn by this code, so nobody owns them, and texts that try the tokenizer.

No picture is square: a square one cannot tell a crop from a squash. Beside plain ones there is one of each kind that
pipelines get wrong: very small, very large, a sliver, turned by EXIF, CMYK, transparent palette, grey, 16-bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TEXTS = [
    "a dog running on the beach",
    "",
    " \t a   photo\nof  blanks  ",
    "TWO CHILDREN, playing FOOTBALL in the RAIN!",
    "a photo of a red bicycle leaning against a brick wall",
    "don't stop: it's o'clock & they've 1234 re-tries, e.g. 50% (or_so)",
    "&lt;b&gt;bread &amp;amp; butter&lt;/b&gt;",
    "café naïve co-operative straße ﬁne",
    "🙂🚀🏳️‍🌈 emoji 👩‍👩‍👧",
    "東京の夜景とラーメン",
    "красный велосипед у стены",
    "قطة تنام على الأريكة",
    "एक लाल साइकिल",
    "x",
    "people " * 200,  # longer than any context: it must be cut where the reference cuts it
    "ein_" * 120,
]


def draw_images(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """Draw the golden pictures (those named; all by default) into `folder`; give their file names, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(names or _PICTURES)
    for name in names:
        _PICTURES[name](folder / name)
    return names


def write_golden(folder: Path, images: list[str], texts: list[str], vectors: dict[str, np.ndarray]) -> None:
    """Write `golden.json` (what goes in) and `golden.npz` (what must come out, float32 (n, D))."""
    listing = json.dumps({"images": images, "texts": texts}, indent=2, ensure_ascii=False)
    (folder / "golden.json").write_text(listing + "\n", encoding="utf-8")
    np.savez(folder / "golden.npz", image=vectors["image"], text=vectors["text"])


def _gradient(width: int, height: int, top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    """A vertical gradient."""
    steps = np.linspace(0.0, 1.0, height)[:, None, None]
    column = np.array(top) * (1 - steps) + np.array(bottom) * steps
    return Image.fromarray(np.broadcast_to(column.round(), (height, width, 3)).astype(np.uint8))


def _sunset() -> Image.Image:
    image = _gradient(420, 300, (40, 60, 140), (250, 150, 60))
    draw = ImageDraw.Draw(image)
    draw.ellipse((160, 120, 260, 220), fill=(255, 230, 140))
    draw.rectangle((0, 220, 420, 300), fill=(20, 40, 80))
    return image


def _balloon() -> Image.Image:
    image = _gradient(300, 460, (120, 180, 240), (220, 235, 250))
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 50, 240, 270), fill=(210, 40, 50))
    draw.polygon([(100, 255), (200, 255), (165, 340), (135, 340)], fill=(240, 200, 60))
    draw.rectangle((130, 350, 170, 390), fill=(120, 80, 40))
    return image


def _signs() -> Image.Image:
    image = Image.new("RGB", (640, 290), (90, 150, 80))
    draw = ImageDraw.Draw(image)
    for step in range(0, 640, 80):
        draw.rectangle((step, 200, step + 40, 290), fill=(230, 230, 230))
    draw.regular_polygon((320, 110, 90), 8, fill=(190, 20, 30))
    draw.polygon([(60, 180), (130, 40), (200, 180)], fill=(250, 210, 40))
    draw.polygon([(440, 180), (510, 40), (580, 180)], fill=(40, 90, 200))
    return image


def _target() -> Image.Image:
    image = _gradient(330, 500, (235, 225, 205), (150, 120, 90))
    draw = ImageDraw.Draw(image)
    for ring, colour in enumerate([(60, 60, 60), (240, 240, 240), (60, 60, 60), (200, 60, 50)]):
        edge = 30 + 32 * ring
        draw.ellipse((edge, 60 + edge, 330 - edge, 390 - edge), fill=colour)
    return image


def _plain(image: Image.Image, path: Path) -> None:
    image.save(path, optimize=True)


def _save_turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise to look at it
    _target().transpose(Image.Transpose.ROTATE_90).save(path, optimize=True, exif=exif)


def _save_huge(path: Path) -> None:
    """Large enough that the runtime decodes it at a reduced scale."""
    _signs().resize((4801, 2177), Image.Resampling.BICUBIC).save(path, quality=85, optimize=True)


def _save_palette(path: Path) -> None:
    image = _balloon().quantize(32)
    image.save(path, optimize=True, transparency=image.getpixel((150, 160)))


def _save_deep(path: Path) -> None:
    grey = np.asarray(_sunset().convert("L"), dtype=np.uint16)
    # The low byte is not the high one's copy: whoever cuts instead of scaling gets another picture.
    Image.fromarray(grey * 257 ^ 0x5A).save(path)


_PICTURES = {
    "sunset.png": lambda path: _plain(_sunset(), path),
    "balloon.png": lambda path: _plain(_balloon(), path),
    "signs.png": lambda path: _plain(_signs(), path),
    "turned.png": _save_turned,
    "odd.png": lambda path: _plain(_signs().resize((451, 301)), path),
    "tiny.png": lambda path: _plain(_sunset().resize((7, 5)), path),
    "sliver.png": lambda path: _plain(_signs().resize((900, 60)), path),
    "huge.jpg": _save_huge,
    "cmyk.jpg": lambda path: _balloon().convert("CMYK").save(path, quality=90),
    "palette.png": _save_palette,
    "grey.png": lambda path: _plain(_target().convert("L"), path),
    "deep.png": _save_deep,
}
