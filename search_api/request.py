"""What may be asked: the search request of HTTP and of the command line, checked before anything runs."""

import base64
import binascii
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import from_json

from indexer.errors import InvalidRequest
from indexer.items import Kind, Modality
from indexer.models.templates import PLACE, SETS, is_template
from search_api.pages import MAX_CURSOR

MAX_TERMS = 16
MAX_LIMIT = 100
MAX_DEPTH = 1000
"""Results of one query that can be reached by turning pages."""
MAX_SEARCHES = 100
"""Searches in one request."""
MOST_RERANKED = 200
MOST_DEADLINE = 60_000
"""Milliseconds that reranking may take; of a batch's searches together, too."""
FILE = "crosslens.parent"
"""The field that frames of one video and pages of one document share."""
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,", re.ASCII)
_URL = re.compile(r"https?://", re.IGNORECASE)
_FIELD = re.compile(r"[^\s\[\].]+(\.[^\s\[\].]+)*")


def _encodable(text: str) -> str:
    """Refuse lone surrogates: an undecodable byte of a command line or a broken escape, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode") from error
    return text


def _image_bytes(value: Any, info: ValidationInfo) -> Any:
    """The image behind a string: an uploaded part of that name, a data URL, or plain base64; a URL stays one."""
    if not isinstance(value, str):
        return value
    if _URL.match(value):
        return value
    parts: dict[str, bytes] = (info.context or {}).get("parts", {})
    if value in parts:
        return parts[value]
    match = _DATA_URL.match(value)
    try:
        return base64.b64decode(value[match.end() :] if match else value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is no name of an uploaded part, no http(s) URL, and no base64 or data URL") from error


def _template(value: str) -> str:
    if not is_template(value):
        raise ValueError(f"is none of {', '.join(SETS)}, and no prompt with one {PLACE}")
    return value


def _field(value: str) -> str:
    if not _FIELD.fullmatch(value):
        raise ValueError("is no name of a field; those of nested fields are joined by dots")
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Of a strict integer: a JSON number without a fraction, as JSON Schema has integers, `5` and also `5.0`."""
Text = Annotated[str, AfterValidator(_encodable)]


Id = Annotated[Text, Field(min_length=1, max_length=512)]
FieldName = Annotated[Text, Field(min_length=1, max_length=256), AfterValidator(_field)]


class Term(BaseModel):
    """One part of a query: exactly one of text, image, item and vector, and how much it weighs.

    A negative weight leads away from what the term means.
    """

    # Strict: a number is a number, as the API's description says.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: Annotated[Text, Field(min_length=1, max_length=10_000)] | None = None
    template: Annotated[Text, Field(max_length=1000), AfterValidator(_template)] | None = None
    """Of a text: a set of prompts by its name, or one prompt with `{}` in the text's place."""
    image: Annotated[bytes | Text, BeforeValidator(_image_bytes), Field(min_length=1)] | None = None
    """The file's bytes, or the URL to fetch it from."""
    item: Id | None = None
    """The id of an item of the collection: the search begins from that item's own vector."""
    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=65_536)] | None = None
    """A vector in the space of the collection's model; normalised here."""
    modality: Modality | None = None
    """Of a vector: what was embedded; it is then weighed as such beside other terms."""
    weight: Annotated[FiniteFloat, Field(ge=-1000, le=1000)] = 1.0

    @model_validator(mode="after")
    def _one_thing_with_weight(self) -> Self:
        given = [name for name in ("text", "image", "item", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of text, image, item and vector, not {' and '.join(given) or 'none'}")
        if self.template is not None and self.text is None:
            raise ValueError("has a template, which is for texts")
        if self.modality is not None and self.vector is None:
            raise ValueError("has a modality, which is for vectors; others have their own")
        if self.weight == 0:
            raise ValueError("has a weight of 0; leave the term out instead")
        return self


class Rerank(BaseModel):
    """How much of the list to put in another order, and how long that may take."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    top: Annotated[int, Field(ge=1, le=MOST_RERANKED), WHOLE] = 50
    """How many of the best results are compared with the query's texts."""
    deadline_ms: Annotated[int, Field(ge=1, le=MOST_DEADLINE), WHOLE] = 300
    """Milliseconds for it, waiting for a turn included. What was not reached by then keeps its order."""


class SearchRequest(BaseModel):
    """A search: what to look for, among what, and how much of it to give.

    `kind` names what to find. Unset, everything is found, and in a collection that holds both pictures and texts they
    take turns, the best picture first: a query's cosine with a text and with a picture are on different scales (texts
    are nearer to texts than any photo is), so one list sorted by cosine would show every text before any photo.

    Without `query`, `like` and `dislike` it is a walk through the collection, in the order of `order_by` if that is
    given. With `cursor` it is the next page of the search that gave the cursor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    query: Annotated[list[Term], Field(max_length=MAX_TERMS)] = []
    like: Annotated[list[Id], Field(max_length=MAX_TERMS)] = []
    """Items to look for the like of: their average counts as one term."""
    dislike: Annotated[list[Id], Field(max_length=MAX_TERMS)] = []
    """Items to lead away from, likewise."""
    filter: dict[str, Any] | Text | None = None
    """Over the caller's fields and `crosslens.*`: in Qdrant's filter language, or in the short form
    `tag:beach year>=2020 -kind:video`."""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), WHOLE] = 10
    kind: Annotated[Kind, Field(strict=False)] | None = None
    cursor: Annotated[Text, Field(min_length=1, max_length=MAX_CURSOR)] | None = None
    order_by: Annotated[Text, Field(min_length=1, max_length=257)] | None = None
    """A declared field, `-` before it for descending order. With a query: the order of those of the best
    `MAX_DEPTH` that are relevant enough."""
    diversity: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.0
    """How much results should differ from one another: 0 is the plain order, 1 looks for nothing else."""
    collapse: Annotated[list[Literal["bytes", "picture", "alike"]], Field(max_length=3)] = []
    """What counts as the same and is given once: the same bytes, the same picture (PDQ), or one that looks alike."""
    group_by: FieldName | None = FILE
    """A field of which each value is given `group_size` times: by default one frame of a video, one page of a PDF."""
    group_size: Annotated[int, Field(ge=1, le=10), WHOLE] = 1
    min_relevance: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    """Results less probable than that are left out; none may be left."""
    rerank: bool | Rerank = False
    """Put the best results in the order of a model that compares each with the query's texts; `true` is `{}`."""
    explain: bool = False
    """Say of each result what each term had in it, and what reranking made of it."""
    exact: bool = False
    """Compare with every item instead of going through the index's graph."""

    @property
    def reranking(self) -> Rerank | None:
        """How to rerank; None: not at all."""
        if isinstance(self.rerank, Rerank):
            return self.rerank
        return Rerank() if self.rerank else None

    @property
    def terms(self) -> list[Term]:
        """All terms, with those of likes and dislikes."""
        toward = (2.0 if self.dislike else 1.0) / max(1, len(self.like))
        away = -1.0 / max(1, len(self.dislike))
        liked = [Term(item=item, weight=toward) for item in self.like]
        return [*self.query, *liked, *(Term(item=item, weight=away) for item in self.dislike)]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        asked = bool(self.query or self.like)
        if len(self.query) + len(self.like) + len(self.dislike) > MAX_TERMS:
            raise ValueError(f"has more than {MAX_TERMS} terms with its likes and dislikes")
        if self.dislike and not asked:
            raise ValueError("has dislikes alone; say what to look for, too")
        if self.cursor is not None:
            if extra := self.model_fields_set - {"cursor", "limit"}:
                raise ValueError(f"has a cursor, which knows what was asked: leave out {', '.join(sorted(extra))}")
        elif not asked:
            needing = {"diversity", "collapse", "min_relevance", "rerank", "explain", "exact", "group_size"}
            if extra := self.model_fields_set & needing:
                raise ValueError(f"has {', '.join(sorted(extra))}, which a search without a query cannot have")
        if self.reranking is not None and (self.order_by is not None or self.diversity > 0):
            given = "order_by" if self.order_by is not None else "diversity"
            raise ValueError(f"has rerank and {given}, each of which decides the order: leave one of them out")
        return self

    @classmethod
    def parse(cls, body: Any, parts: dict[str, bytes] | None = None) -> Self:
        """A request from decoded JSON; `parts` are uploaded files by the names that image terms use.

        Raises:
            InvalidRequest: naming the first field that is wrong.
        """
        try:
            return cls.model_validate(body, context={"parts": parts or {}})
        except ValidationError as error:
            raise invalid_request(error) from error


def parse_json(data: bytes, what: str = "The body") -> Any:
    """Decode strict JSON: no NaN, no lone surrogates, no bottomless nesting.

    Raises:
        InvalidRequest: with the place of the first mistake.
    """
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}.", remedy="Send one JSON document in UTF-8.") from error


def invalid_request(error: ValidationError, prefix: str = "") -> InvalidRequest:
    """The error of a request that does not validate, as one sentence about its most telling field.

    Unions (a Qdrant filter is full of them) fail in every branch; the branch that got furthest is the one meant.
    """
    first = max(error.errors(include_url=False, include_input=False), key=lambda problem: len(problem["loc"]))
    # Branches of a union appear in the path as type names: `list[...]`, `FieldCondition`.
    steps = [str(step) for step in first["loc"] if isinstance(step, int) or re.fullmatch(r"[a-z_]+", step)]
    where = ".".join([prefix, *steps] if prefix else steps) or "body"
    message = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{where}: {message}.", field=where)
