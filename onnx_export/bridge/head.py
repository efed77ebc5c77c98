"""The learnt part of `bridge`: what class names cannot say, learnt from captions, added to what they can.

    image = unit(c + strength * mlp(features, c))      c = ConSE of the classifier's belief
    text  = unit(t + strength * linear(t))             t = unit(MiniLM - centre)

Both towers are frozen (locked-image tuning, Zhai et al. 2022); the heads begin at zero and are trained with the
symmetric contrastive loss (InfoNCE). `strength` below 1 walks back towards the part that saw no caption, which is more
robust away from the training data (weight interpolation, Wortsman et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from onnx_export.bridge.reference import Vectors

_EPOCHS = 30
_BATCH = 2048
_RATE = 1e-3
_WEIGHT_DECAY = 1e-2
_DROPOUT = 0.3
_INPUT_DROPOUT = 0.3
_ANCHOR = 0.2
"""Weight of keeping the classifier's belief readable in the joint space; it regularises."""
_VIEWS = (0.4, 0.7)
"""Plain photo below the first, mirrored below the second, cropped above."""


@dataclass(frozen=True)
class TrainingData:
    """Photos in three views and their captions, all in the frozen towers' terms."""

    views: tuple[Vectors, Vectors, Vectors]
    """`image_inputs` of the plain, the mirrored and the cropped photo, (n, 1280 + D) each."""
    captions: Vectors
    """(n, 5, D), centred and L2-normalised."""
    belief: Vectors
    """(n, 1000), what the classifier believes of the plain photo."""
    classes: Vectors
    """(1000, D), the class vectors as texts: centred and L2-normalised."""


class Head(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """Both heads and the learnt temperature."""

    def __init__(self, inputs: int, dimension: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(inputs, hidden)
        self.narrow = nn.Linear(hidden, dimension)
        self.skip = nn.Linear(inputs, dimension, bias=False)
        self.text = nn.Linear(dimension, dimension)
        self.dropout = nn.Dropout(_DROPOUT)
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(20.0))))
        for layer in (self.narrow, self.skip, self.text):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def image_delta(self, inputs: torch.Tensor) -> torch.Tensor:
        """What is added to ConSE."""
        hidden = functional.gelu(self.widen(inputs))
        return self.narrow(self.dropout(hidden)) + self.skip(inputs)

    def images(self, inputs: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        """Unit vectors of photos; the last columns of the inputs are ConSE's."""
        named = inputs[:, -self.text.out_features :]
        if self.training:
            inputs = functional.dropout(inputs, _INPUT_DROPOUT)
        return functional.normalize(named + strength * self.image_delta(inputs), dim=1)

    def texts(self, texts: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
        """Unit vectors of texts."""
        return functional.normalize(texts + strength * self.text(texts), dim=1)


def train(data: TrainingData, *, hidden: int, seed: int) -> Head:
    """A trained head; the same seed on the same machine gives the same."""
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    views = torch.stack([torch.from_numpy(view) for view in data.views])
    captions, belief = torch.from_numpy(data.captions), torch.from_numpy(data.belief)
    classes = torch.from_numpy(data.classes)
    photos, inputs = data.views[0].shape
    head = Head(inputs, data.captions.shape[2], hidden)
    head.train()
    batch = min(_BATCH, photos)
    steps = _EPOCHS * (photos // batch)
    others = [value for name, value in head.named_parameters() if name != "log_scale"]
    groups = [{"params": others}, {"params": [head.log_scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.15)
    for _ in range(_EPOCHS):
        order = torch.randperm(photos, generator=chance)
        for at in range(0, photos - batch + 1, batch):
            rows = order[at : at + batch]
            view = torch.bucketize(torch.rand(batch, generator=chance), torch.tensor(_VIEWS))
            images = head.images(views[view, rows])
            texts = head.texts(captions[rows, torch.randint(0, 5, (batch,), generator=chance)])
            scale = head.log_scale.exp().clamp(max=100)
            scores, right = scale * images @ texts.T, torch.arange(batch)
            loss = (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2
            named = functional.log_softmax(scale * images @ head.texts(classes).T, dim=1)
            loss = loss + _ANCHOR * functional.kl_div(named, belief[rows], reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    head.eval()
    return head


def average(heads: list[Head]) -> Head:
    """One head that gives the mean of what several give: hidden layers side by side, the linear ones averaged."""
    first = heads[0]
    hidden = sum(head.widen.out_features for head in heads)
    one = Head(first.widen.in_features, first.narrow.out_features, hidden)
    with torch.no_grad():
        one.widen.weight.copy_(torch.cat([head.widen.weight for head in heads]))
        one.widen.bias.copy_(torch.cat([head.widen.bias for head in heads]))
        one.narrow.weight.copy_(torch.cat([head.narrow.weight for head in heads], dim=1) / len(heads))
        for name in ("narrow.bias", "skip.weight", "text.weight", "text.bias", "log_scale"):
            mean = torch.stack([head.get_parameter(name) for head in heads]).mean(dim=0)
            one.get_parameter(name).copy_(mean)
    one.eval()
    return one


def choose_strength(hits: dict[float, NDArray[np.float64]]) -> float:
    """The one-standard-error rule (Breiman et al. 1984): the weakest head that is not clearly worse than the best.

    `hits` holds, by strength, a score for each validation photo. Captions of one kind of photos are all that is
    validated on, so what leans less on them is preferred among equals.
    """
    best = max(hits, key=lambda strength: hits[strength].mean())
    error = hits[best].std(ddof=1) / len(hits[best]) ** 0.5
    return min(strength for strength, each in hits.items() if each.mean() >= hits[best].mean() - error)
