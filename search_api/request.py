"""What may be asked: the search request of HTTP and of the command line, checked before anything runs."""

import base64
import binascii
import re
from typing import Annotated, Any, Self

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
from indexer.items import Kind

MAX_TERMS = 16
MAX_LIMIT = 100
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,", re.ASCII)


def _encodable(text: str) -> str:
    """Refuse lone surrogates: an undecodable byte of a command line or a broken escape, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode") from error
    return text


def _image_bytes(value: Any, info: ValidationInfo) -> Any:
    """The image behind a string: an uploaded part of that name, a data URL, or plain base64."""
    if not isinstance(value, str):
        return value
    parts: dict[str, bytes] = (info.context or {}).get("parts", {})
    if value in parts:
        return parts[value]
    match = _DATA_URL.match(value)
    try:
        return base64.b64decode(value[match.end() :] if match else value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is neither the name of an uploaded part nor base64 nor a base64 data URL") from error


Text = Annotated[str, AfterValidator(_encodable)]


class Term(BaseModel):
    """One part of a query: exactly one of text, image, item and vector, and how much it weighs.

    A negative weight leads away from what the term means.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Annotated[Text, Field(min_length=1, max_length=10_000)] | None = None
    image: Annotated[bytes, BeforeValidator(_image_bytes), Field(min_length=1)] | None = None
    """The file's bytes."""
    item: Annotated[Text, Field(min_length=1, max_length=512)] | None = None
    """The id of an item of the collection: the search begins from that item's own vector."""
    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=65_536)] | None = None
    """A vector in the space of the collection's model; normalised here."""
    weight: Annotated[FiniteFloat, Field(ge=-1000, le=1000)] = 1.0

    @model_validator(mode="after")
    def _one_thing_with_weight(self) -> Self:
        given = [name for name in ("text", "image", "item", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of text, image, item and vector, not {' and '.join(given) or 'none'}")
        if self.weight == 0:
            raise ValueError("has a weight of 0; leave the term out instead")
        return self


class SearchRequest(BaseModel):
    """A search: what to look for, among what, and how much of it to give.

    `kind` names what to find, images or texts. Unset, both are found, and in a collection that holds both they take
    turns, the best image first: a query's cosine with a text and with an image are on different scales (texts are
    nearer to texts than any photo is), so one list sorted by cosine would show every text before any photo.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[list[Term], Field(min_length=1, max_length=MAX_TERMS)]
    filter: dict[str, Any] | None = None
    """In Qdrant's filter language, over the caller's fields and `crosslens.*`."""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 10
    kind: Kind | None = None

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
