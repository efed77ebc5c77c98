"""A vector space that tests make up: every text has a direction of its own, drawn from its letters."""

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from indexer.models.manifest import Calibration

DIMENSION = 24
FINGERPRINT = "0123456789abcdef"


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def direction(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return unit(np.random.default_rng(seed).standard_normal(DIMENSION))


class MadeUp:
    """An encoder as moderation needs it; `style` says how cosines become probabilities."""

    fingerprint = FINGERPRINT

    def __init__(self, style: str = "calibrated") -> None:
        calibration = {"text_to_image": Calibration(scale=20, bias=-8, fitted_on="nothing")}
        self.manifest: Any = SimpleNamespace(
            dimension=DIMENSION,
            calibration=calibration if style == "calibrated" else {},
            logit_scale=100.0 if style == "clip" else None,
            logit_bias=None,
        )

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return SimpleNamespace(vectors=np.stack([direction(each) for each in texts]), truncated=[False] * len(texts))
