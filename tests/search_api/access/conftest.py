"""Stores of keys and meters of both kinds, over a real Valkey and over files; and an app with a clock that can be set."""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from indexer.settings import Settings
from search_api.access.guard import Guard
from search_api.access.keys import Key, Role, new_key
from search_api.access.store import FileKeys, KeyStore, RedisKeys, open_keys
from search_api.app import create_app
from search_api.services import Services
from tests.waiting import until
from workers.broker import redis_url, server_command

START = datetime(2027, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def valkey() -> Iterator[redis.Redis]:
    """A client of a Valkey with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="crosslens-") as folder:
        there = Settings(data=Path(folder))
        server = subprocess.Popen(server_command(there))
        client = redis.Redis.from_url(redis_url(there))

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        until(answers)
        yield client
        server.kill()
        server.wait()


@pytest.fixture(params=["redis", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    """An empty store of either kind."""
    if request.param == "file":
        return FileKeys(tmp_path / "access")
    client = request.getfixturevalue("valkey")
    client.flushall()
    return RedisKeys(client)


@dataclass
class Clock:
    """A time that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def move(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Api:
    """An app behind a guard."""

    settings: Settings
    services: Services
    clock: Clock = field(default_factory=Clock)
    public: bool = False

    def __post_init__(self) -> None:
        self.guard = Guard(self.settings, public=self.public, now=self.clock)
        self.client: FlaskClient = create_app(self.settings, self.services, guard=self.guard).test_client()

    def key(self, *roles: Role, **options: Any) -> str:
        """A new key, as its holder sends it."""
        key, token = new_key("test", roles or [Role.ADMIN], now=self.clock(), **options)
        self.guard.book.store.add(key)
        self.guard.book.changed()
        return str(token)

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> Any:
        headers = options.pop("headers", {}) | ({"X-API-Key": key} if key else {})
        return self.client.open(path, method=method, headers=headers, **options)

    def audited(self) -> list[dict[str, Any]]:
        return self.guard.audit.read(limit=1000).entries


@pytest.fixture
def alone(settings: Settings) -> Settings:
    """Without a queue: keys in a file, limits in the process."""
    return settings.model_copy(update={"workers": 0})


@pytest.fixture
def api(alone: Settings) -> Iterator[Api]:
    services = Services(alone)
    yield Api(alone, services)
    services.close()


@pytest.fixture
def queued(settings: Settings, valkey: redis.Redis) -> Iterator[Api]:
    """With a queue: keys, limits and jobs in Valkey."""
    valkey.flushall()
    path = valkey.connection_pool.connection_kwargs["path"]
    settings = settings.model_copy(update={"redis_url": f"unix://{path}"})
    assert isinstance(open_keys(settings), RedisKeys)
    services = Services(settings)
    yield Api(settings, services, clock=Clock(datetime.now(UTC)))
    services.close()


def made(**changes: Any) -> Key:
    return new_key("test", [Role.READ], now=START)[0].model_copy(update=changes)
