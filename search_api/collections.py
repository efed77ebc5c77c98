"""`/v1/collections`: make, see and remove collections."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from indexer.items import check_collection_name
from search_api.bodies import json_body, validated
from search_api.services import services

blueprint = Blueprint("collections", __name__, url_prefix="/v1/collections")


class NewCollection(BaseModel):
    """The body of PUT, which may be left out."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")] | None = None
    """An installed bundle, by name; the server's default when unset."""


@blueprint.get("")
def list_collections() -> Response:
    """Every collection, by name."""
    collections = services().store.list()
    return jsonify({"collections": [_described(collection) for collection in collections]})


@blueprint.get("/<name>")
def get_collection(name: str) -> Response:
    """One collection: its model and how many items it holds."""
    return jsonify(_described(services().collection(check_collection_name(name))))


@blueprint.put("/<name>")
def put_collection(name: str) -> tuple[Response, int]:
    """Make a collection: 201. The same again is no change: 200; with another model it is refused: 409."""
    check_collection_name(name)
    body = validated(NewCollection, json_body(default={}))
    collection, made = services().create(name, body.model)
    return jsonify(_described(collection)), 201 if made else 200


@blueprint.delete("/<name>")
def delete_collection(name: str) -> tuple[str, int]:
    """Remove a collection with all its vectors and records. Originals on disk are never touched."""
    services().delete(check_collection_name(name))
    return "", 204


def _described(collection: Any) -> dict[str, Any]:
    return {
        "name": collection.name,
        "model": collection.model,
        "fingerprint": collection.fingerprint,
        "dimension": collection.dimension,
        "count": collection.count(),
    }
