"""`/v1/collections`: make, see and remove collections, and declare the fields of their items."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from indexer.errors import CollectionNotFound
from indexer.items import check_collection_name
from indexer.moderation.visible import visible
from indexer.rerank.wanted import want_features, wants_features
from indexer.store.fields import DEFAULTS, MOST, MOST_CHARACTERS, FieldType, schemas
from search_api.bodies import json_body, validated
from search_api.request import Text
from search_api.services import Services, services
from search_api.views import as_moderator, seen

if TYPE_CHECKING:
    from indexer.store.collection import Collection

blueprint = Blueprint("collections", __name__, url_prefix="/v1/collections")


class NewCollection(BaseModel):
    """The body of PUT, which may be left out."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")] | None = None
    """An installed bundle, by name. Unset: the server's default for a new collection, any for one that is there."""
    fields: Annotated[
        dict[Annotated[Text, Field(min_length=1, max_length=MOST_CHARACTERS)], FieldType], Field(max_length=MOST)
    ] = {}
    """Fields of the items' payload to declare, with their types; those that are declared as such already stay."""
    rerank_features: StrictBool | None = None
    """Whether to compute what a reranker sees in pictures when they are ingested, not when they are first found.
    Unset, it stays as it is; in a new collection they are not."""


@blueprint.get("")
def list_collections() -> Response:
    """Every collection, by name."""
    as_seen = (lambda collection: collection) if as_moderator() else visible
    models = services().rerankers.names()
    return jsonify({"collections": [described(as_seen(each), models) for each in services().store.list()]})


@blueprint.get("/<name>")
def get_collection(name: str) -> Response:
    """One collection: its model, how many items it holds, its declared fields, and what reranks it."""
    return jsonify(described(seen(name), services().rerankers.names()))


@blueprint.put("/<name>")
def put_collection(name: str) -> tuple[Response, int]:
    """Make a collection: 201. The same again is no change: 200; with another model it is refused: 409.

    `fields` are declared, in a collection that is there, too: filters in Qdrant's language, facets and orders need
    that. Where there are items already, each new field costs a pass over all of them.
    """
    check_collection_name(name)
    body = validated(NewCollection, json_body(default={}))
    collection, made = ready(services(), name, body.model, body.fields, rerank_features=body.rerank_features)
    return jsonify(described(visible(collection), services().rerankers.names())), 201 if made else 200


@blueprint.delete("/<name>")
def delete_collection(name: str) -> tuple[str, int]:
    """Remove a collection with all its vectors and records. Originals on disk are never touched."""
    services().delete(check_collection_name(name))
    return "", 204


def ready(
    parts: Services,
    name: str,
    model: str | None,
    fields: Mapping[str, FieldType],
    *,
    rerank_features: bool | None = None,
) -> tuple[Collection, bool]:
    """The collection with its fields declared, and whether it was made just now.

    Without a word of its model, one that is there will do, whatever its model; its `rerank_features` then stay, too.

    Raises:
        BundleNotFound, ModelMismatch: as `Services.create`.
        InvalidRequest: as `Store.declare`; nothing was made then.
    """
    schemas(fields, DEFAULTS)  # what a new one would have
    collection, made = _found(parts, name) if model is None else None, False
    if collection is None:
        collection, made = parts.create(name, model)
    if fields:
        collection = parts.store.declare(collection.name, fields)
        parts.forget_engines(name)
    if rerank_features is not None:
        want_features(parts.store, name, rerank_features)
        collection = parts.collection(name)
    return collection, made


def _found(parts: Services, name: str) -> Collection | None:
    with suppress(CollectionNotFound):
        return parts.collection(name)
    return None


def described(collection: Collection, rerankers: Mapping[str, str | None]) -> dict[str, Any]:
    """A collection as answers have it; `rerankers` are the models that rerank here, by what they rerank."""
    return {
        "name": collection.name,
        "model": collection.model,
        "fingerprint": collection.fingerprint,
        "dimension": collection.dimension,
        "count": collection.count(),
        "fields": collection.fields,
        "reranker": dict(rerankers),
        "rerank_features": wants_features(collection),
    }
