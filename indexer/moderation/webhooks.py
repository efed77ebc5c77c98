"""Webhooks on verdicts: signed as Standard Webhooks (v1) asks, tried again until they arrive, lost by no restart.

A message names the item, the action, the categories and the policy, never the content, nor who decided. It may arrive
twice, and late: its `webhook-id` tells a repetition, and `data.number` or `data.at` what is newer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

import structlog
from pydantic import SecretStr

from indexer.errors import CrosslensError, UsageError
from indexer.media.addresses import Target
from indexer.moderation.outbox import Delivery, Outbox
from indexer.moderation.posting import Answer, Poster
from indexer.moderation.review.state import fired, is_persons, review_of
from indexer.moderation.trail import stamp

if TYPE_CHECKING:
    from pathlib import Path

PAUSES = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each further try, as Standard Webhooks has them; after the last, three days later, it is dead."""
LEASE_SECONDS = 60.0
"""After which a delivery is tried again whose process died; longer than a request can take."""

_JITTER = 0.2
_LONGEST_PAUSE = 86_400
_IDLE_SECONDS = 5.0
"""After which a courier looks for what other processes put in."""
_PREFIX = "whsec_"
_GONE = 410
_log = structlog.get_logger("webhooks")


class Posts(Protocol):
    """What delivers; `Poster` does."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body."""


@dataclass(frozen=True)
class Endpoint:
    """Where verdicts are sent.

    Raises:
        UrlRefused: the URL is none of the web's.
        UsageError: the secret is none.
    """

    name: str
    """Under which its deliveries are kept; it must stay, and the others may change."""
    url: str
    secret: SecretStr
    """`whsec_` and 24 to 64 bytes in base64; two, with a space between, while one takes the other's place."""
    actions: frozenset[str] | None = None
    """Verdicts with these actions alone; None for all."""

    def __post_init__(self) -> None:
        Target.parse(self.url)
        self.keys()

    def keys(self) -> list[bytes]:
        """What messages are signed with."""
        keys = [_key(text) for text in self.secret.get_secret_value().split()]
        known = [key for key in keys if key is not None]
        if not known or len(known) < len(keys):
            raise UsageError(
                f"The secret of the webhook {self.name!r} is none.",
                remedy="Give whsec_ and then 24 to 64 random bytes in base64.",
            )
        return known


def _key(text: str) -> bytes | None:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        return None
    return key if text.startswith(_PREFIX) and 24 <= len(key) <= 64 else None


def signed(keys: Iterable[bytes], id: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers of a message: HMAC-SHA256 over `id.seconds.body`, by each key."""
    content = b".".join((id.encode(), str(seconds).encode(), body))
    signatures = (base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def message(collection: str, item_id: str, verdict: Mapping[str, Any], at: datetime) -> bytes:
    """What is sent of an item's verdict, as its record has it; `at` is the time of the message."""
    review = review_of(verdict)
    found = review.categories if is_persons(verdict) and review.categories is not None else fired(verdict)
    data = {
        "collection": collection,
        "item": item_id,
        "action": str(verdict["action"]),
        "categories": list(found),
        "policy": verdict["policy"],
        "version": verdict["version"],
        "by": "person" if is_persons(verdict) else "policy",
        "at": verdict["at"],
        "number": review.number,
    }
    return json.dumps(
        {"type": "verdict.changed", "timestamp": stamp(at), "data": data}, separators=(",", ":"), default=str
    ).encode()


class Webhooks:
    """The webhooks of one data folder: any process puts messages in, one or more deliver them in threads.

    Usage:
        webhooks = Webhooks(settings.data, [Endpoint("desk", "https://example.org/hook", secret)])
        webhooks.put("media", {item.id: item.record.verdict})
        webhooks.start(); ...; webhooks.close()
    """

    def __init__(
        self,
        data: Path,
        endpoints: Sequence[Endpoint],
        *,
        poster: Posts | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`poster` sends, with no private host allowed unless another is given; `jitter` gives 0 to 1.

        Raises:
            UsageError: two endpoints of one name.
        """
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        if len(self._endpoints) < len(endpoints):
            raise UsageError("Two webhooks have the same name.", remedy="Give each a name of its own.")
        self.outbox = Outbox(data / "moderation" / "webhooks")
        self._own = Poster()
        self._poster: Posts = poster or self._own
        self._clock = clock
        self._jitter = jitter
        self._stopped = threading.Event()
        self._wake = {name: threading.Event() for name in self._endpoints}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, collection: str, verdicts: Mapping[str, Mapping[str, Any]]) -> int:
        """Keep a message for every verdict and endpoint that wants it, on disk; how many those are.

        `verdicts` are those that are new, by the items' ids.
        """
        moment = self._clock()
        at = datetime.fromtimestamp(moment, UTC)
        deliveries = [
            Delivery(f"msg_{uuid.uuid4().hex}", endpoint.name, message(collection, item, verdict, at), moment, moment)
            for item, verdict in verdicts.items()
            for endpoint in self._endpoints.values()
            if endpoint.actions is None or verdict["action"] in endpoint.actions
        ]
        if deliveries:
            self.outbox.put(deliveries)
            for wake in self._wake.values():
                wake.set()
        return len(deliveries)

    def deliver(self, name: str) -> int:
        """Try what is due at one endpoint, once each; how many arrived."""
        endpoint, arrived = self._endpoints[name], 0
        while not self._stopped.is_set():
            moment = self._clock()
            delivery = self.outbox.claim(name, moment, until=moment + LEASE_SECONDS)
            if delivery is None:
                break
            arrived += self._try(endpoint, delivery, moment)
        return arrived

    def _try(self, endpoint: Endpoint, delivery: Delivery, moment: float) -> bool:
        headers = signed(endpoint.keys(), delivery.id, int(moment), delivery.body)
        answer = None
        try:
            answer = self._poster.post(endpoint.url, delivery.body, headers)
            problem = f"It answers {answer.status}."
        except CrosslensError as error:
            problem = error.message
        if answer is not None and 200 <= answer.status < 300:
            self.outbox.arrived(delivery)
            return True
        again = None if answer is not None and answer.status == _GONE else self._again(delivery, answer)
        self.outbox.failed(delivery, problem, again=again)
        # Of the endpoint only its name: a URL may hold a token.
        _log.warning(
            "a webhook failed" if again is not None else "a webhook is given up",
            endpoint=endpoint.name,
            delivery=delivery.id,
            tries=delivery.tries + 1,
            problem=problem,
        )
        return False

    def _again(self, delivery: Delivery, answer: Answer | None) -> float | None:
        """When to try again; None if that was the last."""
        if delivery.tries >= len(PAUSES):
            return None
        pause = PAUSES[delivery.tries] * (1 + _JITTER * self._jitter())
        asked = (answer.retry_after or 0) if answer is not None else 0
        return self._clock() + max(pause, min(asked, _LONGEST_PAUSE))

    def revive(self, ids: Sequence[str]) -> int:
        """Try dead letters anew, by their deliveries' ids; how many there were."""
        count = self.outbox.revive(ids, self._clock())
        for wake in self._wake.values():
            wake.set()
        return count

    def start(self) -> None:
        """Deliver from now on, in a thread for each endpoint: one that hangs holds up no other."""
        for name in self._endpoints:
            thread = threading.Thread(target=self._run, args=(name,), name=f"crosslens-webhook-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the threads after the requests under way; what is left waits on disk."""
        self._stopped.set()
        for wake in self._wake.values():
            wake.set()
        for thread in self._threads:
            thread.join()
        self._own.close()

    def _run(self, name: str) -> None:
        wake = self._wake[name]
        while not self._stopped.is_set():
            try:
                self.deliver(name)
                due = self.outbox.next_due(name)
            except (OSError, sqlite3.Error) as error:  # a full disk may have room again
                _log.error("webhooks cannot be kept", endpoint=name, detail=str(error))
                due = None
            left = _IDLE_SECONDS if due is None else max(0.0, due - self._clock())
            wake.wait(min(left, _IDLE_SECONDS))
            wake.clear()
