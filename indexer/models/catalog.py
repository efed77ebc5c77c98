"""Models that people ask for by name: what each is, what it may be used for, how well it is published to find."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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


class _Named(_Part):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    source: str
    """What `crosslens models export` loads: a library, and that library's name of the checkpoint."""
    licence: str
    """SPDX expression of the weights' licence; its own name where SPDX has none."""
    parameters_millions: float | None = Field(None, gt=0)
    """Of all its parts, the token table included; None where none is published."""
    languages: str
    note: str
    """When to take it, in a sentence."""


class Known(_Named):
    """An encoder that `crosslens models export NAME` makes a bundle of."""

    image_source: str | None = None
    """Whose image tower goes with it, where the checkpoint has none of its own."""
    dimension: int = Field(gt=0)
    recall: Recall | None = None
    """None where none is published."""


class KnownReranker(_Named):
    """A reranker that `crosslens models export NAME` makes a bundle of."""

    reads: Literal["pictures", "texts"]
    """What it compares a query with."""


class _Catalog(_Part):
    encoders: list[Known]
    rerankers: list[KnownReranker]


def known_models() -> list[Known]:
    """The catalog's encoders, in the order in which they are shown."""
    return _read().encoders


def known_rerankers() -> list[KnownReranker]:
    """The catalog's rerankers, in the order in which they are shown."""
    return _read().rerankers


def find_known(name: str) -> Known | KnownReranker | None:
    """The encoder or reranker of that name; None if the catalog has none."""
    named: list[Known | KnownReranker] = [*known_models(), *known_rerankers()]
    return next((known for known in named if known.name == name), None)


def _read() -> _Catalog:
    text = (files("indexer.models") / CATALOG_FILE).read_text(encoding="utf-8")
    return _Catalog.model_validate_json(text)
