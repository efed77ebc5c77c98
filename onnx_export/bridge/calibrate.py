"""From cosines to the probability of a match: a logistic, fitted on captions and photos that no head was trained on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from indexer.models.manifest import Calibration
from onnx_export.bridge.reference import Vectors

BASE_RATE = 0.01
"""One photo in a hundred fits a query: without a base rate, a probability means nothing."""


def fit_calibration(images: Vectors, texts: Vectors, owners: NDArray[np.int64]) -> Calibration:
    """Fit sigmoid(scale * cosine + bias) to which caption (m, D) belongs to which photo (n, D)."""
    scores = torch.from_numpy((texts @ images.T).astype(np.float64))
    right = torch.zeros_like(scores)
    right[torch.arange(len(texts)), torch.from_numpy(owners)] = 1.0
    share = 1 / len(images)
    weights = torch.where(right > 0, BASE_RATE / share, (1 - BASE_RATE) / (1 - share))
    line = torch.tensor([10.0, -5.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(line[0] * scores + line[1], right, weight=weights)
        value.backward()
        return value

    optimizer.step(loss)
    scale, bias = (round(float(value), 4) for value in line.detach())
    words = f"Flickr8k validation captions, at a base rate of one match in {round(1 / BASE_RATE)} photos"
    return Calibration(scale=scale, bias=bias, fitted_on=words)
