"""Models that people ask for by name: what each is, what it may be used for, how well it is published to find."""

from __future__ import annotations

from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

CATALOG_FILE = "catalog.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recall(_Part):
    """Zero-shot recall@1 from text to image, as it was published."""

    coco: float | None = Field(None, gt=0, lt=1)
    """On the 5,000 test pictures of MS COCO."""
    flickr: float | None = Field(None, gt=0, lt=1)
    """On the 1,000 test pictures of Flickr30k."""
    source: str
    """Where: words and a URL."""


class Known(_Part):
    """A model that `crosslens models export NAME` makes a bundle of."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    source: str
    """What `crosslens models export` loads: a library, and that library's name of the checkpoint."""
    image_source: str | None = None
    """Whose image tower goes with it, where the checkpoint has none of its own."""
    licence: str
    """SPDX expression of the weights' licence; its own name where SPDX has none."""
    parameters_millions: float | None = Field(None, gt=0)
    """Of both towers, the token table included; None where none is published."""
    dimension: int = Field(gt=0)
    languages: str
    note: str
    """When to take it, in a sentence."""
    recall: Recall | None = None
    """None where none is published."""


def known_models() -> list[Known]:
    """The catalog, in the order in which it is shown."""
    text = (files("indexer.models") / CATALOG_FILE).read_text(encoding="utf-8")
    return TypeAdapter(list[Known]).validate_json(text)


def find_known(name: str) -> Known | None:
    """The model of that name; None if the catalog has none."""
    return next((known for known in known_models() if known.name == name), None)
