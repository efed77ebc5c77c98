"""An encoder that many threads ask at once: what they ask for within a moment is embedded in one run.

Texts that were asked for lately are remembered: people page, filter and repeat.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.media.decode import Decoded
from indexer.models.batching import MicroBatcher
from indexer.models.encoder import MAX_BATCH, Encoder, TextEmbeddings

Vectors = NDArray[np.float32]

REMEMBERED = 4096
"""Texts whose vectors are kept: 10 MB at 640 dimensions."""


class _Text(NamedTuple):
    """One embedded text."""

    vector: Vectors
    truncated: bool
    tokenize_seconds: float
    """Its share of the run's."""


class BatchedEncoder(Encoder):
    """An encoder whose runs are shared among threads. Close it, or use it as a context."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.bundle)
        self._encoder = encoder
        self._texts: MicroBatcher[str, _Text] = MicroBatcher(self._text_results, max_batch=MAX_BATCH)
        self._known: OrderedDict[str, _Text] = OrderedDict()
        self._lock = threading.Lock()
        self._pixels: MicroBatcher[Vectors, Vectors] = MicroBatcher(self._pixel_results, max_batch=MAX_BATCH)

    @property
    def devices(self) -> dict[str, str]:
        """As `Encoder.devices`."""
        return self._encoder.devices

    def warm_up(self, max_batch: int = MAX_BATCH) -> None:
        """As `Encoder.warm_up`."""
        self._encoder.warm_up(max_batch)

    def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """As `Encoder.encode_texts`, from memory or in a run that other threads may share."""
        with self._lock:
            known = {text: self._known[text] for text in texts if text in self._known}
            for text in known:
                self._known.move_to_end(text)
        fresh = list(dict.fromkeys(text for text in texts if text not in known))
        tokenizing = 0.0
        if fresh:
            made = self._texts.submit(fresh)
            tokenizing = sum(text.tokenize_seconds for text in made)
            known |= zip(fresh, made, strict=True)
            with self._lock:
                self._known |= {text: known[text] for text in fresh}
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        embedded = [known[text] for text in texts]
        vectors = [text.vector for text in embedded]
        return TextEmbeddings(
            vectors=np.stack(vectors) if vectors else np.empty((0, self.dimension), dtype=np.float32),
            truncated=[text.truncated for text in embedded],
            tokenize_seconds=tokenizing,
        )

    def encode_images(self, images: Sequence[Image.Image | Decoded]) -> Vectors:
        """As `Encoder.encode_images`, in a run that other threads may share."""
        if not images:
            return np.empty((0, self.dimension), dtype=np.float32)
        return self.encode_pixels(np.stack([self.prepare(image) for image in images]))

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """As `Encoder.encode_pixels`, in a run that other threads may share."""
        return np.stack(self._pixels.submit(list(pixels)))

    def _text_results(self, texts: list[str]) -> list[_Text]:
        embedded = self._encoder.encode_texts(texts)
        share = embedded.tokenize_seconds / len(texts)
        return [_Text(*each, share) for each in zip(embedded.vectors, embedded.truncated, strict=True)]

    def _pixel_results(self, rows: list[Vectors]) -> list[Vectors]:
        return list(self._encoder.encode_pixels(np.stack(rows)))

    def close(self) -> None:
        """Answer what waits, then stop."""
        self._texts.close()
        self._pixels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
