"""The real app over a real index with the built-in bundle, and photos that the policy `neutral` tells apart."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from indexer.settings import Settings
from indexer.store import Store, open_store
from search_api.app import create_app
from search_api.services import Services
from workers.judging import judge_items
from workers.runtime import Runtime

MEDIA = Path(__file__).parents[3] / "examples" / "media"
PHOTOS = ("cat.jpg", "coffee.webp", "rocket.jpg", "coins.png", "astronaut.jpg", "gravel.jpg", "raccoon.avif")
BASE = "/v1/collections/media"
NEUTRAL = "neutral"


@dataclass
class Site:
    """A client of the app, and what the app works with."""

    client: FlaskClient
    services: Services

    def upload(self, *names: str) -> None:
        items = [{"file": name, "id": name.partition(".")[0], "payload": {"tag": name}} for name in names]
        files = [(io.BytesIO((MEDIA / name).read_bytes()), name) for name in names]
        data = {"file": files, "request": json.dumps({"items": items})}
        answer = self.client.post(f"{BASE}/items", data=data, content_type="multipart/form-data")
        assert answer.status_code == 201, answer.data

    def put_policy(self, policy: Any = None, **query: Any) -> TestResponse:
        """Put a policy in force: `neutral` unless it is given, as text in YAML or as a document."""
        if policy is None:
            policy = self.client.get(f"/v1/policies/{NEUTRAL}").get_json()["text"]
        body: dict[str, Any] = (
            {"data": policy, "content_type": "application/yaml"} if isinstance(policy, str) else {"json": policy}
        )
        return self.client.put(f"{BASE}/policy", query_string=query, **body)

    def rescan(self) -> int:
        """Judge what is stored as a worker does; how many items changed."""
        collection = self.services.collection("media")
        ids = [{"source": item} for some in collection.ids(1000) for item in some]
        runtime = SimpleNamespace(encoder_of=self.services.encoders.of, settings=self.services.settings)
        return judge_items(cast(Runtime, runtime), collection, ids).indexed

    def actions(self) -> dict[str, str | None]:
        """What is done with each item, by its name."""
        stored = self.services.collection("media").scan()
        return {item.record.name or item.id: (item.record.verdict or {}).get("action") for item in stored}


@pytest.fixture(scope="package")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Store, Services]]:
    """One index, and one encoder, for all of these tests."""
    settings = Settings(data=tmp_path_factory.mktemp("moderation") / "data", workers=0)
    with open_store(settings) as store:
        services = Services(settings)
        yield settings, store, services
        services.close()


@pytest.fixture
def site(parts: tuple[Settings, Store, Services]) -> Iterator[Site]:
    settings, _, services = parts
    with create_app(settings, services).test_client() as client:
        assert client.put(BASE).status_code == 201
        yield Site(client, services)
        assert client.delete(BASE).status_code == 204
