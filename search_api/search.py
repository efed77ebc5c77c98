"""`POST /v1/collections/{c}/search`: by text, image, item, vector, or a weighted sum of them; one search or many."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, g, jsonify
from pydantic import BaseModel, ConfigDict, Field

from indexer import tracing
from indexer.errors import InvalidRequest
from indexer.items import check_collection_name
from search_api.bodies import form_files, form_json, is_form, json_body, validated
from search_api.engine import SHARED, SearchEngine
from search_api.moderation.queries import allowed
from search_api.request import MAX_SEARCHES, SearchRequest
from search_api.services import services
from search_api.views import as_moderator


class Searches(BaseModel):
    """Several searches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    searches: Annotated[list[SearchRequest], Field(min_length=1, max_length=MAX_SEARCHES)]


blueprint = Blueprint("search", __name__, url_prefix="/v1/collections/<name>/search")


@blueprint.post("")
def search(name: str) -> Response:
    """Answer a `SearchRequest`.

    As JSON, images are base64 or data URLs. As a multipart form, the part `request` holds the JSON and its image terms
    name the other parts; a form with files and no `request` asks for what is like all of those images.
    """
    engine = services().engine(check_collection_name(name), everything=as_moderator())
    asked = _from_form() if is_form() else SearchRequest.parse(json_body())
    answer = engine.search(_allowed(engine, [asked])[0])
    g.stages = answer.stages
    tracing.record_stages(answer.stages)
    return jsonify(answer.as_dict())


@blueprint.post("/batch")
def search_batch(name: str) -> Response:
    """Answer several searches, `{"searches": [...]}`: their texts are embedded in one run, the index is asked at once.

    One that is wrong refuses all.
    """
    engine = services().engine(check_collection_name(name), everything=as_moderator())
    requests = _allowed(engine, validated(Searches, json_body()).searches)
    answers = engine.search_many(requests)
    stages: dict[str, float] = {}
    for answer in answers:
        for stage, took in answer.stages.items():
            stages[stage] = took if stage in SHARED else stages.get(stage, 0.0) + took
    tracing.record_stages(stages)
    return jsonify({"answers": [answer.as_dict() for answer in answers]})


def _allowed(engine: SearchEngine, requests: list[SearchRequest]) -> list[SearchRequest]:
    """What is searched with, if the policy in force lets it; moderators search with anything."""
    return requests if as_moderator() else allowed(engine.collection, requests)


def _from_form() -> SearchRequest:
    parts: dict[str, bytes] = {}
    for part, _, content in form_files(apart_from="request"):
        if part in parts:
            raise InvalidRequest(f"Two parts are named {part!r}.", remedy="Give each image a name of its own.")
        parts[part] = content
    body = form_json("request")
    if body is None:
        body = {"query": [{"image": part} for part in parts]}
    return SearchRequest.parse(body, parts)
