"""The shelf of ranked lists that several API processes share: the queue's Redis."""

from __future__ import annotations

import secrets

import redis

from indexer.settings import Settings
from search_api.pages import LIFE_SECONDS
from workers.submit import available

_KEY = "crosslens:pages"


class RedisShelf:
    """Parts in the queue's Redis, for all API processes that share it.

    Its methods raise `BrokerUnavailable` where nothing answers.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client
        self._secret: bytes | None = None

    def secret(self) -> bytes:
        """As `Shelf.secret`."""
        if self._secret is None:
            with available(self._settings):
                self._client.set(f"{_KEY}:secret", secrets.token_hex(32), nx=True)
                self._secret = bytes(self._client.get(f"{_KEY}:secret") or b"")  # type: ignore[arg-type]
        return self._secret

    def add(self, key: str, part: bytes) -> bytes:
        """As `Shelf.add`."""
        with available(self._settings):
            if self._client.set(f"{_KEY}:{key}", part, nx=True, ex=LIFE_SECONDS):
                return part
        return self.get(key) or part

    def get(self, key: str) -> bytes | None:
        """As `Shelf.get`."""
        with available(self._settings):
            return self._client.get(f"{_KEY}:{key}")  # type: ignore[return-value]
