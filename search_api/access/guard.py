"""Before each request: who asks, whether it may, and whether it is not too much.

A server on loopback for which no key was ever made answers everything that this machine asks. Once there is a key, and
on any other address, keys are demanded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from flask import Flask, Response, current_app, g, request

from indexer.errors import (
    CrosslensError,
    JobNotFound,
    KeyForbids,
    KeyInvalid,
    KeyRequired,
    KeysUnavailable,
    RateLimited,
)
from indexer.settings import Settings
from search_api import problems
from search_api.access.audit import AuditLog
from search_api.access.bodies import items_in_upload, sources_in_body
from search_api.access.book import KeyBook, brought_key
from search_api.access.gate import UNREAD
from search_api.access.keys import Key, Role, digest_of, read_token
from search_api.access.limits import Limit, Meters, open_meters
from search_api.access.needs import NEEDS, Body, Need, Scope, check_routes, need_of
from search_api.access.outcome import SAFE_METHODS, Clerk, add_headers, narrow
from search_api.access.peers import Peer, names_this_machine, peer_of
from search_api.access.store import KeyStore, open_keys

FAILURES = "failures"
_URLS = ("http://", "https://")
_MOST_KNOWN = 10_000

NOBODY = Key(
    id="local", name="this machine", digest=digest_of(""), roles=frozenset({Role.ADMIN}),
    created=datetime.fromtimestamp(0, UTC),
)  # fmt: skip
"""Who asks where no key is demanded: this machine, which may do everything."""


class Guard:
    """What stands before the routes of one app."""

    def __init__(
        self,
        settings: Settings,
        *,
        public: bool = False,
        keys: KeyStore | None = None,
        meters: Meters | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`public`: the server is reached from other machines. The rest is the settings' unless given.

        Raises:
            InvalidRequest: the admin key that the environment brings will not do.
        """
        self.settings = settings
        self.book = KeyBook(keys or open_keys(settings), brought=brought_key(settings), now=now)
        self.audit = AuditLog(settings.data / "audit", days=settings.audit_days, now=now)
        self.meters = meters or open_meters(settings)
        self._public = public or bool(settings.proxy_networks)
        metrics = replace(NEEDS["GET /metrics"], without_key=settings.metrics_access)
        self._needs = {**NEEDS, "GET /metrics": metrics}
        self._clerk = Clerk(self.audit, lines_per_second=settings.address_failures)
        self._known: set[tuple[str, str]] = set()
        """Addresses and keys that came from there."""

    def register(self, app: Flask) -> None:
        """Stand before the routes of an app, all of which must be there.

        Raises:
            UndeclaredRoute: one of them is not in the table of what routes need.
        """
        check_routes(app, self._needs)
        app.extensions["crosslens.guard"] = self
        app.before_request(self._admit)
        app.after_request(self._finish)

    def demanded(self) -> bool:
        """Whether a key is demanded.

        Raises:
            KeysUnavailable: it depends on whether there is one, and nobody knows.
        """
        return self.book.demanded() or self._public

    def lets_in(self, headers: Mapping[str, str]) -> bool:
        """Whether a request with these headers (named as in WSGI, without HTTP_) may send a large body."""
        try:
            if self.demanded():
                self.book.who(presented(headers.get("AUTHORIZATION"), headers.get("X_API_KEY")) or "")
            return True
        except CrosslensError:
            return False  # why, the answer will say

    def _admit(self) -> None:
        g.key = g.key_id = g.collection = None
        g.standings = []
        text = presented(request.headers.get("Authorization"), request.headers.get("X-API-Key"))
        g.presented = text is not None
        g.need = need = need_of(request.url_rule, request.method, self._needs)
        g.peer = peer = peer_of(request.environ, self.settings.proxy_networks)
        free = need is None or need.without_key == "anybody" or (need.without_key == "local" and peer.local)
        try:
            demanded = self.demanded()
        except KeysUnavailable:
            if not free or (need is not None and need.readiness):
                raise
            demanded = True
        if not demanded:
            self._only_this_machine(peer)
            g.key = NOBODY
            return
        if text is None or need is None or request.environ.get(UNREAD):
            self._spend(self._of_address(peer))
        if need is None:
            return
        if text is not None:
            self._recognise(text, peer, free=free)
        if g.key is None:
            if not free:
                raise KeyRequired("This needs a key.")
            return
        if request.environ.get(UNREAD):
            # It was made between the header and now: what it sent was not kept.
            raise KeyInvalid("The key was not known when the request came.", remedy="Send the request again.")
        self._spend(self._of_key(g.key))
        self._authorise(g.key, need)

    def _only_this_machine(self, peer: Peer) -> None:
        """Keep out whatever a browser or a proxy brings from elsewhere, where no key does."""
        if not names_this_machine(request.environ):
            raise problems.Refused("The Host header names another machine than this one.")
        if not peer.local:
            raise problems.Refused(
                "The request came through a proxy, or from another machine.",
                remedy="Make a key: `crosslens keys create NAME --role admin`. Once there is one, any way will do.",
            )
        # A form upload needs no permission of the server's, only a browser.
        if request.method in SAFE_METHODS:
            return
        origin = request.headers.get("Origin")
        allowed = self.settings.allowed_origins
        if origin is not None and ("*" in allowed or origin in allowed):
            return
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"} or (
            origin is not None and origin != request.host_url.rstrip("/")
        ):
            raise problems.Refused("The request comes from a page of another site.")

    def _recognise(self, text: str, peer: Peer, *, free: bool) -> None:
        """Find the key; count wrong ones by address.

        An address with too many is not let in with a right key either, so that guessing gains nothing by going on,
        unless that key came from there before: one caller cannot lock out the others behind its proxy.
        """
        token = read_token(text)
        g.key_id = token.id if token else None
        failures = Limit(
            f"address:{peer.bucket}", FAILURES, self.settings.address_failures, self.settings.address_failures / 60
        )
        try:
            key = self.book.who(text)
        except KeysUnavailable:
            if free:
                return
            raise
        except KeyInvalid:
            self._spend([(failures, 1)])
            if free:
                return
            raise
        if (peer.bucket, key.id) not in self._known:
            self._spend([(failures, 0)])
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known.add((peer.bucket, key.id))
        g.key = key
        self.book.note_use(key)

    def _authorise(self, key: Key, need: Need) -> None:
        if not key.may(need.role):
            raise KeyForbids(f"The key {key.id} has no role {need.role.value!r}.")
        named = request.view_args or {}
        match need.scope:
            case Scope.EVERYTHING if key.collections:
                raise KeyForbids(f"The key {key.id} is for some collections only.")
            case Scope.COLLECTION:
                g.collection = str(named["name"])
                if not key.sees(g.collection):
                    # Whether there is one of that name is nobody's business who may not see it.
                    raise KeyForbids(f"The key {key.id} is not for that collection.")
            case Scope.JOB:
                self._find_job(key, str(named["job_id"]))
            case _:
                pass
        if need.body is not None:
            self._meter_body(key, need.body)

    def _find_job(self, key: Key, job_id: str) -> None:
        from search_api.services import services  # noqa: PLC0415  it opens much
        from workers.submit import available  # noqa: PLC0415

        if key.collections:
            with available(self.settings):
                g.collection = services().queue.jobs.get(job_id).collection
            if not key.sees(g.collection):
                raise JobNotFound(f"There is no job {job_id!r}.")

    def _meter_body(self, key: Key, body: Body) -> None:
        allowance, settings = key.allowance, self.settings
        of_bytes = allowance.bytes_per_day or settings.key_bytes_per_day
        of_items = allowance.items_per_day or settings.key_items_per_day
        charges: list[tuple[Limit, float]] = []
        if body is Body.SOURCES:
            sources = sources_in_body() if key.collections or of_items else []
            if key.collections and not all(each.lower().startswith(_URLS) for each in sources):
                raise KeyForbids(
                    "A key for some collections may name http(s) URLs alone: workers read all else as the server.",
                    remedy="Upload the files, or use a key for all collections.",
                )
            items = len(sources)
        else:
            if of_bytes:
                size = max(0, request.content_length or 0)
                charges.append((Limit(f"key:{key.id}", "bytes", of_bytes, unit="content-bytes"), size))
            items = items_in_upload() if of_items else 0
        if of_items:
            charges.append((Limit(f"key:{key.id}", "items", of_items, unit="items"), items))
        self._spend(charges)

    def _of_key(self, key: Key) -> list[tuple[Limit, float]]:
        allowance, settings = key.allowance, self.settings
        rate = Limit(
            f"key:{key.id}", "rate", allowance.burst or settings.key_burst, allowance.rate or settings.key_rate
        )
        charges: list[tuple[Limit, float]] = [(rate, 1)]
        if a_day := allowance.requests_per_day or settings.key_requests_per_day:
            charges.append((Limit(f"key:{key.id}", "requests", a_day), 1))
        return charges

    def _of_address(self, peer: Peer) -> list[tuple[Limit, float]]:
        if peer.local:
            return []  # the health checks of this machine
        settings = self.settings
        return [(Limit(f"address:{peer.bucket}", "rate", settings.address_burst, settings.address_rate), 1)]

    def _spend(self, charges: Sequence[tuple[Limit, float]]) -> None:
        """Charge what a request costs; the last word on each limit goes into the answer's headers.

        Raises:
            RateLimited: one of them has not that much left.
        """
        standings = self.meters.spend(charges)
        g.standings = [*g.standings, *standings]
        if refused := [each for each in standings if each.refused]:
            worst = max(refused, key=lambda each: each.wait)
            raise RateLimited(
                f"The limit {worst.limit.name!r} of {worst.limit.quota:g} in {worst.limit.window} seconds is reached.",
                retry_after=worst.wait,
                limit=worst.limit.name,
            )

    def _finish(self, response: Response) -> Response:
        if "peer" not in g:  # it failed before anything was known of it
            return response
        if g.need is not None:
            narrow(response, g.need, g.key, local=g.peer.local)
        standings = [each for each in g.standings if each.limit.name != FAILURES]
        add_headers(response, standings, presented=g.presented)
        self._clerk.note(response.status_code, g.need, g.key)
        return response


def guard() -> Guard:
    """That of the app that answers the current request."""
    return cast("Guard", current_app.extensions["crosslens.guard"])


def presented(authorization: str | None, x_api_key: str | None) -> str | None:
    """The key that a request's headers hold; None without one. Two that differ are no key."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    found = {token.strip()} if scheme.lower() == "bearer" else set()
    if x_api_key is not None:
        found.add(x_api_key.strip())
    if len(found) > 1:
        return ""
    return found.pop() if found else None
