"""`POST /v1/moderate`: judge texts and pictures without storing them."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from flask import Blueprint, Response, current_app, g, jsonify
from flask.blueprints import BlueprintSetupState
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from indexer.classify.labels import SetName
from indexer.errors import CollectionNotFound, CrosslensError, KeyForbids
from indexer.items import check_collection_name, now
from indexer.moderation.judging import ItemJudge, open_judge
from indexer.moderation.lists import hash_lists
from indexer.moderation.opening import open_policy
from indexer.moderation.policy import Policy
from indexer.moderation.policy_file import parse_policy
from indexer.moderation.starting import joined, starting_policies, starting_policy
from indexer.moderation.stored import StoredPolicy, is_moderated
from search_api.bodies import form_json, is_form, json_body, named_files
from search_api.classify import MOST_ITEMS, MOST_URLS
from search_api.moderation.loose import Thing, judge_loose
from search_api.request import Term, invalid_request
from search_api.services import services

if TYPE_CHECKING:
    from indexer.store.collection import Collection
    from search_api.batched import BatchedEncoder

blueprint = Blueprint("moderate", __name__, url_prefix="/v1/moderate")

EXAMPLES = ("neutral",)
"""Starting policies that show how it works, and are for nobody's protection."""
_CACHE = "crosslens.opened_policies"
_KEPT = 8


class ModerateRequest(BaseModel):
    """What is to be judged, and by which policy: a starting one's name, or one that is given whole.

    Without it, the policy in force of `collection` judges; without both, that of the server's own collection, or the
    starting policies together where that has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: Annotated[list[Term], Field(min_length=1, max_length=MOST_ITEMS)]
    """Each with a text, or an image (base64, data URL, URL, or the name of an uploaded part)."""
    policy: SetName | dict[str, Any] | None = None
    collection: SetName | None = None
    """Whose model judges, whose hash lists count, and whose policy where none is named."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for item in self.items:
            if item.model_fields_set - {"text", "image"} or (item.text is None and item.image is None):
                raise ValueError("items have one of text and image each, and nothing else")
        if sum(isinstance(item.image, str) for item in self.items) > MOST_URLS:
            raise ValueError(f"has more than {MOST_URLS} images by URL")
        return self


@dataclass(frozen=True)
class _Bench:
    """Who judges."""

    judge: ItemJudge
    encoder: BatchedEncoder
    collection: str | None = None
    """Whose policy in force it is."""
    warnings: tuple[str, ...] = ()


class Opened:
    """Policies that are open, the latest used ones. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._judges: OrderedDict[tuple[str, ...], ItemJudge] = OrderedDict()

    def of(self, policy: Policy, encoder: BatchedEncoder, collection: Collection | None) -> ItemJudge:
        """A policy that is in force nowhere; hash lists are the collection's."""
        lists = hash_lists(collection) if collection is not None else {}
        hashes = [lists[name].sha256 for name in policy.lists if name in lists]
        key = (policy.version, encoder.fingerprint, *hashes)
        with self._lock:
            if key in self._judges:
                self._judges.move_to_end(key)
                return self._judges[key]
        opened = open_policy(policy, encoder, services().settings, collection)
        judge = ItemJudge(StoredPolicy(policy, 0, now().isoformat(), g.key.name), *opened)
        with self._lock:
            self._judges[key] = judge
            while len(self._judges) > _KEPT:
                self._judges.popitem(last=False)
        return judge


@blueprint.record
def _prepare(state: BlueprintSetupState) -> None:
    state.app.extensions[_CACHE] = Opened()


@blueprint.post("")
def moderate() -> Response:
    """Judge up to 64 texts and pictures as if they were uploaded, and store nothing.

    As JSON, or as a multipart form whose part `request` holds the JSON; without `items` in it, all other parts are
    judged. A picture that cannot be had or decoded has an `error` in place of its verdict, and stops no other.
    """
    started = time.perf_counter()
    request = _from_form() if is_form() else _parsed(json_body())
    bench = _bench(request)
    found = judge_loose(_things(request.items), bench.judge, bench.encoder, max_pixels=services().settings.max_pixels)
    policy = bench.judge.stored.policy
    return jsonify(
        {
            "results": [_told(each, policy) for each in found],
            "policy": policy.name,
            "version": policy.version,
            "number": bench.judge.stored.number or None,
            "collection": bench.collection,
            "took_ms": round((time.perf_counter() - started) * 1000, 2),
            "model": bench.encoder.name,
            "fingerprint": bench.encoder.fingerprint,
            "warnings": bench.warnings,
        }
    )


def _told(found: dict[str, Any] | CrosslensError, policy: Policy) -> dict[str, Any]:
    if isinstance(found, CrosslensError):
        return {"error": found.as_dict()}
    categories = [
        {
            "name": category.name,
            "probability": found["categories"][category.name]["probability"],
            "threshold": category.threshold,
            "fired": found["categories"][category.name]["fired"],
            "action": category.action,
        }
        for category in policy.categories
        if category.name in found["categories"]
    ]
    told = {"action": found["action"], "categories": categories}
    return told if found.get("reason") is None else {**told, "reason": found["reason"]}


def _bench(request: ModerateRequest) -> _Bench:
    """Who judges what was asked.

    Raises:
        CollectionNotFound, KeyForbids: the collection is not there, or not for this key.
        PolicyNotFound, PolicyInvalid: the policy is none.
        HashListNotFound, ClassifierNotFound, ModelMismatch: it cannot be opened here.
    """
    parts, opened = services(), cast(Opened, current_app.extensions[_CACHE])
    collection = _named(request.collection)
    if request.policy is None and collection is None:
        collection = _own()
    encoder = parts.encoders.of(collection) if collection else parts.encoders.named(parts.settings.model)
    if request.policy is not None:
        return _Bench(opened.of(_policy(request.policy), encoder, collection), encoder)
    if collection is not None and (judge := open_judge(collection, encoder, parts.settings)) is not None:
        return _Bench(judge, encoder, collection.name)
    names = [name for name in starting_policies() if name not in EXAMPLES]
    lists = set(hash_lists(collection)) if collection else set()
    wanting = [name for name in names if not lists.issuperset(starting_policy(name).lists)]
    policy = joined("starting", [name for name in names if name not in wanting])
    told = tuple(f"{name} was not judged: its hash list is not here." for name in wanting)
    return _Bench(opened.of(policy, encoder, collection), encoder, warnings=told)


def _named(name: str | None) -> Collection | None:
    if name is None:
        return None
    if not g.key.sees(check_collection_name(name)):
        raise KeyForbids(f"The key {g.key.id} is not for that collection.")
    return services().collection(name)


def _own() -> Collection | None:
    """The server's own collection, if a policy is in force there and the key is for it."""
    name = services().settings.collection
    if g.key.sees(name):
        with suppress(CollectionNotFound):
            collection = services().collection(name)
            return collection if is_moderated(collection) else None
    return None


def _policy(given: str | dict[str, Any]) -> Policy:
    if isinstance(given, str):
        return starting_policy(given)
    # With the places that its mistakes have when it is written an item a line.
    return parse_policy(json.dumps(given, indent=2, ensure_ascii=False), form="json")


def _parsed(body: Any, parts: dict[str, bytes] | None = None) -> ModerateRequest:
    try:
        return ModerateRequest.model_validate(body, context={"parts": parts or {}})
    except ValidationError as error:
        raise invalid_request(error) from error


def _from_form() -> ModerateRequest:
    parts = named_files(apart_from="request")
    body = form_json("request")
    body = {} if body is None else body
    if isinstance(body, dict) and "items" not in body:
        body = {**body, "items": [{"image": part} for part in parts]}
    return _parsed(body, parts)


def _things(items: list[Term]) -> list[Thing]:
    """What is to be judged; what is behind URLs is fetched together."""
    things: list[Thing] = [item.text if item.text is not None else item.image or b"" for item in items]
    urls = {row: item.image for row, item in enumerate(items) if isinstance(item.image, str)}
    if urls:
        for row, content in zip(urls, services().fetch_all(list(urls.values())), strict=True):
            things[row] = content
    return things
