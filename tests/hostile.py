"""A folder of good photos and hostile files, each with the code that it must be reported under."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "AVIF": "avif"}


def photo(seed: int, size: tuple[int, int] = (96, 64), form: str = "JPEG") -> bytes:
    """A picture with content of its own: smooth noise over a gradient."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    if form == "HEIF":
        pillow_heif.from_pillow(image).save(file, quality=80)
    else:
        image.save(file, form)
    return file.getvalue()


def huge_png(side: int = 50_000) -> bytes:
    """A small file whose header declares `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_hostile_folder(folder: Path, good: int = 200) -> dict[str, str]:
    """Fill `folder` with `good` photos and 20 hostile files; gives the code expected for each source of the latter."""
    inside = folder / "inside"
    inside.mkdir(parents=True)
    for seed in range(good):
        form, suffix = list(FORMATS.items())[seed % 4]
        (folder / f"photo-{seed:03}.{suffix}").write_bytes(photo(seed, form=form))
    expected: dict[Path, str] = {}

    def put(name: str, data: bytes, code: str) -> None:
        (folder / name).write_bytes(data)
        expected[folder / name] = code

    put("empty.jpg", b"", "empty")
    put("text.jpg", b"this is no picture at all\n" * 20, "not_an_image")
    put("page.png", b"<!doctype html><html><body>hello</body></html>", "not_an_image")
    put("zeros.webp", bytes(5000), "not_an_image")
    put("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "unsupported_format")
    put("paper.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "truncated")
    put("huge.png", huge_png(), "too_many_pixels")
    put("line\nbreak \U0001f600.jpg", b"not a picture either", "not_an_image")
    for form, suffix in FORMATS.items():
        whole = photo(1000, (200, 150), form)
        put(f"cut.{suffix}", whole[: len(whole) * 6 // 10], "truncated")
    whole = photo(1001, (200, 150), "HEIF")
    put("cut.heic", whole[: len(whole) * 6 // 10], "truncated")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    expected[folder / "loop.jpg"] = "symlink_loop"
    (inside / "back").symlink_to(folder, target_is_directory=True)
    expected[inside / "back"] = "symlink_loop"
    os.mkfifo(folder / "pipe.jpg")
    expected[folder / "pipe.jpg"] = "unreadable"
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    expected[folder / "nowhere.jpg"] = "unreadable"
    assert len(expected) == 20
    return {str(path): code for path, code in expected.items()}
