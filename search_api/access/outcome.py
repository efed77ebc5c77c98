"""After each request: the answer narrowed to what its caller may see, the limits' headers, and the audit log."""

from __future__ import annotations

import json
import threading
import time

from flask import Response, g, request

from search_api.access.audit import AuditLog, Entry
from search_api.access.keys import Key, Role
from search_api.access.limits import Standing, header_policy, header_state
from search_api.access.needs import Need, Scope

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = frozenset({401, 403, 429})
_MOST_FLOODS = 10_000


def narrow(response: Response, need: Need, key: Key | None, *, local: bool) -> None:
    """Leave out what the caller may not see: other collections' entries in lists, and readiness' details."""
    if need.scope is Scope.LISTED and key is not None and key.collections and response.status_code == 200:
        member, name = need.listed
        body = response.get_json()
        body[member] = [each for each in body[member] if key.sees(each[name])]
        response.set_data(json.dumps(body))
    if need.readiness and key is None and not local and response.is_json:
        body = response.get_json()
        kept = {name: value for name, value in body.items() if name != "parts"}
        if "detail" in kept:
            kept["detail"] = "A part of the server is not ready."
        response.set_data(json.dumps(kept))


def add_headers(response: Response, standings: list[Standing], *, presented: bool) -> None:
    """Say what the limits are, and how to ask with a key."""
    if response.status_code == 401:
        error = ', error="invalid_token"' if presented else ""
        response.headers["WWW-Authenticate"] = f'Bearer realm="crosslens"{error}'
    if standings:
        response.headers["RateLimit-Policy"] = header_policy(standings)
        response.headers["RateLimit"] = header_state(standings)


class Clerk:
    """Writes to the audit log what has to be there: every changing request, and every refusal."""

    def __init__(self, log: AuditLog, *, lines_per_second: int) -> None:
        """`lines_per_second`: as many refusals of strangers at one address are written each; whoever knows no key
        could fill the disk. Those beyond are counted in the next line."""
        self._log = log
        self._most = lines_per_second
        self._lock = threading.Lock()
        self._floods: dict[str, tuple[float, int]] = {}
        """By address: since when refusals are counted, and how many."""

    def note(self, status: int, need: Need | None, key: Key | None) -> None:
        """Write down the request that is being answered, if it has to be."""
        refused = status in _REFUSALS
        if not refused and (need is None or need.role is Role.READ or request.method in SAFE_METHODS):
            return
        unlogged = self._passed_over(g.peer.bucket) if refused and key is None else 0
        if unlogged is None:
            return
        collection = g.collection or (request.view_args or {}).get("name")
        self._log.write(
            Entry(
                key=key.id if key else g.key_id,
                name=key.name if key else None,
                address=g.peer.address,
                method=request.method,
                path=request.path,
                collection=None if collection is None else str(collection),
                status=status,
                request=g.request_id,
                unlogged=unlogged,
            )
        )

    def _passed_over(self, address: str) -> int | None:
        """How many refusals went unlogged since the address' last line; None if this one does, too."""
        now = time.monotonic()
        with self._lock:
            since, count = self._floods.get(address, (float("-inf"), 0))
            if now - since < 1:
                self._floods[address] = (since, count + 1)
                return 0 if count < self._most else None
            if len(self._floods) >= _MOST_FLOODS:
                self._floods.clear()
            self._floods[address] = (now, 1)
            return max(0, count - self._most)
