"""The catalog: names that can be asked for, figures that say where they come from, checkpoints that are there."""

import importlib.util
import json
from pathlib import Path

import pytest

from indexer.models.catalog import Known, find_known, known_models

OPEN_CLIP = importlib.util.find_spec("open_clip")


def test_every_name_finds_its_own_model() -> None:
    names = [known.name for known in known_models()]
    assert len(names) == len(set(names)) >= 7
    assert [known and known.name for known in map(find_known, names)] == names
    assert find_known("clip") is None


@pytest.mark.parametrize("known", known_models(), ids=lambda known: known.name)
def test_a_published_figure_says_where(known: Known) -> None:
    library, _, checkpoint = known.source.partition(":")
    assert library in {"open_clip", "transformers", "sentence_transformers"}
    assert checkpoint.count("/") == 1
    if known.recall is not None:
        assert "https://" in known.recall.source
        assert known.recall.coco or known.recall.flickr


@pytest.mark.skipif(OPEN_CLIP is None, reason="the extra `export` is not installed")
@pytest.mark.parametrize(
    "known", [known for known in known_models() if known.source.startswith("open_clip:")], ids=lambda known: known.name
)
def test_open_clip_has_the_checkpoint_and_its_dimension(known: Known) -> None:
    assert OPEN_CLIP is not None and OPEN_CLIP.origin is not None
    package = Path(OPEN_CLIP.origin).parent
    architecture, tag = known.source.removeprefix("open_clip:").split("/")
    assert json.loads((package / "model_configs" / f"{architecture}.json").read_text())["embed_dim"] == known.dimension
    # Read, not imported: open_clip loads torch, which takes seconds.
    assert f"{tag}=" in (package / "pretrained.py").read_text()
