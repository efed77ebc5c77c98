"""Checkpoints by name: which library reads a source, and the reading.

A source is `open_clip:MODEL/TAG`, `open_clip:MODEL@FILE`, `transformers:NAME`, `sentence_transformers:NAME` (NAME on
the hub, or a local folder), or a bare folder, whose files say what it is.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

from indexer.errors import UnsupportedCheckpoint, UsageError
from onnx_export.cards import languages_of
from onnx_export.checkpoint import Checkpoint
from onnx_export.hub import stay_offline_if_unreachable

LIBRARIES = ("open_clip", "transformers", "sentence_transformers")


def load_checkpoint(source: str) -> Checkpoint:
    """Read an encoder's checkpoint.

    Raises:
        UsageError: the source does not parse, or names a folder that is no checkpoint.
        UnsupportedCheckpoint: its architecture cannot become a bundle.
        HubUnreachable: it must be downloaded, and nothing answers.
    """
    library, name = locate(source)
    module = importlib.import_module(f"onnx_export.sources.{library}")
    checkpoint: Checkpoint = module.load(name)
    return replace(checkpoint, languages=languages_of(library, name))


def with_images_of(text: Checkpoint, images: Checkpoint) -> Checkpoint:
    """A checkpoint's text tower beside another's image tower: for students that were trained into its space.

    Raises:
        UnsupportedCheckpoint: the other has no image tower, or gives vectors of another length.
    """
    if images.image is None:
        raise UnsupportedCheckpoint(f"{images.source} has no image tower.")
    if images.dimension != text.dimension:
        raise UnsupportedCheckpoint(
            f"{text.source} gives vectors of {text.dimension}, {images.source} of {images.dimension}: not one space."
        )
    return replace(
        text,
        image=images.image,
        source=f"{text.source}+{images.source}",
        logit_scale=images.logit_scale,
        logit_bias=images.logit_bias,
    )


def locate(source: str) -> tuple[str, str]:
    """The library that reads a source, and its name there. If need be the hub is asked for a sign of life.

    Raises:
        UsageError: the source does not parse, or names a folder that is no checkpoint.
    """
    library, _, name = source.partition(":")
    if library in LIBRARIES and name:
        if not Path(name.partition("@")[2] or name).exists():
            stay_offline_if_unreachable()
        return library, name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _library_of(folder), str(folder)
    raise UsageError(
        f"{source!r} names no checkpoint.",
        remedy="Give a short name (`crosslens models list`), a folder, open_clip:MODEL/TAG, transformers:NAME or "
        "sentence_transformers:NAME.",
    )


def _library_of(folder: Path) -> str:
    """By the file that each library's folders have."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    if (folder / "modules.json").is_file():
        return "sentence_transformers"
    config = folder / "config.json"
    if config.is_file() and "model_type" in json.loads(config.read_text(encoding="utf-8")):
        return "transformers"
    raise UsageError(
        f"{folder} holds no checkpoint that is known.",
        remedy="It should have open_clip_config.json, modules.json (sentence-transformers) or config.json "
        "(transformers); for weights alone: open_clip:MODEL@FILE.",
    )
