"""What the API answers, as models: the document's response schemas, and the client's types.

A server may come to answer more than a client knows: members that are not here are passed over. The tests hold real
answers against these models with nothing passed over. Here are collections, items, searches and jobs; the others
have modules of their own beside this one, `*_answers`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from indexer.items import Kind, Location

Payload = dict[str, Any]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Absent = SkipJsonSchema[None]
"""In a union: the member is left out where there is nothing to tell, and is None in Python."""


class Answer(BaseModel):
    """What answers have in common."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Problem(Answer):
    """What went wrong, and what to do next (RFC 9457). Some have further members, such as the `field` that is wrong."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(pattern="^urn:crosslens:problem:")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    """What is wrong, in a sentence."""
    code: str
    """What is wrong, for programs."""
    remedy: str
    """What to do next."""
    instance: str
    """With the request's id, as in `X-Request-Id` and in the server's log."""
    retry_after: float | Absent = None
    """Seconds after which to ask again, as in `Retry-After`."""


class Failure(Answer):
    """Why something did not become an item."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    remedy: str


class Rerankers(Answer):
    """The models by which searches are reranked here; null where none is installed."""

    image: str | None
    text: str | None


class Collection(Answer):
    """A collection: which model's vectors it holds, how many items, and which fields of theirs are declared."""

    name: str
    model: str
    fingerprint: str
    """Names the vector space: vectors of another one cannot be compared with these."""
    dimension: Annotated[int, Field(ge=1)]
    count: Count
    fields: dict[str, str]
    """The declared fields of the items' payload, and their types."""
    reranker: Rerankers
    rerank_features: bool
    """Whether what a reranker sees in pictures is computed when they are ingested, not when they are first found."""


class CollectionList(Answer):
    """Collections, by name."""

    collections: list[Collection]


class UploadedItem(Answer):
    """What became of one item of an upload: an id, or the error that kept it out."""

    source: str
    """The file's name; `text` for texts."""
    id: str | Absent = None
    created: bool | Absent = None
    """False where it was there already."""
    error: Failure | Absent = None


class Uploaded(Answer):
    """What became of an upload, in its order."""

    items: list[UploadedItem]
    failed: Count


class Item(Answer):
    """An item: its payload, and what is known of its content."""

    id: str
    kind: Kind
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the file's bytes, or of a text's UTF-8."""
    locations: list[Location]
    """Where the same bytes were found."""
    bytes: Count
    media_type: str
    added_at: datetime
    payload: Payload
    width: int | Absent = None
    height: int | Absent = None
    pdq: str | Absent = None
    """The picture's PDQ hash, in hexadecimal."""
    text: str | Absent = None
    parent: str | Absent = None
    """Of a frame or page: the item that stands for its file."""
    seconds: Seconds | Absent = None
    page: int | Absent = None
    frames: int | Absent = None
    """How many frames or pages the file gave."""
    job: str | Absent = None


class Explanation(Answer):
    """What one term of the query had in a result."""

    term: str
    cosine: float
    share: float
    """Of the score, from -1 to 1."""


class Reranked(Answer):
    """What reranking made of a result: means over the query's texts, by their weights."""

    matching: float
    """The logit of a match."""
    contrastive: float | None
    """A cosine in the reranker's own space; null where it has none."""
    score: float
    """What the result was ranked by."""
    place_before: Annotated[int, Field(ge=1)]
    """Where it was before, from 1."""


class Result(Answer):
    """One result of a search."""

    id: str
    score: float | None
    """The cosine with the query; null in a walk through a collection."""
    relevance: Probability | None
    """How probable a match is; null where nothing can be said."""
    kind: Kind
    source: str
    """Where the item was first seen; a frame or page has `#t=12.5` or `#page=3` behind its file's."""
    payload: Payload
    text: str | Absent = None
    seconds: Seconds | Absent = None
    page: int | Absent = None
    parent: str | Absent = None
    explain: list[Explanation] | Absent = None
    rerank: Reranked | Absent = None
    """With `explain`, of results that were reranked."""
    verdict: dict[str, Any] | Absent = None
    """What moderation made of it; for moderators."""
    members: list[Result] | Absent = None
    """The best of its group besides itself."""


class SearchAnswer(Answer):
    """What a search found, best first, and how."""

    results: list[Result]
    took_ms: Seconds
    stages: dict[str, Seconds]
    """Milliseconds of each stage."""
    model: str
    fingerprint: str
    devices: dict[str, str]
    exact: bool
    """Whether every item was compared, without the index's graph."""
    relevance_from: dict[str, str]
    """What relevance rests on, by direction."""
    warnings: list[str]
    cursor: str | None
    """Asks for the next page; null on the last one."""
    reranked: Count | Absent = None
    """How many of the best were put in another order by comparing each with the query's texts, where that was asked
    for."""


class SearchAnswers(Answer):
    """The answers to several searches, in their order."""

    answers: list[SearchAnswer]


class FacetValue(Answer):
    """A value of a field, and how many items have it."""

    value: str | int | bool
    count: Count


class Facets(Answer):
    """The values of fields, the most frequent first."""

    facets: dict[str, list[FacetValue]]
    total: Count
    """Items that were counted."""


JobState = Literal["queued", "planning", "running", "done", "failed", "cancelled"]


class Job(Answer):
    """A job, and how far it is. Times are seconds since 1970."""

    job: str
    collection: str
    model: str
    sources: list[str]
    state: JobState
    note: str
    """What it waits for; empty when it waits for nothing."""
    error: Failure | None
    created: float
    started: float | None
    finished: float | None
    planned: Count
    total: Count
    indexed: Count
    skipped: Count
    failed: Count
    passed_over: Count
    truncated: Count
    seconds: Seconds
    items_per_second: Seconds
    eta: float | None
    """Seconds that are left."""


class JobList(Answer):
    """Jobs, the newest first."""

    jobs: list[Job]


class JobFailure(Failure):
    """One source that failed in a job."""

    source: str


class JobFailures(Answer):
    """A page of what failed in a job."""

    job: str
    failed: Count
    """How many in all."""
    failures: list[JobFailure]
