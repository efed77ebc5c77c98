"""Filters: Qdrant's own language, checked with qdrant-client's own models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from indexer.items import RECORD_KEY, Kind
from search_api.request import invalid_request

if TYPE_CHECKING:
    from qdrant_client.models import Filter


def parse_filter(body: dict[str, Any] | None) -> Filter | None:
    """The filter of a request, if it has one.

    Raises:
        InvalidRequest: naming the field that is wrong.
    """
    if body is None:
        return None
    from qdrant_client.http.models import Filter  # noqa: PLC0415  half a second that a search without filter saves

    try:
        return Filter.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, prefix="filter") from error


def of_kind(kind: Kind, among: Filter | None = None) -> Filter:
    """The items of one kind, among those that a filter lets through."""
    from qdrant_client.http.models import FieldCondition, Filter, MatchValue  # noqa: PLC0415

    condition = FieldCondition(key=f"{RECORD_KEY}.kind", match=MatchValue(value=kind.value))
    return Filter(must=[condition] if among is None else [condition, among])


def no_texts(among: Filter | None = None) -> Filter:
    """The pictures, of whatever kind, among those that a filter lets through."""
    from qdrant_client.http.models import Filter  # noqa: PLC0415

    return Filter(must=among, must_not=of_kind(Kind.TEXT).must)
