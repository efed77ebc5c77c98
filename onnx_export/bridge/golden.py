"""Golden inputs of `bridge`: pictures drawn by this code, so nobody owns them, and sentences that try the tokenizer.

No picture is square: a square one cannot tell a crop from a squash. One has its long side across, one upright, one is
so wide that a crop keeps less than half of it, and one carries an EXIF orientation.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TEXTS = [
    "a dog running on the beach",
    "Two Children, playing football in the RAIN!",
    "a photo of a red bicycle leaning against a brick wall",
    "café naïve 東京 🙂 co-operative don't",
    "x",
    "people " * 200,  # longer than the context: it must be cut where the reference cuts it
]


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


def _turned() -> Image.Image:
    image = _gradient(330, 500, (235, 225, 205), (150, 120, 90))
    draw = ImageDraw.Draw(image)
    for ring, colour in enumerate([(60, 60, 60), (240, 240, 240), (60, 60, 60), (200, 60, 50)]):
        edge = 30 + 32 * ring
        draw.ellipse((edge, 60 + edge, 330 - edge, 390 - edge), fill=colour)
    return image


def draw_images(folder: Path) -> list[str]:
    """Draw the golden pictures into `folder`; give their file names, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"sunset.png": _sunset(), "balloon.png": _balloon(), "signs.png": _signs(), "turned.png": _turned()}
    for name, picture in pictures.items():
        exif = Image.Exif()
        if name == "turned.png":
            picture = picture.transpose(Image.Transpose.ROTATE_90)  # noqa: PLW2901
            exif[0x0112] = 6  # orientation: turn clockwise to look at it
        picture.save(folder / name, optimize=True, exif=exif if exif else None)
    return list(pictures)


def write_golden(folder: Path, images: list[str], vectors: dict[str, np.ndarray]) -> None:
    """Write `golden.json` (what goes in) and `golden.npz` (what must come out, float32 (n, D))."""
    listing = json.dumps({"images": images, "texts": TEXTS}, indent=2, ensure_ascii=False)
    (folder / "golden.json").write_text(listing + "\n", encoding="utf-8")
    np.savez(folder / "golden.npz", image=vectors["image"], text=vectors["text"])
