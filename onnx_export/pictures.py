"""Files as RGB pictures by plain Pillow, beside the runtime's decoder: the reading that it is held against.

Source libraries take a decoded RGB picture and say nothing of orientation, transparency or depth. Here are the rules,
as any viewer has them: EXIF orientation is applied, transparency lies over white, 16-bit greys are scaled to 8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def read_rgb(path: Path) -> Image.Image:
    """The picture in a file, upright, RGB, at full size."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
        if "transparency" in image.info or "A" in image.getbands():
            layer = image.convert("RGBA")
            white = Image.new("RGB", layer.size, (255, 255, 255))
            white.paste(layer, mask=layer.getchannel("A"))
            return white
        return image.convert("RGB")
