"""`POST /v1/collections/{c}/moderation/fit`: what people's decisions teach, as a proposal that nothing applies."""

from __future__ import annotations

import threading
import time
from typing import Annotated

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, ConfigDict, Field

from indexer.errors import PolicyNotFound, TooBusy
from indexer.items import check_collection_name
from indexer.moderation.judging import open_judge
from indexer.moderation.learning.gather import MOST_SAMPLED, learn_of
from search_api.bodies import json_body, validated
from search_api.services import services

blueprint = Blueprint("fit", __name__, url_prefix="/v1/collections/<name>/moderation/fit")

SAMPLE = 20_000
_running = threading.Lock()


class FitRequest(BaseModel):
    """What is wanted of a policy that is learned."""

    model_config = ConfigDict(extra="forbid")

    precision: Annotated[float, Field(gt=0, lt=1)] | None = 0.95
    """In the collection; null for the highest F1."""
    sample: Annotated[int, Field(ge=1, le=MOST_SAMPLED)] = SAMPLE
    """How many items of the collection stand for all."""


@blueprint.post("")
def fit_policy(name: str) -> Response:
    """Learn thresholds and linear heads from what people decided, and propose a policy; it is not put in force.

    Precision and recall are stated at the collection's own base rate, with intervals, and drawn as SVG. One at a time.
    """
    started = time.perf_counter()
    body = validated(FitRequest, json_body({}))
    parts = services()
    collection = parts.collection(check_collection_name(name))
    judge = open_judge(collection, parts.encoders.of(collection), parts.settings)
    if judge is None:
        raise PolicyNotFound(f"The collection {name!r} has no policy in force.", remedy="Put one in force first.")
    if not _running.acquire(blocking=False):
        raise TooBusy("Something else is being learned.", retry_after=5)
    try:
        report = learn_of(collection, judge, sample=body.sample, precision=body.precision)
    finally:
        _running.release()
    return jsonify({**report.as_dict(), "took_ms": round((time.perf_counter() - started) * 1000, 2)})
