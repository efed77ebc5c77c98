"""What visitors search with, judged by the policy in force where it says so; what it would not show is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from flask import g

from indexer.errors import CrosslensError, MediaError, QueryBlocked
from indexer.items import sha256_hex
from indexer.moderation.policy import Action, Policy
from indexer.moderation.stored import judges_queries
from indexer.moderation.visible import SHOWN
from search_api.composing import naming
from search_api.request import SearchRequest, Term
from search_api.services import services

if TYPE_CHECKING:
    from indexer.store.collection import Collection

_log = structlog.get_logger("moderation")
_STRICT = frozenset(Action) - set(SHOWN)


def allowed(collection: Collection, requests: Sequence[SearchRequest]) -> list[SearchRequest]:
    """The requests, if the policy shows all texts and images in them; what URLs gave is in them then.

    Judged are those that the search goes toward: who asks for less of something is not looking for it. Items of the
    collection are seen anyway, and bare vectors are neither texts nor images. Without a policy that judges queries
    nothing is looked at.

    Raises:
        QueryBlocked: the policy would block one of them or hold it back; also when it cannot judge.
        MediaError: an image that cannot be fetched or decoded, with the term named.
    """
    if not judges_queries(collection):
        return list(requests)
    requests = [_fetched(request, _before(number, requests)) for number, request in enumerate(requests)]
    named = [
        (f"{_before(number, requests)}query.{place}", term)
        for number, request in enumerate(requests)
        for place, term in enumerate(request.query)
        if term.weight > 0 and (term.text is not None or term.image is not None)
    ]
    if named:
        _check(collection, named)
    return requests


def _check(collection: Collection, named: Sequence[tuple[str, Term]]) -> None:
    from indexer.moderation.judging import open_judge  # noqa: PLC0415  for who has such a policy
    from search_api.moderation.loose import judge_loose  # noqa: PLC0415

    parts = services()
    encoder = parts.encoders.of(collection)
    judge = open_judge(collection, encoder, parts.settings)
    if judge is None:
        return
    things = [term.text if term.text is not None else _bytes(term) for _, term in named]
    found = judge_loose(things, judge, encoder, max_pixels=parts.settings.max_pixels)
    for (name, _), each in zip(named, found, strict=True):
        if isinstance(each, MediaError):
            with naming(name):
                raise each
        if isinstance(each, CrosslensError):
            raise each
    blocked = [
        (thing, each)
        for thing, each in zip(things, found, strict=True)
        if isinstance(each, dict) and each["action"] not in SHOWN
    ]
    if blocked:
        verdicts = [verdict for _, verdict in blocked]
        categories = _strict_ones(judge.stored.policy, verdicts)
        _note(collection.name, categories, [thing for thing, _ in blocked])
        told = f" It is of {', '.join(categories)}." if categories else " It cannot be judged now."
        raise QueryBlocked(f"This collection's policy does not allow this search.{told}", categories=categories)


def _strict_ones(policy: Policy, verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """The categories that block or hold back what these verdicts are of."""
    return [
        category.name
        for category in policy.categories
        if category.action in _STRICT
        and any(verdict["categories"].get(category.name, {}).get("fired") for verdict in verdicts)
    ]


def _note(collection: str, categories: list[str], things: Sequence[str | bytes]) -> None:
    """Log it; what was searched for, and the hashes of images, only if that is set."""
    content: dict[str, Any] = {}
    if services().settings.log_blocked_queries:
        content = {"queries": [each if isinstance(each, str) else f"sha256:{sha256_hex(each)}" for each in things]}
    _log.info("query blocked", id=g.get("request_id", "-"), key=g.key.id, collection=collection,
              categories=categories, **content)  # fmt: skip


def _fetched(request: SearchRequest, before: str) -> SearchRequest:
    """The request with what its URLs give in their place: what is judged is what is searched with."""
    urls = {place: term.image for place, term in enumerate(request.query) if isinstance(term.image, str)}
    if not urls:
        return request
    query = list(request.query)
    for place, content in zip(urls, services().fetch_all(list(urls.values())), strict=True):
        if isinstance(content, MediaError):
            with naming(f"{before}query.{place}"):
                raise content
        query[place] = query[place].model_copy(update={"image": content})
    return request.model_copy(update={"query": query})


def _before(number: int, requests: Sequence[SearchRequest]) -> str:
    return f"searches.{number}." if len(requests) > 1 else ""


def _bytes(term: Term) -> bytes:
    return term.image if isinstance(term.image, bytes) else b""
