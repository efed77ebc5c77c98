"""What searching needs of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from indexer.media.decode import Decoded
    from indexer.models.encoder import TextEmbeddings
    from indexer.models.manifest import Manifest, PixelRecipe


class QueryEncoder(Protocol):
    """What the engine needs of an encoder; `indexer.models.encoder.Encoder` is one."""

    @property
    def fingerprint(self) -> str:
        """Names the vector space."""

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""

    @property
    def pixels(self) -> PixelRecipe:
        """How images are prepared."""

    @property
    def devices(self) -> dict[str, str]:
        """Where its towers run."""

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit vectors, float32 (n, D), and which texts were cut."""

    def encode_images(self, images: Sequence[Image.Image | Decoded]) -> NDArray[np.float32]:
        """Unit vectors, float32 (n, D)."""
