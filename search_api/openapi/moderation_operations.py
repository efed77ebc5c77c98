"""The operations of moderation, as `openapi.operations` has all."""

from __future__ import annotations

from collections.abc import Mapping

from indexer import errors
from indexer.moderation.dry_run import MOST_ITEMS, MOST_NEAREST
from indexer.moderation.review.waiting import MOST
from search_api.moderation.fit import FitRequest
from search_api.moderation.moderate import ModerateRequest
from search_api.moderation.rescans import NEAREST, SAMPLE
from search_api.moderation.review import LAST, PAGE, NewAppeal, NewDecisions, Undoing
from search_api.openapi import answers, moderation_answers, review_answers
from search_api.openapi.operation import (
    BINARY,
    BODY,
    COLLECTION,
    MODEL,
    MOMENT,
    SUBMIT,
    TO_JOB,
    Content,
    Errors,
    Operation,
    Query,
    count,
    form_of,
    ref,
)
from search_api.openapi.shapes import Schema
from search_api.problems import WrongContentType

LISTS: Errors = (errors.HashListNotFound, errors.HashListInvalid, errors.MediaStoreUnavailable)
JUDGE: Errors = (errors.PolicyInvalid, errors.ClassifierNotFound, errors.InvalidVector, *LISTS)
POLICY: Errors = (*COLLECTION, *MODEL, *JUDGE, errors.InvalidRequest, errors.TooBusy)
FORMER: Errors = (*COLLECTION, errors.PolicyNotFound)
REVIEW: Errors = (*FORMER, errors.InvalidRequest, errors.UsageError, errors.UrlRefused)
DECIDE: Errors = (*REVIEW, WrongContentType, errors.ItemNotFound, errors.ReviewConflict, errors.TooBusy)

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

MODERATION: Mapping[str, Operation] = {
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
        body=ref("Policy"), other_bodies=_POLICY_TEXTS, examples={"cats are blurred": _NEUTRAL},
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
        body=ref("Policy"), other_bodies=_POLICY_TEXTS, examples={"cats would be blurred": _NEUTRAL},
        query=(
            count("limit", "How many items to judge at most.", MOST_ITEMS, SAMPLE, 1),
            count("nearest", "How many items near each threshold to tell.", MOST_NEAREST, NEAREST),
        ),
    ),
    "POST /v1/collections/<name>/moderation/rescan": Operation(
        "Moderation", {202: answers.Job}, (*FORMER, *SUBMIT), links=TO_JOB
    ),
    "GET /v1/collections/<name>/moderation/review": Operation(
        "Moderation", {200: review_answers.ReviewQueue}, (*REVIEW, errors.InvalidCursor),
        query=(
            count("limit", "How many.", MOST, PAGE, 1),
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
            Query("from", MOMENT, "The first time."), Query("to", MOMENT, "The time before which to end."),
            Query("who", {"type": "string"}, "Who decided, as the trail has it."),
            Query("item", {"type": "string"}, "An item's id."),
            count("after", "The number after which to begin.", LAST, 0),
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
        form=form_of(ref("FormModeration"), file=BINARY),
        examples={"a text": {"items": [{"text": "a cat on a mat"}], "policy": "neutral"}},
    ),
}  # fmt: skip
