"""Whether a source is a reranker, by the architecture that its configuration names, and who reads it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from onnx_export.hub import explained
from onnx_export.rerank.checkpoint import RerankCheckpoint
from onnx_export.sources import locate

_READERS = {"Blip2ForImageTextRetrieval": "blip2", "BlipForImageTextRetrieval": "blip"}
_CLASSIFIER = "ForSequenceClassification"


def reranker_of(source: str) -> Callable[[], RerankCheckpoint] | None:
    """What reads the reranker at a source; None where it is none, but perhaps an encoder.

    Raises:
        UsageError: the source does not parse, or the hub has no such checkpoint.
        HubUnreachable: its configuration must be downloaded, and nothing answers.
    """
    library, name = locate(source)
    if library == "open_clip":
        return None
    architecture = _architecture(source, name)
    reader = "cross_encoder" if architecture.endswith(_CLASSIFIER) else _READERS.get(architecture)
    if reader is None:
        return None

    def load() -> RerankCheckpoint:
        checkpoint: RerankCheckpoint = importlib.import_module(f"onnx_export.rerank.{reader}").load(name)
        return checkpoint

    return load


def _architecture(source: str, name: str) -> str:
    """The class that a checkpoint was saved from; empty where nothing says so."""
    path = Path(name) / "config.json"
    if not Path(name).is_dir():
        with explained(source):
            try:
                path = Path(hf_hub_download(name, "config.json"))
            except EntryNotFoundError:  # or not here, and no network: its library says so, if it needs it
                return ""
    try:
        architectures = json.loads(path.read_bytes())["architectures"]
        return str(architectures[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ""  # its library says what is wrong
