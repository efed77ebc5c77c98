"""What is to be said of each operation beside its view's docstring: bodies, parameters, answers, errors.

The table is by method and rule, as in `access.needs`. The tests hold it against the app's routes and real answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from indexer import errors
from indexer.errors import CrosslensError
from indexer.moderation.dry_run import MOST_ITEMS, MOST_NEAREST
from indexer.moderation.review.waiting import MOST
from search_api.access.audit import MOST_ENTRIES
from search_api.access.routes import NewKey
from search_api.classify import ClassifyRequest
from search_api.collections import NewCollection
from search_api.duplicates import DuplicatesRequest
from search_api.facets import FacetRequest
from search_api.items import Change, NewItems
from search_api.jobs import NewJob
from search_api.moderation.fit import FitRequest
from search_api.moderation.moderate import ModerateRequest
from search_api.moderation.rescans import NEAREST, SAMPLE
from search_api.moderation.review import LAST, PAGE, NewAppeal, NewDecisions, Undoing
from search_api.openapi import answers, moderation_answers, review_answers, service_answers
from search_api.openapi.shapes import COLLECTION_NAME, Schema
from search_api.problems import WrongContentType
from search_api.request import SearchRequest
from search_api.search import Searches

Errors = tuple[type[CrosslensError], ...]

BINARY: Schema = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Content:
    """An answer that is no JSON document of ours."""

    media_type: str
    about: str
    schema: Schema | None = None


@dataclass(frozen=True)
class Query:
    """A query parameter."""

    name: str
    schema: Schema
    about: str


@dataclass(frozen=True)
class Operation:
    """One operation."""

    tag: str
    answers: Mapping[int, type[BaseModel] | Content | None]
    """By status; None: no body."""
    errors: Errors = ()
    """Beside those that any operation can give."""
    body: type[BaseModel] | Schema | None = None
    body_required: bool = True
    other_bodies: Mapping[str, Schema] = field(default_factory=dict)
    """The body as something else than JSON, by content type."""
    form: Schema | None = None
    """The body as a multipart form."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """Bodies, by what they do."""
    form_example: Any = None
    query: tuple[Query, ...] = ()
    headers: tuple[Query, ...] = ()
    links: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    """By name: which operation goes on from the answer, with which parameters."""
    problem: type[BaseModel] | None = None
    """What a 503 holds, if not a plain problem."""


INDEX: Errors = (errors.IndexUnavailable, errors.IndexOwned, errors.ServerTooOld)
COLLECTION: Errors = (*INDEX, errors.CollectionNotFound, errors.InvalidName)
MODEL: Errors = (
    errors.ModelMismatch, errors.BundleNotFound, errors.InvalidBundle, errors.UnknownRecipe, errors.DeviceUnavailable,
    errors.EncoderFailed, errors.Overloaded,
)  # fmt: skip
BODY: Errors = (errors.InvalidRequest, WrongContentType)
ITEM: Errors = (*COLLECTION, errors.ItemNotFound)
FILE: Errors = (
    errors.EmptyFile, errors.NotAnImage, errors.UnsupportedFormat, errors.Truncated, errors.Unreadable,
    errors.TooManyPixels, errors.TooLarge,
)  # fmt: skip
FETCHED: Errors = (errors.UrlRefused, errors.FetchFailed, errors.FetchTimeout)
ORIGINAL: Errors = (*FILE, *FETCHED, errors.MediaGone, errors.AccessDenied, errors.MediaStoreUnavailable,
                    errors.NoVideo, errors.Encrypted, errors.MissingExtra)  # fmt: skip
QUERY: Errors = (
    *COLLECTION, *BODY, *MODEL, *FILE, *FETCHED, errors.TextsOnly, errors.InvalidVector, errors.ItemNotFound,
)  # fmt: skip
QUEUE: Errors = (errors.BrokerUnavailable, errors.KeysUnavailable)
JOB: Errors = (*QUEUE, errors.JobNotFound)
SUBMIT: Errors = (*QUEUE, errors.TooBusy)
LISTS: Errors = (errors.HashListNotFound, errors.HashListInvalid, errors.MediaStoreUnavailable)
JUDGE: Errors = (errors.PolicyInvalid, errors.ClassifierNotFound, errors.InvalidVector, *LISTS)
POLICY: Errors = (*COLLECTION, *MODEL, *JUDGE, errors.InvalidRequest, errors.TooBusy)
FORMER: Errors = (*COLLECTION, errors.PolicyNotFound)
REVIEW: Errors = (*FORMER, errors.InvalidRequest, errors.UsageError, errors.UrlRefused)
DECIDE: Errors = (*REVIEW, WrongContentType, errors.ItemNotFound, errors.ReviewConflict, errors.TooBusy)

PATHS: Mapping[str, tuple[Schema, str]] = {
    "name": ({"type": "string", "pattern": COLLECTION_NAME}, "The collection."),
    "item": ({"type": "string", "minLength": 1}, "The item, by the id that its upload or a search gave."),
    "job_id": ({"type": "string", "minLength": 1}, "The job."),
    "label_set_name": ({"type": "string", "pattern": COLLECTION_NAME}, "The label set."),
    "policy_name": ({"type": "string", "pattern": COLLECTION_NAME}, "The starting policy."),
    "policy_number": ({"type": "integer", "minimum": 1, "maximum": 999_999_999}, "The policy's number."),
    "list_name": ({"type": "string", "pattern": COLLECTION_NAME}, "The hash list."),
    "key_id": ({"type": "string", "minLength": 1}, "The key's id, without its secret."),
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


def _count(name: str, about: str, most: int, default: int, least: int = 0) -> Query:
    return Query(name, {"type": "integer", "minimum": least, "maximum": most, "default": default}, about)


def _form(request: Schema, **parts: Schema) -> Schema:
    properties = {"request": request, **parts}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_RANGE = (
    Query("Range", {"type": "string"}, "A part of the content, as `bytes=0-99`; what is no range is passed over."),
    Query("If-None-Match", {"type": "string"}, "The `ETag` of an earlier answer."),
)
_UNCHANGED = Content("", "The content is as it was.")
_TO_ITEM = {"item": ("get_item", {"name": "$request.path.name", "item": "$response.body#/items/0/id"})}
_TO_JOB = {"job": ("get_job", {"job_id": "$response.body#/job"})}
_IF_MATCH = (
    Query("If-Match", {"type": "string"}, "The `ETag` of the policy that is meant to be in force: its number."),
)
_POLICY_TEXTS = {"application/yaml": {"type": "string"}}
_NEUTRAL = {
    "name": "animals",
    "categories": [
        {"name": "cats", "action": "blur", "threshold": 0.3, "detectors": [{"type": "prompts", "positive": ["a cat"]}]}
    ],
}
_SWITCH: Schema = {"type": "boolean"}
_MOMENT = {"type": "string", "maxLength": 64, "examples": ["2027-01-31T12:00:00Z", "7d"]}

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
        form=_form(_ref("FormItems"), file={"type": "array", "items": BINARY, "minItems": 1}),
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
        query=(_count("size", "Pixels of the longest side.", 1024, 256, 16),), headers=_RANGE,
    ),
    "POST /v1/collections/<name>/search": Operation(
        "Search", {200: answers.SearchAnswer},
        (*QUERY, errors.InvalidCursor, errors.QueryBlocked, errors.NoReranker), body=SearchRequest,
        form=_form(_ref("SearchRequest"), file=BINARY),
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
        "Search", {200: answers.Duplicates, 202: answers.DuplicatesRunning}, (*COLLECTION, *BODY, errors.TooBusy),
        body=DuplicatesRequest, body_required=False, examples={"the same picture": {"by": "picture"}},
    ),
    "POST /v1/collections/<name>/classify": Operation(
        "Classification", {200: answers.Classification}, (*QUERY, errors.LabelSetNotFound), body=ClassifyRequest,
        form={**_form(_ref("FormClassification"), file=BINARY), "required": ["request"]},
        examples={"a text": {"items": [{"text": "a red car"}], "labels": ["red", "blue"]}},
    ),
    "GET /v1/collections/<name>/labels": Operation("Classification", {200: answers.LabelSetList}, COLLECTION),
    "GET /v1/collections/<name>/labels/<label_set_name>": Operation(
        "Classification", {200: answers.KeptLabelSet}, (*COLLECTION, errors.LabelSetNotFound)
    ),
    "PUT /v1/collections/<name>/labels/<label_set_name>": Operation(
        "Classification", {200: answers.KeptLabelSet, 201: answers.KeptLabelSet}, (*COLLECTION, *BODY),
        body=_ref("LabelSet"), examples={"colours": {"labels": ["red", "green", "blue"], "threshold": 0.5}},
    ),
    "DELETE /v1/collections/<name>/labels/<label_set_name>": Operation(
        "Classification", {204: None}, (*COLLECTION, errors.LabelSetNotFound)
    ),
    "POST /v1/collections/<name>/labels/<label_set_name>/apply": Operation(
        "Classification", {202: answers.Job}, (*COLLECTION, *SUBMIT, errors.LabelSetNotFound), links=_TO_JOB
    ),
    "GET /v1/policies": Operation("Moderation", {200: moderation_answers.StartingPolicies}),
    "GET /v1/policies/<policy_name>": Operation(
        "Moderation", {200: moderation_answers.StartingPolicy}, (errors.PolicyNotFound,)
    ),
    "GET /v1/collections/<name>/policy": Operation(
        "Moderation", {200: moderation_answers.KeptPolicy}, FORMER
    ),
    "PUT /v1/collections/<name>/policy": Operation(
        "Moderation", {200: moderation_answers.PutPolicy, 201: moderation_answers.PutPolicy},
        (*POLICY, WrongContentType, errors.PolicyChanged),
        body=_ref("Policy"), other_bodies=_POLICY_TEXTS, examples={"cats are blurred": _NEUTRAL},
        query=(
            Query("reviewers", {"enum": [1, 2]}, "How many people have to decide the same before it counts."),
            Query("queries", _SWITCH, "Whether what visitors search with is judged, too."),
        ),
        headers=_IF_MATCH,
    ),
    "DELETE /v1/collections/<name>/policy": Operation(
        "Moderation", {204: None}, (*FORMER, errors.PolicyChanged, errors.TooBusy), headers=_IF_MATCH
    ),
    "GET /v1/collections/<name>/policies": Operation(
        "Moderation", {200: moderation_answers.PolicyList}, COLLECTION
    ),
    "GET /v1/collections/<name>/policies/<policy_number>": Operation(
        "Moderation", {200: moderation_answers.KeptPolicy}, FORMER
    ),
    "POST /v1/collections/<name>/policies/<policy_number>/restore": Operation(
        "Moderation", {200: moderation_answers.PutPolicy, 201: moderation_answers.PutPolicy},
        (*POLICY, errors.PolicyNotFound, errors.PolicyChanged), headers=_IF_MATCH,
    ),
    "POST /v1/collections/<name>/moderation/dry-run": Operation(
        "Moderation", {200: moderation_answers.DryRun}, (*POLICY, WrongContentType),
        body=_ref("Policy"), other_bodies=_POLICY_TEXTS, examples={"cats would be blurred": _NEUTRAL},
        query=(
            _count("limit", "How many items to judge at most.", MOST_ITEMS, SAMPLE, 1),
            _count("nearest", "How many items near each threshold to tell.", MOST_NEAREST, NEAREST),
        ),
    ),
    "POST /v1/collections/<name>/moderation/rescan": Operation(
        "Moderation", {202: answers.Job}, (*FORMER, *SUBMIT), links=_TO_JOB
    ),
    "GET /v1/collections/<name>/moderation/review": Operation(
        "Moderation", {200: review_answers.ReviewQueue}, (*REVIEW, errors.InvalidCursor),
        query=(
            _count("limit", "How many.", MOST, PAGE, 1),
            Query("after", {"type": "string"}, "The `next` of the page before."),
        ),
    ),
    "POST /v1/collections/<name>/moderation/review": Operation(
        "Moderation", {200: review_answers.Decided}, DECIDE, body=NewDecisions,
        examples={"not to be shown": {"ids": ["a", "b"], "decision": {"what": "reject"}, "seen": {"a": 0, "b": 17}}},
    ),
    "POST /v1/collections/<name>/moderation/undo": Operation(
        "Moderation", {200: review_answers.Decided}, (*DECIDE, errors.TrailEntryNotFound), body=Undoing,
        examples={"two decisions": {"numbers": [17, 18]}},
    ),
    "POST /v1/collections/<name>/items/<item>/appeal": Operation(
        "Moderation", {201: review_answers.Appealed}, DECIDE, body=NewAppeal, body_required=False,
        examples={"with a reason": {"note": "It is a drawing."}},
    ),
    "GET /v1/collections/<name>/moderation/trail": Operation(
        "Moderation", {200: Content("*/*", "The entries, as JSON lines or CSV.")}, (*COLLECTION, errors.InvalidRequest),
        query=(
            Query("format", {"enum": ["jsonl", "csv"], "default": "jsonl"}, "As what to write it."),
            Query("from", _MOMENT, "The first time."), Query("to", _MOMENT, "The time before which to end."),
            Query("who", {"type": "string"}, "Who decided, as the trail has it."),
            Query("item", {"type": "string"}, "An item's id."),
            _count("after", "The number after which to begin.", LAST, 0),
        ),
    ),
    "POST /v1/collections/<name>/moderation/fit": Operation(
        "Moderation", {200: review_answers.Learned},
        (*POLICY, WrongContentType, errors.PolicyNotFound), body=FitRequest, body_required=False,
        examples={"nine of ten are to be right": {"precision": 0.9}},
    ),
    "GET /v1/collections/<name>/hash-lists": Operation(
        "Moderation", {200: moderation_answers.HashLists}, COLLECTION
    ),
    "GET /v1/collections/<name>/hash-lists/<list_name>": Operation(
        "Moderation", {200: Content("*/*", "The hashes, as CSV or JSON.")},
        (*COLLECTION, *LISTS, errors.InvalidRequest),
        query=(Query("format", {"enum": ["csv", "json"], "default": "csv"}, "As what to write it."),),
    ),
    "PUT /v1/collections/<name>/hash-lists/<list_name>": Operation(
        "Moderation", {200: moderation_answers.PutHashList, 201: moderation_answers.PutHashList},
        (*COLLECTION, *BODY, *LISTS),
        body=moderation_answers.SIGNALS,
        other_bodies={"text/csv": {"type": "string"}, "text/plain": {"type": "string"}},
        examples={"as ThreatExchange has it": {"data": [{"indicator": "f" * 64, "type": "HASH_PDQ"}]}},
        query=(
            Query("join", _SWITCH, "Add to what is there."),
            Query("kind", {"enum": ["sha256", "pdq"]}, "What hashes are that come without a type."),
        ),
    ),
    "DELETE /v1/collections/<name>/hash-lists/<list_name>": Operation(
        "Moderation", {204: None}, (*COLLECTION, errors.HashListNotFound)
    ),
    "POST /v1/moderate": Operation(
        "Moderation", {200: moderation_answers.Moderated},
        (*COLLECTION, *BODY, *MODEL, *JUDGE, errors.PolicyNotFound), body=ModerateRequest,
        form=_form(_ref("FormModeration"), file=BINARY),
        examples={"a text": {"items": [{"text": "a cat on a mat"}], "policy": "neutral"}},
    ),
    "POST /v1/collections/<name>/ingest": Operation(
        "Jobs", {202: answers.Job}, (*COLLECTION, *BODY, *MODEL, *SUBMIT), body=NewJob,
        examples={"a folder": {"source": "/photos"}}, links=_TO_JOB,
    ),
    "GET /v1/jobs": Operation(
        "Jobs", {200: answers.JobList}, (*QUEUE, errors.InvalidRequest),
        query=(_count("limit", "How many.", 1000, 100),),
    ),
    "GET /v1/jobs/<job_id>": Operation("Jobs", {200: answers.Job}, JOB),
    "GET /v1/jobs/<job_id>/failures": Operation(
        "Jobs", {200: answers.JobFailures}, (*JOB, errors.InvalidRequest),
        query=(_count("offset", "How many to pass over.", 10**9, 0), _count("limit", "How many.", 1000, 100)),
    ),
    "GET /v1/jobs/<job_id>/events": Operation(
        "Jobs",
        {200: Content("text/event-stream", "Events of the name `job`, their data the job.", {"type": "string"})},
        (*JOB, errors.TooBusy),
    ),
    "POST /v1/jobs/<job_id>/retry": Operation("Jobs", {202: answers.Job}, (*JOB, errors.TooBusy), links=_TO_JOB),
    "POST /v1/jobs/<job_id>/cancel": Operation("Jobs", {200: answers.Job}, JOB),
    "GET /v1/keys": Operation("Keys", {200: service_answers.KeyList}),
    "POST /v1/keys": Operation(
        "Keys", {201: service_answers.MadeKey}, BODY, body=NewKey,
        examples={"a reader's": {"name": "a reader", "roles": ["read"], "collections": ["media*"], "expires": "90d"}},
        links={"revoke": ("revoke_key", {"key_id": "$response.body#/id"})},
    ),
    "DELETE /v1/keys/<key_id>": Operation("Keys", {204: None}, (errors.KeyNotFound,)),
    "GET /v1/audit": Operation(
        "Keys", {200: service_answers.AuditPage}, (errors.InvalidRequest,),
        query=(
            Query("from", _MOMENT, "The first time."), Query("to", _MOMENT, "The time before which to begin."),
            Query("key", {"type": "string"}, "A key's id."), _count("limit", "How many.", MOST_ENTRIES, 100, 1),
        ),
    ),
    "GET /healthz": Operation("Service", {200: service_answers.Health}),
    "GET /readyz": Operation("Service", {200: service_answers.Readiness}, problem=service_answers.NotReady),
    "GET /metrics": Operation("Service", {200: Content("text/plain", "The metrics.", {"type": "string"})}),
    "GET /openapi.json": Operation("Service", {200: Content("application/json", "The document.", {"type": "object"})}),
    "GET /docs": Operation("Service", {200: Content("text/html", "The page.", {"type": "string"})}),
}  # fmt: skip
