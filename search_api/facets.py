"""`POST /v1/collections/{c}/facets`: the values of fields, and how many items have each under a filter."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from indexer.items import Kind
from search_api.bodies import json_body, validated
from search_api.filters import of_kind, once_a_file, parse_filter
from search_api.request import FILE, WHOLE, FieldName, Text
from search_api.short_filters import OWN_FIELDS
from search_api.views import seen

blueprint = Blueprint("facets", __name__, url_prefix="/v1/collections/<name>/facets")

MAX_FIELDS = 16


class FacetRequest(BaseModel):
    """Which fields are counted, among what."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fields: Annotated[list[FieldName], Field(min_length=1, max_length=MAX_FIELDS)]
    """Declared keyword, integer or boolean fields; Crosslens' own by their short names, such as `kind`."""
    filter: dict[str, Any] | Text | None = None
    """As in a search."""
    kind: Annotated[Kind, Field(strict=False)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = 20
    """Values of a field, the most frequent ones."""
    group_by: FieldName | None = FILE
    """As in a search: by default a video and a document count once."""


@blueprint.post("")
def facets(name: str) -> Response:
    """Count the values of fields, exactly."""
    request = validated(FacetRequest, json_body())
    collection = seen(name)
    among = parse_filter(request.filter, collection.fields)
    if request.kind is not None:
        among = of_kind(request.kind, among)
    if request.group_by == FILE:
        among = once_a_file(among)
    counted = {}
    for field in request.fields:
        key = field if field in collection.fields else OWN_FIELDS.get(field, field)
        values = collection.facet(key, filter=among, limit=request.limit)
        counted[field] = [{"value": value, "count": count} for value, count in values.items()]
    return jsonify({"facets": counted, "total": collection.count(among)})
