"""A policy: categories, each with the detectors that tell it and what is done with an item that is of it.

Nothing here runs: these are the words that a policy file is written in, checked. `indexer.moderation.judge` applies
them, `indexer.moderation.policy_file` reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from indexer.classify.labels import Prompt, SetName, Template
from indexer.items import Modality
from indexer.media.payloads import CAPTION
from indexer.media.pdq import MATCH_DISTANCE
from indexer.models.templates import filled
from indexer.moderation.texts import pattern_of, words_of

MOST_CATEGORIES = 64
MOST_DETECTORS = 16
"""Of a category."""
MOST_PROMPTS = 2048
"""Of a policy: texts that have to be embedded, its templates' included."""
MOST_WORDS = 10_000
MOST_PATTERNS = 128
"""Of a policy: each takes some memory."""
MOST_WEIGHTS = 8192
FARTHEST = 64
"""Bits between two PDQ hashes, of 256; beyond, pictures that have nothing to do with each other are as near."""

TEXT_FIELD = "text"
"""The field of an item's own text, among those that text rules read; the others are the payload's."""

_COMBINE = re.compile(r"any|all|vote\(([1-9][0-9]?)\)")
_FIELD = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,3}$"


class Action(StrEnum):
    """What is done with an item, from the mildest to the strictest."""

    ALLOW = "allow"
    FLAG = "flag"
    """It is shown; reviewers see it in their queue."""
    BLUR = "blur"
    """It is shown blurred."""
    QUARANTINE = "quarantine"
    """Moderators alone see it, until one of them decides."""
    BLOCK = "block"

    @property
    def rank(self) -> int:
        """Its place in the order: the strictest has the highest. What `Judgement.actions` holds."""
        return ACTIONS.index(self)


ACTIONS = tuple(Action)


def _pattern(text: str) -> str:
    pattern_of(text)
    return text


def _combination(text: str) -> str:
    if not _COMBINE.fullmatch(text):
        raise ValueError("is not any, all or vote(n), n being how many detectors have to say so")
    return text


Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Pattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_pattern)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=-1e6, lt=1e6)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Word = Annotated[str, Field(min_length=1, max_length=200)]
LabelName = Annotated[str, Field(min_length=1, max_length=100)]
FieldName = Annotated[str, Field(pattern=_FIELD, max_length=256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Detector(_Part):
    required: Annotated[bool, Field(strict=True)] = True
    """Whether an item that it applies to, and for which it has nothing to go by, is held back when it might decide."""


class _OfVectors(_Detector):
    items: Annotated[tuple[Modality, ...], Field(min_length=1, max_length=2)] = ("image", "text")
    """What it applies to: pictures, frames and pages, or texts, or both."""


class Prompts(_OfVectors):
    """Texts that describe the category, compared with the item's vector in the collection's own space."""

    type: Literal["prompts"]
    positive: Annotated[tuple[Prompt, ...], Field(min_length=1, max_length=256)]
    negative: Annotated[tuple[Prompt, ...], Field(max_length=256)] = ()
    """What looks alike and is not meant: it takes from the positives' odds."""
    template: Template = "ensemble"
    """A set of prompts by its name (`models.templates`), or one prompt with `{}` in the text's place."""

    @property
    def texts(self) -> list[list[str]]:
        """What is embedded for each positive and then each negative text."""
        return [filled(text, self.template) for text in (*self.positive, *self.negative)]


class Classifier(_Detector):
    """An image classifier's probability that a picture has one of these labels."""

    type: Literal["classifier"]
    model: ModelName
    labels: Annotated[tuple[LabelName, ...], Field(min_length=1, max_length=256)]
    """Their probabilities are added up."""


class Linear(_OfVectors):
    """A logistic over the item's vector: sigmoid(weights . vector + bias), as fitted on reviewed items."""

    type: Literal["linear"]
    weights: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=MOST_WEIGHTS)]
    bias: Finite
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """Of the vector space that it was fitted in; in another, it is refused."""


class Hash(_Detector):
    """Whether an item is on a list of hashes: the same bytes by sha256, or nearly the same picture by PDQ."""

    type: Literal["hash"]
    list: SetName
    """The list's name."""
    kinds: Annotated[tuple[Literal["sha256", "pdq"], ...], Field(min_length=1, max_length=2)] = ("sha256", "pdq")
    distance: Annotated[int, Field(ge=0, le=FARTHEST, strict=True)] = MATCH_DISTANCE
    """Up to how many bits of a PDQ hash may differ; past 47 a long list is compared one by one, which is slow."""


class Text(_Detector):
    """Words and patterns, any of which in the item's texts is enough."""

    type: Literal["text"]
    words: Annotated[tuple[Word, ...], Field(max_length=MOST_WORDS)] = ()
    """Whole words or phrases, found whatever their case, accents and look-alike letters."""
    patterns: Annotated[tuple[Pattern, ...], Field(max_length=MOST_PATTERNS)] = ()
    """Regular expressions as RE2 reads them; case does not count."""
    fields: Annotated[tuple[FieldName, ...], Field(min_length=1, max_length=32)] = (TEXT_FIELD, CAPTION)
    """`text`: the item's own, with what is in its record; else fields of its payload."""

    @model_validator(mode="after")
    def _has_rules(self) -> Self:
        if not self.words and not self.patterns:
            raise ValueError("has neither words nor patterns")
        if self.words:
            words_of(self.words)
        return self


Detector = Annotated[Prompts | Classifier | Linear | Hash | Text, Field(discriminator="type")]


class Category(_Part):
    """One thing that items are judged for."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    description: Annotated[str, Field(max_length=1000)] = ""
    trust: Annotated[str, Field(max_length=1000)] = ""
    """How far to trust it, and with which bundle."""
    action: Action
    threshold: Share = 0.5
    """The probability from which on an item is of it."""
    combine: Annotated[str, AfterValidator(_combination)] = "any"
    """How many detectors have to say so: `any`, `all`, or `vote(n)`."""
    detectors: Annotated[tuple[Detector, ...], Field(min_length=1, max_length=MOST_DETECTORS)]

    @property
    def needed(self) -> int:
        """How many detectors have to reach the threshold."""
        if self.combine == "all":
            return len(self.detectors)
        votes = _COMBINE.fullmatch(self.combine)
        return int(votes[1] or 1) if votes else 1

    @model_validator(mode="after")
    def _has_as_many(self) -> Self:
        if self.needed > len(self.detectors):
            raise ValueError(f"needs {self.needed} detectors to agree, and has {len(self.detectors)}")
        return self


class Policy(_Part):
    """Categories under one name."""

    name: SetName
    description: Annotated[str, Field(max_length=4000)] = ""
    categories: Annotated[tuple[Category, ...], Field(min_length=1, max_length=MOST_CATEGORIES)]

    @cached_property
    def version(self) -> str:
        """16 hex digits of everything in it. What is as by default does not count, so that new options change none."""
        whole = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def detectors(self) -> list[Prompts | Classifier | Linear | Hash | Text]:
        """Of all categories, one after the other."""
        return [detector for category in self.categories for detector in category.detectors]

    @property
    def fields(self) -> tuple[str, ...]:
        """What its text rules read."""
        read = (field for each in self.detectors if isinstance(each, Text) for field in each.fields)
        return tuple(dict.fromkeys(read))

    @property
    def models(self) -> tuple[str, ...]:
        """The image classifiers whose scores it needs."""
        return tuple(dict.fromkeys(each.model for each in self.detectors if isinstance(each, Classifier)))

    @property
    def lists(self) -> tuple[str, ...]:
        """The hash lists that it needs."""
        return tuple(dict.fromkeys(each.list for each in self.detectors if isinstance(each, Hash)))

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        names = [category.name for category in self.categories]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise PydanticCustomError("category_twice", "has the category {name} twice", {"name": repr(twice[0])})
        rules = [each for each in self.detectors if isinstance(each, Text)]
        prompts = [each for each in self.detectors if isinstance(each, Prompts)]
        counts = (
            (sum(len(some) for each in prompts for some in each.texts), MOST_PROMPTS, "prompts"),
            (sum(len(rule.words) for rule in rules), MOST_WORDS, "words"),
            (sum(len(rule.patterns) for rule in rules), MOST_PATTERNS, "patterns"),
        )
        for count, most, what in counts:
            if count > most:
                raise ValueError(f"has {count:,} {what} in all, templates included; {most:,} is the most")
        return self
