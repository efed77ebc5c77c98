"""Filters: Qdrant's own language, or the short form for people; either is checked against the collection's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from indexer.items import RECORD_KEY, Kind
from search_api.filter_checks import check_fields, check_size
from search_api.request import invalid_request
from search_api.short_filters import parse_short

if TYPE_CHECKING:
    from qdrant_client.models import Filter


def parse_filter(body: dict[str, Any] | str | None, types: Mapping[str, str]) -> Filter | None:
    """The filter of a request, if it has one: in Qdrant's language, or in the short form.

    `types` are those of the collection's declared fields. In Qdrant's language no others are taken, but those of
    Crosslens' own record that are indexed; in the short form they are compared with what a value looks like.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    if body is None or body == "":
        return None
    from qdrant_client.http.models import Filter  # noqa: PLC0415  half a second that a search without filter saves

    if isinstance(body, str):
        return Filter.model_validate(parse_short(body, types))
    from indexer.store.fields import OWN  # noqa: PLC0415  likewise

    check_size(body)
    try:
        among = Filter.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, prefix="filter") from error
    check_fields(among, {**types, **OWN})
    return among


def of_kind(kind: Kind, among: Filter | None = None) -> Filter:
    """The items of one kind, among those that a filter lets through."""
    from qdrant_client.http.models import FieldCondition, Filter, MatchValue  # noqa: PLC0415

    condition = FieldCondition(key=f"{RECORD_KEY}.kind", match=MatchValue(value=kind.value))
    return Filter(must=[condition] if among is None else [condition, among])


def no_texts(among: Filter | None = None) -> Filter:
    """The pictures, of whatever kind, among those that a filter lets through."""
    from qdrant_client.http.models import Filter  # noqa: PLC0415

    return Filter(must=among, must_not=of_kind(Kind.TEXT).must)


def once_a_file(among: Filter | None = None) -> Filter:
    """Of a video's frames and a PDF's pages the first, which stands for the file; and all other items."""
    from qdrant_client.http.models import Filter, IsEmptyCondition, PayloadField  # noqa: PLC0415

    single = IsEmptyCondition(is_empty=PayloadField(key=f"{RECORD_KEY}.parent"))
    later = IsEmptyCondition(is_empty=PayloadField(key=f"{RECORD_KEY}.frames"))
    return Filter(must=among, should=[single, Filter(must_not=[later])])
