"""What is to be said of each operation beside its view's docstring: bodies, parameters, answers, errors.

The table is by method and rule, as in `access.needs`. The tests hold it against the app's routes and real answers.
"""

from __future__ import annotations

from collections.abc import Mapping

from indexer import errors
from search_api.access.audit import MOST_ENTRIES
from search_api.access.routes import NewKey
from search_api.classify import ClassifyRequest
from search_api.collections import NewCollection
from search_api.duplicates import DuplicatesRequest
from search_api.facets import FacetRequest
from search_api.items import Change, NewItems
from search_api.jobs import NewJob
from search_api.openapi import answers, service_answers
from search_api.openapi.classification_answers import Classification, KeptLabelSet, LabelSetList
from search_api.openapi.duplicates_answers import Duplicates, DuplicatesRunning
from search_api.openapi.moderation_operations import MODERATION
from search_api.openapi.operation import (
    BINARY,
    BODY,
    COLLECTION,
    FETCHED,
    FILE,
    INDEX,
    ITEM,
    JOB,
    MODEL,
    MOMENT,
    ORIGINAL,
    QUERY,
    QUEUE,
    SUBMIT,
    TO_JOB,
    Content,
    Operation,
    Query,
    count,
    form_of,
    ref,
)
from search_api.openapi.shapes import COLLECTION_NAME, Schema
from search_api.request import SearchRequest
from search_api.search import Searches

PATHS: Mapping[str, tuple[Schema, str]] = {
    "name": ({"type": "string", "pattern": COLLECTION_NAME}, "The collection."),
    "item": ({"type": "string", "minLength": 1}, "The item, by the id that its upload or a search gave."),
    "job_id": ({"type": "string", "minLength": 1}, "The job."),
    "label_set_name": ({"type": "string", "pattern": COLLECTION_NAME}, "The label set."),
    "policy_name": ({"type": "string", "pattern": COLLECTION_NAME}, "The starting policy."),
    "policy_number": ({"type": "integer", "minimum": 1, "maximum": 999_999_999}, "The policy's number."),
    "list_name": ({"type": "string", "pattern": COLLECTION_NAME}, "The hash list."),
    "key_id": ({"type": "string", "minLength": 1}, "The key's id, without its secret."),
    "asset": ({"type": "string", "minLength": 1}, "A file that the search page loads."),
}
"""Variables of paths."""

TAGS: Mapping[str, str] = {
    "Collections": "Named sets of items with the vectors of one model.",
    "Items": "Photos, frames, pages and texts: upload, see, change, remove.",
    "Search": "By text, image, item or vector, or a weighted sum of them.",
    "Classification": "What of some labels a picture or text is; label sets that are kept.",
    "Moderation": "Policies that say what is shown: tried, put in force, and what is stored judged by them.",
    "Jobs": "Sources that workers ingest from a queue.",
    "Keys": "Who may do what, and what was done.",
    "Service": "Whether the server answers, its metrics, and this description.",
}

_RANGE = (
    Query("Range", {"type": "string"}, "A part of the content, as `bytes=0-99`; what is no range is passed over."),
    Query("If-None-Match", {"type": "string"}, "The `ETag` of an earlier answer."),
)
_UNCHANGED = Content("", "The content is as it was.")
_TO_ITEM = {"item": ("get_item", {"name": "$request.path.name", "item": "$response.body#/items/0/id"})}

OPERATIONS: Mapping[str, Operation] = {
    "GET /v1/collections": Operation("Collections", {200: answers.CollectionList}, INDEX),
    "GET /v1/collections/<name>": Operation("Collections", {200: answers.Collection}, COLLECTION),
    "PUT /v1/collections/<name>": Operation(
        "Collections", {200: answers.Collection, 201: answers.Collection}, (*COLLECTION, *BODY, *MODEL),
        body=NewCollection, body_required=False,
        examples={"with the server's model": {}, "with a field": {"fields": {"trip": "keyword"}},
                  "ready to be reranked": {"rerank_features": True}},
    ),
    "DELETE /v1/collections/<name>": Operation(
        "Collections", {204: None}, (*COLLECTION, errors.MediaStoreUnavailable)
    ),
    "POST /v1/collections/<name>/items": Operation(
        "Items", {201: answers.Uploaded},
        (*COLLECTION, *BODY, *MODEL, *FILE, *FETCHED, errors.TextsOnly, errors.ReservedPayloadKey, errors.NoVideo,
         errors.Encrypted, errors.ArchiveRefused, errors.BadMember, errors.MediaStoreUnavailable, errors.InvalidVector),
        body=NewItems,
        form=form_of(ref("FormItems"), file={"type": "array", "items": BINARY, "minItems": 1}),
        examples={"a text": {"items": [{"text": "a red car", "id": "car", "payload": {"tag": "street"}}]}},
        links=_TO_ITEM,
    ),
    "GET /v1/collections/<name>/items/<item>": Operation("Items", {200: answers.Item}, ITEM),
    "PATCH /v1/collections/<name>/items/<item>": Operation(
        "Items", {200: answers.Item}, (*ITEM, *BODY, errors.ReservedPayloadKey), body=Change,
        examples={"set one field, remove another": {"payload": {"stars": 5, "draft": None}}},
    ),
    "DELETE /v1/collections/<name>/items/<item>": Operation(
        "Items", {204: None}, (*ITEM, errors.MediaStoreUnavailable)
    ),
    "GET /v1/collections/<name>/items/<item>/media": Operation(
        "Items",
        {200: Content("*/*", "The original."), 206: Content("*/*", "A part of it."), 304: _UNCHANGED},
        (*ITEM, *ORIGINAL), headers=_RANGE,
    ),
    "GET /v1/collections/<name>/items/<item>/thumbnail": Operation(
        "Items",
        {200: Content("image/webp", "The picture.", BINARY), 206: Content("image/webp", "A part of it.", BINARY),
         304: _UNCHANGED},
        (*ITEM, *ORIGINAL, errors.InvalidRequest),
        query=(count("size", "Pixels of the longest side.", 1024, 256, 16),), headers=_RANGE,
    ),
    "POST /v1/collections/<name>/search": Operation(
        "Search", {200: answers.SearchAnswer},
        (*QUERY, errors.InvalidCursor, errors.QueryBlocked, errors.NoReranker), body=SearchRequest,
        form=form_of(ref("SearchRequest"), file=BINARY),
        examples={
            "by text": {"query": [{"text": "a dog on a beach"}], "limit": 3},
            "less of something, filtered": {
                "query": [{"text": "a beach"}, {"text": "people", "weight": -0.5}], "filter": "year>=2020", "limit": 3,
            },
            "the best fifty compared once more": {
                "query": [{"text": "a red car left of a tree"}], "rerank": {"top": 50, "deadline_ms": 300}, "limit": 3,
            },
            "everything, a page at a time": {"limit": 100},
        },
    ),
    "POST /v1/collections/<name>/search/batch": Operation(
        "Search", {200: answers.SearchAnswers}, (*QUERY, errors.QueryBlocked, errors.NoReranker), body=Searches,
        examples={"two searches": {"searches": [{"query": [{"text": "a dog"}]}, {"query": [{"text": "a cat"}]}]}},
    ),
    "POST /v1/collections/<name>/facets": Operation(
        "Search", {200: answers.Facets}, (*COLLECTION, *BODY), body=FacetRequest,
        examples={"kinds": {"fields": ["kind"]}},
    ),
    "POST /v1/collections/<name>/duplicates": Operation(
        "Search", {200: Duplicates, 202: DuplicatesRunning}, (*COLLECTION, *BODY, errors.TooBusy),
        body=DuplicatesRequest, body_required=False, examples={"the same picture": {"by": "picture"}},
    ),
    "POST /v1/collections/<name>/classify": Operation(
        "Classification", {200: Classification}, (*QUERY, errors.LabelSetNotFound), body=ClassifyRequest,
        form={**form_of(ref("FormClassification"), file=BINARY), "required": ["request"]},
        examples={"a text": {"items": [{"text": "a red car"}], "labels": ["red", "blue"]}},
    ),
    "GET /v1/collections/<name>/labels": Operation("Classification", {200: LabelSetList}, COLLECTION),
    "GET /v1/collections/<name>/labels/<label_set_name>": Operation(
        "Classification", {200: KeptLabelSet}, (*COLLECTION, errors.LabelSetNotFound)
    ),
    "PUT /v1/collections/<name>/labels/<label_set_name>": Operation(
        "Classification", {200: KeptLabelSet, 201: KeptLabelSet}, (*COLLECTION, *BODY),
        body=ref("LabelSet"), examples={"colours": {"labels": ["red", "green", "blue"], "threshold": 0.5}},
    ),
    "DELETE /v1/collections/<name>/labels/<label_set_name>": Operation(
        "Classification", {204: None}, (*COLLECTION, errors.LabelSetNotFound)
    ),
    "POST /v1/collections/<name>/labels/<label_set_name>/apply": Operation(
        "Classification", {202: answers.Job}, (*COLLECTION, *SUBMIT, errors.LabelSetNotFound), links=TO_JOB
    ),
    **MODERATION,
    "POST /v1/collections/<name>/ingest": Operation(
        "Jobs", {202: answers.Job}, (*COLLECTION, *BODY, *MODEL, *SUBMIT), body=NewJob,
        examples={"a folder": {"source": "/photos"}}, links=TO_JOB,
    ),
    "GET /v1/jobs": Operation(
        "Jobs", {200: answers.JobList}, (*QUEUE, errors.InvalidRequest),
        query=(count("limit", "How many.", 1000, 100),),
    ),
    "GET /v1/jobs/<job_id>": Operation("Jobs", {200: answers.Job}, JOB),
    "GET /v1/jobs/<job_id>/failures": Operation(
        "Jobs", {200: answers.JobFailures}, (*JOB, errors.InvalidRequest),
        query=(count("offset", "How many to pass over.", 10**9, 0), count("limit", "How many.", 1000, 100)),
    ),
    "GET /v1/jobs/<job_id>/events": Operation(
        "Jobs",
        {200: Content("text/event-stream", "Events of the name `job`, their data the job.", {"type": "string"})},
        (*JOB, errors.TooBusy),
    ),
    "POST /v1/jobs/<job_id>/retry": Operation("Jobs", {202: answers.Job}, (*JOB, errors.TooBusy), links=TO_JOB),
    "POST /v1/jobs/<job_id>/cancel": Operation("Jobs", {200: answers.Job}, JOB),
    "GET /v1/keys": Operation("Keys", {200: service_answers.KeyList}),
    "POST /v1/keys": Operation(
        "Keys", {201: service_answers.MadeKey}, BODY, body=NewKey,
        examples={"a reader's": {"name": "a reader", "roles": ["read"], "collections": ["media*"], "expires": "90d"}},
        links={"revoke": ("revoke_key", {"key_id": "$response.body#/id"})},
    ),
    "GET /v1/key": Operation("Keys", {200: service_answers.ListedKey}),
    "DELETE /v1/keys/<key_id>": Operation("Keys", {204: None}, (errors.KeyNotFound,)),
    "GET /v1/audit": Operation(
        "Keys", {200: service_answers.AuditPage}, (errors.InvalidRequest,),
        query=(
            Query("from", MOMENT, "The first time."), Query("to", MOMENT, "The time before which to begin."),
            Query("key", {"type": "string"}, "A key's id."), count("limit", "How many.", MOST_ENTRIES, 100, 1),
        ),
    ),
    "GET /healthz": Operation("Service", {200: service_answers.Health}),
    "GET /readyz": Operation("Service", {200: service_answers.Readiness}, problem=service_answers.NotReady),
    "GET /metrics": Operation("Service", {200: Content("text/plain", "The metrics.", {"type": "string"})}),
    "GET /openapi.json": Operation("Service", {200: Content("application/json", "The document.", {"type": "object"})}),
    "GET /docs": Operation("Service", {200: Content("text/html", "The page.", {"type": "string"})}),
    "GET /": Operation(
        "Service", {200: Content("text/html", "The page.", {"type": "string"}), 304: _UNCHANGED}, headers=_RANGE[1:]
    ),
    "GET /static/<asset>": Operation("Service", {200: Content("*/*", "A file."), 304: _UNCHANGED}, headers=_RANGE[1:]),
}  # fmt: skip
