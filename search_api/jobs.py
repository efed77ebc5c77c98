"""`/v1/collections/{c}/ingest` and `/v1/jobs`: hand in, look, follow, retry, cancel."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from indexer.errors import InvalidRequest, TooBusy
from indexer.items import check_collection_name
from indexer.settings import Settings
from search_api.bodies import json_body, validated
from search_api.services import services
from workers.job import OVER
from workers.submit import Queue, available

blueprint = Blueprint("jobs", __name__, url_prefix="/v1")

_EVENT_SECONDS = 0.25
_FOLLOW_SECONDS = 60.0
"""After which an event stream ends and its client asks again: each holds one of the server's threads."""
_FOLLOWERS = threading.BoundedSemaphore(3)
_MOST = 1000
_LOOKED_AT = 10_000
"""Jobs among which those are found that a caller may see."""

Source = Annotated[str, Field(min_length=1, max_length=4096)]


class NewJob(BaseModel):
    """The body of POST ingest."""

    model_config = ConfigDict(extra="forbid")

    source: Source | Annotated[list[Source], Field(min_length=1, max_length=_MOST)]
    """Folders, files, globs and text files, on the machines where workers run; uploads as `upload:<sha256>`."""


@blueprint.post("/collections/<name>/ingest")
def ingest(name: str) -> tuple[Response, int, dict[str, str]]:
    """Queue sources: 202 with the job."""
    body = validated(NewJob, json_body())
    sources = [body.source] if isinstance(body.source, str) else body.source
    collection = services().ready_collection(check_collection_name(name))
    job = services().queue.submit(collection, sources)
    return jsonify(job.as_dict()), 202, {"Location": f"/v1/jobs/{job.id}"}


@blueprint.get("/jobs")
def list_jobs() -> Response:
    """The newest jobs that the caller may see, the newest first."""
    limit = _number("limit", 100, _MOST)
    with available(services().settings):
        seen = (job for job in _queue().jobs.newest(_LOOKED_AT) if g.key.sees(job.collection))
        return jsonify({"jobs": [job.as_dict() for job in islice(seen, limit)]})


@blueprint.get("/jobs/<job_id>")
def get_job(job_id: str) -> Response:
    """One job."""
    with available(services().settings):
        return jsonify(_queue().jobs.get(job_id).as_dict())


@blueprint.get("/jobs/<job_id>/failures")
def get_failures(job_id: str) -> Response:
    """What failed, with reasons, a page at a time."""
    offset, limit = _number("offset", 0, 10**9), _number("limit", 100, _MOST)
    with available(services().settings):
        job = _queue().jobs.get(job_id)
        found = _queue().jobs.failures(job_id, offset, limit)
    rows = [{name: value for name, value in each.items() if name != "item"} for each in found]
    return jsonify({"job": job.id, "failed": job.failed, "failures": rows})


@blueprint.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> tuple[Response, int, dict[str, str]]:
    """A new job of what failed: 202."""
    job = _queue().retry(job_id)
    return jsonify(job.as_dict()), 202, {"Location": f"/v1/jobs/{job.id}"}


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """End a job that is not over; one that is stays as it is."""
    with available(services().settings):
        _queue().jobs.cancel(job_id)
        return jsonify(_queue().jobs.get(job_id).as_dict())


@blueprint.get("/jobs/<job_id>/events")
def events(job_id: str) -> Response:
    """The job after each change, as server-sent events, until it is over or a minute has passed.

    Raises:
        TooBusy: enough streams are open.
    """
    queue = _queue()
    settings = services().settings
    with available(settings):
        queue.jobs.get(job_id)
    if not _FOLLOWERS.acquire(blocking=False):
        raise TooBusy("Enough event streams are open.", remedy="Ask for the job itself, now and then.", retry_after=5)
    stream = Response(_events(queue, settings, job_id), content_type="text/event-stream")
    stream.call_on_close(_FOLLOWERS.release)
    return stream


def _events(queue: Queue, settings: Settings, job_id: str) -> Iterator[str]:
    deadline = time.monotonic() + _FOLLOW_SECONDS
    before: dict[str, Any] = {}
    while time.monotonic() < deadline:
        with available(settings):
            job = queue.jobs.get(job_id)
        counts = {name: value for name, value in job.as_dict().items() if name not in {"seconds", "eta"}}
        if counts != before:
            before = counts
            yield f"event: job\ndata: {json.dumps(job.as_dict())}\n\n"
        if job.state in OVER:
            return
        time.sleep(_EVENT_SECONDS)


def _queue() -> Queue:
    return services().queue


def _number(name: str, default: int, most: int) -> int:
    value = request.args.get(name, str(default))
    if not value.isascii() or not value.isdigit() or not 0 <= int(value) <= most:
        raise InvalidRequest(f"{name}: {value[:40]!r} is no number from 0 to {most}.", field=name)
    return int(value)
