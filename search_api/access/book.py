"""The keys as one API process knows them: read as a whole, believed for two seconds, so that a request rarely waits.

What another process changes (a key made, revoked, about to expire sooner) is seen within `FRESH_SECONDS`; what this one
changes, at once. When the store does not answer, what was read last is good for `USABLE_SECONDS`, and after that nobody
is let in: it fails closed.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from indexer.errors import InvalidRequest, KeyInvalid, KeysUnavailable
from indexer.settings import Settings
from search_api.access.keys import Key, admin_key, digest_of, read_token

if TYPE_CHECKING:
    from search_api.access.store import KeyStore

FRESH_SECONDS = 2.0
USABLE_SECONDS = 5.0
UNKNOWN_SECONDS = 0.25
"""An id that is not there may have been made just now: then it is looked for again, but not for every wrong guess."""
USED_EVERY = timedelta(minutes=1)
"""How often it is written down that a key was used."""

_NOBODY = digest_of("")

_log = structlog.get_logger("access")


class KeyBook:
    """The keys of a store, and the one that the operator brings. Thread-safe."""

    def __init__(
        self,
        store: KeyStore,
        *,
        brought: Key | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.now = now
        self._brought = brought
        self._clock = clock
        self._reading = threading.Lock()
        self._keys: Mapping[str, Key] = {}
        self._read_at = float("-inf")
        self._away_until = float("-inf")
        self._noted: dict[str, datetime] = {}

    def demanded(self) -> bool:
        """Whether there is a key: whether it may still be used does not matter.

        Raises:
            KeysUnavailable: nobody knows.
        """
        return self._brought is not None or bool(self.keys())

    def keys(self, *, age: float = FRESH_SECONDS) -> Mapping[str, Key]:
        """The keys by id, as they were at most `age` seconds ago if the store answers, `USABLE_SECONDS` if not.

        Raises:
            KeysUnavailable: the store does not answer.
        """
        if self._age() < age:
            return self._keys
        # One reads, the others go on with what was read before, while that will do.
        if not self._reading.acquire(blocking=self._age() >= USABLE_SECONDS):
            return self._keys
        try:
            if self._age() >= age:
                self._read()
        finally:
            self._reading.release()
        return self._keys

    def changed(self) -> None:
        """The store was changed by this process: read it again before the next answer."""
        with self._reading:
            self._read_at = float("-inf")

    def who(self, text: str) -> Key:
        """The key of which this is the whole text.

        Raises:
            KeyInvalid: it is no key of this server's, or not any more.
            KeysUnavailable: the store does not answer.
        """
        if self._brought is not None and hmac.compare_digest(digest_of(text), self._brought.digest):
            return self._brought
        token = read_token(text)
        if token is None:
            raise KeyInvalid("The key is no key of this server's.")
        key = self.keys().get(token.id) or self.keys(age=UNKNOWN_SECONDS).get(token.id)
        if key is None:
            hmac.compare_digest(digest_of(token.secret), _NOBODY)  # as long as for an id that is there
            raise KeyInvalid("The key is no key of this server's.")
        if not key.is_of(token.secret):
            raise KeyInvalid("The key is no key of this server's.")
        now = self.now()
        if (state := key.state(now)) != "active":
            raise KeyInvalid(f"The key {key.id} is {state}.")
        return key

    def note_use(self, key: Key) -> None:
        """Write down that a key was used, once a minute; if that fails, not at all."""
        now = self.now()
        before = self._noted.get(key.id)
        if key is self._brought or (before is not None and now - before < USED_EVERY):
            return
        self._noted[key.id] = now
        try:
            self.store.touch(key.id, now)
        except KeysUnavailable as error:
            _log.warning("use of a key not noted", id=key.id, detail=error.message)

    def _age(self) -> float:
        return self._clock() - self._read_at

    def _read(self) -> None:
        """With the lock held."""
        began = self._clock()
        if began >= self._away_until:
            try:
                self._keys, self._read_at = self.store.all(), self._clock()
                return
            except KeysUnavailable as error:
                # It is left alone for as long as it kept us waiting: others wait for the lock meanwhile.
                self._away_until = 2 * self._clock() - began
                _log.warning("the keys cannot be read", detail=error.message)
        if self._age() >= USABLE_SECONDS:
            raise KeysUnavailable("The keys cannot be read.", retry_after=2)


def brought_key(settings: Settings) -> Key | None:
    """The admin key of the environment, or of the file that it names; None if there is neither.

    Raises:
        InvalidRequest: both are set, the file cannot be read, or the key will not do.
    """
    if settings.admin_key is not None and settings.admin_key_file is not None:
        raise InvalidRequest("CROSSLENS_ADMIN_KEY and CROSSLENS_ADMIN_KEY_FILE are both set.", remedy="Unset one.")
    if settings.admin_key_file is not None:
        try:
            text = settings.admin_key_file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"CROSSLENS_ADMIN_KEY_FILE cannot be read: {error}.", remedy="Mount the secret, or unset it."
            ) from error
        return admin_key(SecretStr(text))
    return None if settings.admin_key is None else admin_key(settings.admin_key)
