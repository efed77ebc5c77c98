"""What can be said of an operation: the form of it, and what many have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from indexer import errors
from indexer.errors import CrosslensError
from search_api.openapi.shapes import Schema
from search_api.problems import WrongContentType

Errors = tuple[type[CrosslensError], ...]

BINARY: Schema = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Content:
    """An answer that is no JSON document of ours."""

    media_type: str
    about: str
    schema: Schema | None = None


@dataclass(frozen=True)
class Query:
    """A query parameter."""

    name: str
    schema: Schema
    about: str


@dataclass(frozen=True)
class Operation:
    """One operation."""

    tag: str
    answers: Mapping[int, type[BaseModel] | Content | None]
    """By status; None: no body."""
    errors: Errors = ()
    """Beside those that any operation can give."""
    body: type[BaseModel] | Schema | None = None
    body_required: bool = True
    other_bodies: Mapping[str, Schema] = field(default_factory=dict)
    """The body as something else than JSON, by content type."""
    form: Schema | None = None
    """The body as a multipart form."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Bodies, by what they do."""
    form_example: Any = None
    query: tuple[Query, ...] = ()
    headers: tuple[Query, ...] = ()
    links: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    """By name: which operation goes on from the answer, with which parameters."""
    problem: type[BaseModel] | None = None
    """What a 503 holds, if not a plain problem."""


INDEX: Errors = (errors.IndexUnavailable, errors.IndexOwned, errors.ServerTooOld)
COLLECTION: Errors = (*INDEX, errors.CollectionNotFound, errors.InvalidName)
MODEL: Errors = (
    errors.ModelMismatch, errors.BundleNotFound, errors.InvalidBundle, errors.UnknownRecipe, errors.DeviceUnavailable,
    errors.EncoderFailed, errors.Overloaded,
)  # fmt: skip
BODY: Errors = (errors.InvalidRequest, WrongContentType)
ITEM: Errors = (*COLLECTION, errors.ItemNotFound)
FILE: Errors = (
    errors.EmptyFile, errors.NotAnImage, errors.UnsupportedFormat, errors.Truncated, errors.Unreadable,
    errors.TooManyPixels, errors.TooLarge,
)  # fmt: skip
FETCHED: Errors = (errors.UrlRefused, errors.FetchFailed, errors.FetchTimeout)
ORIGINAL: Errors = (*FILE, *FETCHED, errors.MediaGone, errors.AccessDenied, errors.MediaStoreUnavailable,
                    errors.NoVideo, errors.Encrypted, errors.MissingExtra)  # fmt: skip
QUERY: Errors = (
    *COLLECTION, *BODY, *MODEL, *FILE, *FETCHED, errors.TextsOnly, errors.InvalidVector, errors.ItemNotFound,
)  # fmt: skip
QUEUE: Errors = (errors.BrokerUnavailable, errors.KeysUnavailable)
JOB: Errors = (*QUEUE, errors.JobNotFound)
SUBMIT: Errors = (*QUEUE, errors.TooBusy)

MOMENT = {"type": "string", "maxLength": 64, "examples": ["2027-01-31T12:00:00Z", "7d"]}
TO_JOB = {"job": ("get_job", {"job_id": "$response.body#/job"})}


def count(name: str, about: str, most: int, default: int, least: int = 0) -> Query:
    """A query parameter that is a whole number between two others."""
    return Query(name, {"type": "integer", "minimum": least, "maximum": most, "default": default}, about)


def form_of(request: Schema, **parts: Schema) -> Schema:
    """A multipart form of a part `request`, and of files."""
    properties = {"request": request, **parts}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def ref(name: str) -> Schema:
    """A component, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}
