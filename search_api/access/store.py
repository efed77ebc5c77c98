"""Where keys are kept: in the queue's Redis, or, where there is no queue, in a file of the data folder.

    crosslens:keys         hash   id -> key (JSON)
    crosslens:keys:used    hash   id -> about when it was last used (RFC 3339)

Redis, so that all API processes share them; the embedded broker has an append-only file. A key that is revoked stays
in the book until it is forgotten: so a server whose last key was revoked goes on demanding one.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pydantic import ValidationError

from indexer.errors import KeyNotFound, KeysUnavailable
from indexer.settings import Settings
from search_api.access.keys import Key

if TYPE_CHECKING:
    import redis

_KEYS = "crosslens:keys"
_USED = "crosslens:keys:used"
_SECONDS = 2.0
"""How long Redis may take to answer: a request waits for it."""

_log = structlog.get_logger("access")


class KeyStore(Protocol):
    """The book of keys. Thread-safe; every method raises `KeysUnavailable` when it cannot be read or written."""

    def all(self) -> Mapping[str, Key]:
        """Every key by its id, also those expired and revoked."""

    def add(self, key: Key) -> None:
        """Note a new key."""

    def change(self, key_id: str, change: Callable[[Key], Key]) -> Key:
        """Change a key, whoever else changes it; give it back as it is then.

        Raises:
            KeyNotFound: there is none of that id.
        """

    def forget(self, key_id: str) -> None:
        """Remove a key from the book.

        Raises:
            KeyNotFound: there is none of that id.
        """

    def touch(self, key_id: str, now: datetime) -> None:
        """Note that a key was used."""


class RedisKeys:
    """Keys in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # its types name every answer that any setting could give

    def all(self) -> Mapping[str, Key]:
        """Every key by its id."""
        with _redis_answers():
            keys, used = self._redis.pipeline(transaction=False).hgetall(_KEYS).hgetall(_USED).execute()
        return _read({key.decode(): value.decode() for key, value in keys.items()}, {
            key.decode(): value.decode() for key, value in used.items()
        })  # fmt: skip

    def add(self, key: Key) -> None:
        """Note a new key."""
        with _redis_answers():
            self._redis.hset(_KEYS, key.id, _written(key))

    def change(self, key_id: str, change: Callable[[Key], Key]) -> Key:
        """Change a key; tried again if another process was faster."""

        def attempt(pipe: Any) -> Key:
            stored = pipe.hget(_KEYS, key_id)
            if stored is None:
                raise no_key(key_id)
            changed = change(Key.model_validate_json(stored))
            pipe.multi()
            pipe.hset(_KEYS, key_id, _written(changed))
            return changed

        with _redis_answers():
            key: Key = self._redis.transaction(attempt, _KEYS, value_from_callable=True)
            return key

    def forget(self, key_id: str) -> None:
        """Remove a key from the book."""
        with _redis_answers():
            removed, _ = self._redis.pipeline().hdel(_KEYS, key_id).hdel(_USED, key_id).execute()
        if not removed:
            raise no_key(key_id)

    def touch(self, key_id: str, now: datetime) -> None:
        """Note that a key was used."""
        with _redis_answers():
            self._redis.hset(_USED, key_id, now.isoformat())


class FileKeys:
    """Keys in a file for this user alone, which is replaced as a whole; writers take a lock in turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "keys.json"

    def all(self) -> Mapping[str, Key]:
        """Every key by its id."""
        with _files_answer():
            book = self._load()
        return _read(book["keys"], book["used"])

    def add(self, key: Key) -> None:
        """Note a new key."""
        with self._book() as book:
            book["keys"][key.id] = _written(key)

    def change(self, key_id: str, change: Callable[[Key], Key]) -> Key:
        """Change a key under the lock."""
        with self._book() as book:
            if key_id not in book["keys"]:
                raise no_key(key_id)
            changed = change(Key.model_validate_json(book["keys"][key_id]))
            book["keys"][key_id] = _written(changed)
        return changed

    def forget(self, key_id: str) -> None:
        """Remove a key from the book."""
        with self._book() as book:
            if book["keys"].pop(key_id, None) is None:
                raise no_key(key_id)
            book["used"].pop(key_id, None)

    def touch(self, key_id: str, now: datetime) -> None:
        """Note that a key was used."""
        with self._book() as book:
            book["used"][key_id] = now.isoformat()

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            book = json.loads(self._path.read_bytes())
            return {"keys": dict(book["keys"]), "used": dict(book["used"])}
        except FileNotFoundError:
            return {"keys": {}, "used": {}}

    @contextmanager
    def _book(self) -> Iterator[dict[str, dict[str, str]]]:
        """The book to be changed; written when the context ends well."""
        with _files_answer():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder / "keys.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                book = self._load()
                yield book
                with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=".keys-", delete=False) as file:
                    # Made for this user alone (0600), as every temporary file.
                    json.dump(book, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(file.name).replace(self._path)
            finally:
                os.close(lock)


def open_keys(settings: Settings) -> KeyStore:
    """The store of these settings; nothing is asked before its first use."""
    if not settings.has_queue:
        return FileKeys(settings.data / "access")
    return RedisKeys(impatient_client(settings))


def impatient_client(settings: Settings) -> redis.Redis:
    """A client of the queue's Redis for use within a request: it gives up after two seconds and one more try."""
    import redis  # noqa: PLC0415  not for `crosslens --help`
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    from workers.broker import redis_url  # noqa: PLC0415

    return redis.Redis.from_url(
        redis_url(settings), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), 1)
    )


def _written(key: Key) -> str:
    return key.model_dump_json(exclude={"used"})


def _read(keys: Mapping[str, str], used: Mapping[str, str]) -> dict[str, Key]:
    found = {}
    for key_id, text in keys.items():
        try:
            fields = {**json.loads(text), "used": used.get(key_id)}
            found[key_id] = Key.model_validate(fields)
        except (ValueError, ValidationError):
            # A newer version's, or damaged: it lets nobody in, and hides no other.
            _log.warning("a key cannot be read", id=key_id[:64])
    if keys and not found:
        raise KeysUnavailable("None of the keys can be read.", remedy="Make new ones: `crosslens keys create`.")
    return found


def no_key(key_id: str) -> KeyNotFound:
    """The error for an id that no key has."""
    return KeyNotFound(f"There is no key {key_id[:64]!r}.")


@contextmanager
def _redis_answers() -> Iterator[None]:
    import redis  # noqa: PLC0415

    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise KeysUnavailable(f"The queue, where the keys are, does not answer: {error}.") from error


@contextmanager
def _files_answer() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeysUnavailable(f"The file of keys cannot be used: {error}.") from error
