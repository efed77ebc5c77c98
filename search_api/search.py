"""`POST /v1/collections/{c}/search`: by text, image, item, vector, or a weighted sum of them; one search or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from flask import Blueprint, Response, g, jsonify
from pydantic import BaseModel, ConfigDict, Field

from indexer import tracing
from indexer.items import check_collection_name, point_id
from indexer.moderation.stored import is_moderated
from search_api.bodies import form_json, is_form, json_body, named_files, validated
from search_api.engine import SearchEngine
from search_api.moderation.queries import allowed
from search_api.request import MAX_SEARCHES, SearchRequest
from search_api.results import SearchAnswer
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
    moderator = as_moderator()
    engine = services().engine(check_collection_name(name), everything=moderator)
    asked = _from_form() if is_form() else SearchRequest.parse(json_body())
    answer = engine.search(asked if moderator else allowed(engine.collection, [asked])[0])
    g.stages = answer.stages
    tracing.record_stages(answer.stages)
    if not moderator:
        _count(engine, [answer])
    return jsonify(answer.as_dict(for_moderator=moderator))


@blueprint.post("/batch")
def search_batch(name: str) -> Response:
    """Answer several searches, `{"searches": [...]}`: their texts are embedded in one run, the index is asked at once.

    One that is wrong refuses all.
    """
    moderator = as_moderator()
    engine = services().engine(check_collection_name(name), everything=moderator)
    requests = validated(Searches, json_body()).searches
    answers = engine.search_many(requests if moderator else allowed(engine.collection, requests))
    # They share every stage but the last, which each has for itself.
    *shared, last = answers[0].stages
    own = sum(answer.stages[last] for answer in answers)
    tracing.record_stages({**{stage: answers[0].stages[stage] for stage in shared}, last: own})
    if not moderator:
        _count(engine, answers)
    return jsonify({"answers": [answer.as_dict(for_moderator=moderator) for answer in answers]})


def _count(engine: SearchEngine, answers: Sequence[SearchAnswer]) -> None:
    """Count what visitors of a moderated collection are shown."""
    collection = engine.collection
    if is_moderated(collection):
        shown = (result.id for answer in answers for result in answer.results)
        services().impressions.add(collection.name, (point_id(collection.name, each) for each in shown))


def _from_form() -> SearchRequest:
    parts = named_files(apart_from="request")
    body = form_json("request")
    if body is None:
        body = {"query": [{"image": part} for part in parts]}
    return SearchRequest.parse(body, parts)
