"""What the API and the workers that rerank say to each other through Redis: JSON, checked and bounded at either end.

crosslens:rerank:workers         sorted set  who reranks (`Present`), by when that ceases to be true
crosslens:rerank:image, :text    list        ids of requests that wait, for who has a model for pictures, for texts;
crosslens:rerank:image:patient, :text:patient  of those that have more time than `HURRIED_MS`
crosslens:rerank:request:ID      string      a request; it expires with its search's deadline, by Redis' own clock
crosslens:rerank:answers:REPLY   list        answers to one API process, which alone knows the name

Whoever writes to this Redis could write anything, so that nothing is believed which does not parse.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from indexer.items import Kind, Location, Modality, Record
from indexer.rerank.comparing import Batch, Match, Text
from indexer.store.points import Stored

MOST_ITEMS = 200
MOST_SECONDS = 60
"""As the API's own bounds are."""
MOST_BYTES = 2**20
"""Of a request, and of an answer. Items that do not fit keep their order: 200 texts of five kilobytes do."""
MOST_WAITING = 64
"""Requests in a queue; beyond, the workers are too far behind to be of use."""
HURRIED_MS = 1000
"""Requests with no more time than that wait in queues of their own, so that none waits behind long ones."""
LIFE_SECONDS = 5
"""How long a sign of life is good for."""
_MOST_TEXT = 16_384
"""Characters of an item's text, so that long ones leave room for others: more than most cross-encoders read. What is
cut off is said (`is_cut`)."""
_MOST_PLACES = 32
"""Places of an item's file that are named, of those where it was found."""
_ADDED = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = "crosslens:rerank"

MODALITIES: tuple[Modality, ...] = ("image", "text")
WORKERS = f"{_KEY}:workers"

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def queue(modality: Modality, ms: int) -> str:
    """The key of the queue of requests that have so much time."""
    return f"{_KEY}:{modality}" if ms <= HURRIED_MS else f"{_KEY}:{modality}:patient"


QUEUES = tuple(queue(modality, ms) for ms in (HURRIED_MS, MOST_SECONDS * 1000) for modality in MODALITIES)


def request_key(request_id: str) -> str:
    """The key of a request."""
    return f"{_KEY}:request:{request_id}"


def answers_key(reply: str) -> str:
    """The key of the answers to one API process."""
    return f"{_KEY}:answers:{reply}"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Query(_Message):
    """A text that items are compared with."""

    text: Annotated[str, Field(min_length=1, max_length=10_000)]
    weight: Annotated[FiniteFloat, Field(gt=0)]


class Item(_Message):
    """What is needed of an item's record to find its picture, or its text."""

    kind: Kind
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    locations: Annotated[list[Location], Field(max_length=_MOST_PLACES)] = []
    text: Annotated[str, Field(max_length=_MOST_TEXT)] | None = None
    parent: Annotated[str, Field(max_length=64)] | None = None
    seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    page: Annotated[int, Field(gt=0, le=10**6)] | None = None

    @classmethod
    def of(cls, record: Record) -> Item:
        """An item's."""
        is_text = record.kind is Kind.TEXT
        return cls(
            kind=record.kind,
            sha256=record.sha256,
            locations=[] if is_text else [each for each in record.locations if _is_utf8(each.source)][:_MOST_PLACES],
            text=(record.text or "")[:_MOST_TEXT].encode("utf-8", "replace").decode() if is_text else None,
            parent=record.parent,
            seconds=record.seconds,
            page=record.page,
        )

    def stored(self) -> Stored:
        """As who compares takes it; what was not sent is empty."""
        fields = {name: getattr(self, name) for name in Item.model_fields}
        return Stored("", Record(**fields, bytes=0, media_type="", added_at=_ADDED), {})


class Request(_Message):
    """One search's list of one modality, the best first."""

    id: Id
    reply: Id
    modality: Modality
    texts: Annotated[list[Query], Field(min_length=1, max_length=64)]
    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]
    ms: Annotated[int, Field(gt=0, le=MOST_SECONDS * 1000)]
    """What was left of its time when it was queued; its key expired then."""


class Answer(_Message):
    """What a batch gave, or how it ended."""

    id: Id
    found: Annotated[
        dict[Annotated[int, Field(ge=0, lt=MOST_ITEMS)], tuple[FiniteFloat, FiniteFloat | None, FiniteFloat] | None],
        Field(max_length=MOST_ITEMS),
    ] = {}
    """By the items' places: matching, contrastive, score; null where there is nothing to compare."""
    truncated: bool = False
    over: bool = False
    """Nothing more will come: the time was up, or there is an `error`."""
    error: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")] | None = None
    """The code of what hindered it; the worker's log says more."""

    @classmethod
    def of(cls, request_id: str, batch: Batch) -> Answer:
        """What a batch gave."""
        found = {
            place: None if match is None else (match.matching, match.contrastive, match.score)
            for place, match in batch.found.items()
        }
        return cls(id=request_id, found=found, truncated=batch.truncated)

    def matches(self) -> dict[int, Match | None]:
        """What was found."""
        return {place: None if each is None else Match(*each) for place, each in self.found.items()}


class Model(_Message):
    """A model that a worker has."""

    name: Annotated[str, Field(max_length=256)]
    state: Literal["opening", "open", "failed"]


class Present(_Message):
    """A worker that is there."""

    name: Annotated[str, Field(max_length=300)]
    image: Model | None
    text: Model | None

    def model(self, modality: Modality) -> Model | None:
        """What it has for a modality."""
        return self.image if modality == "image" else self.text


def written(
    request_id: str, reply: str, modality: Modality, texts: Sequence[Text], items: Sequence[Stored]
) -> tuple[str, int]:
    """A request in JSON but for its end, and how many of the items, from the first, are in it. `finished` ends it."""
    queries = [{"text": each.text, "weight": each.weight} for each in texts]
    head = {"id": request_id, "reply": reply, "modality": modality, "texts": queries}
    begun = json.dumps(head, ensure_ascii=False)[:-1] + ', "items": ['
    room = MOST_BYTES - len(begun.encode()) - len(finished("", MOST_SECONDS * 1000))
    lines: list[str] = []
    for item in items[:MOST_ITEMS]:
        line = Item.of(item.record).model_dump_json(exclude_none=True)
        room -= len(line.encode()) + 1
        if room < 0:
            break
        lines.append(line)
    return begun + ",".join(lines), len(lines)


def is_cut(record: Record) -> bool:
    """Whether a text is longer than what is sent of it."""
    return len(record.text or "") > _MOST_TEXT


def finished(begun: str, milliseconds: int) -> str:
    """The request in whole, with what is left of its time now."""
    return f'{begun}], "ms": {milliseconds}}}'


def _is_utf8(source: str) -> bool:
    """Whether a path has only what JSON can carry; of a file whose name is no UTF-8, a copy by its hash may be had."""
    try:
        source.encode()
    except UnicodeEncodeError:
        return False
    return True
