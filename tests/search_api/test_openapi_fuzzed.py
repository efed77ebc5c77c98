"""Whatever schemathesis makes of the document, the app answers as it says: valid requests, and invalid ones."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis
import schemathesis

from indexer.errors import UrlRefused
from indexer.settings import Settings
from search_api.server import serve
from tests.waiting import until
from workers.broker import redis_url, server_command

LONG = bool(os.environ.get("CROSSLENS_TEST_LONG"))
"""It goes on for minutes."""
ADMIN_KEY = "0123456789abcdef0123456789abcdef"
CHECKED_LATER = {"filter", "cursor", "order_by", "template", "fields", "labels", "expires", "from", "to", "field",
                 "policy_invalid", "hash_list_invalid"}  # fmt: skip
"""Members with a language of their own, or that name what only the collection knows: a schema lets more through."""
BEYOND_SCHEMAS = (
    "cursor", "is no time", "no part is named", "nothing in the upload", "is not declared", "No appropriate index",
    "is no item's id", "is no label set of the name", "items: List should have at least 1 item", "is where the labels",
    "are written to", "terms with its likes", "cancel", "label sets", "twice", "must be printable",
    "invalid JSON path", "can be declared", "is declared as", "can declare no more", "has no category",
    "Only decisions on items can be undone",
)  # fmt: skip
"""What a body means, beside what is stored, beside the path, or beside a form's other parts."""
FUZZ: dict[str, Any] = {
    "seed": 20270131,
    "auth": {"openapi": {"bearer": {"bearer": ADMIN_KEY}, "header": {"api_key": ADMIN_KEY}}},
    "continue-on-failure": True,
    "max-stream-events": 1,
    "warnings": False,
    # One that is there, where what is asked of it matters; elsewhere whatever can be thought of.
    "parameters": {"name": "media"},
    "operations": [
        {"include-method": "DELETE", "include-path": "/v1/collections/{name}", "parameters": {"name": "other"}},
        # What is there, too, wherever it is asked for.
        {"include-path": "/v1/collections/{name}/policies/{policy_number}", "parameters": {"policy_number": 1}},
        {"include-path": "/v1/collections/{name}/policies/{policy_number}/restore", "parameters": {"policy_number": 1}},
    ],
    "generation": {"max-examples": 100 if LONG else 3, "database": "none"},
    "phases": {"stateful": {"generation": {"max-examples": 50 if LONG else 5}, "max-steps": 4}},
    "checks": {
        # 422: an image that decodes and a vector that fits are beyond any schema. 429: the queue is full.
        "positive_data_acceptance": {"expected-statuses": ["2xx", 304, 400, 401, 403, 404, 409, 412, 416, 422, 429]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 412, 413, 415, 416, 422, 429]},
    },
}


@pytest.fixture
def fuzzed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with a queue that nobody works on, and a key."""
    refused = UrlRefused("There is no network in a test.")
    monkeypatch.setattr("indexer.media.fetch.Fetcher.fetch_all", lambda self, urls: [refused for _ in urls])
    monkeypatch.setattr("search_api.jobs._FOLLOW_SECONDS", 0.01)  # nobody works on these jobs
    monkeypatch.setenv("CROSSLENS_ADMIN_KEY", ADMIN_KEY)
    settings = Settings(
        key_rate=1e6, key_burst=10**6, address_failures=10**6, metrics_access="nobody", log_level="error"
    )
    broker = subprocess.Popen(server_command(settings))
    client = redis.Redis.from_url(redis_url(settings))

    def answers_ping() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    until(answers_ping)
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()
    server = threading.Thread(target=serve, args=(settings, listener, stopping))
    server.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stopping.set()
    server.join()
    broker.terminate()
    broker.wait()


@pytest.mark.timeout(3600 if LONG else 300)
def test_schemathesis_finds_nothing(fuzzed: str) -> None:
    items = {"items": [{"text": "red", "id": "car"}, {"text": "blue"}]}
    made = httpx.post(f"{fuzzed}/v1/collections/media/items", json=items, headers={"X-API-Key": ADMIN_KEY})
    assert made.status_code == 201
    config = schemathesis.Config.from_dict(FUZZ)
    schema = schemathesis.openapi.from_url(f"{fuzzed}/openapi.json", config=config)
    found: dict[str, str] = {}
    cases = 0
    for event in schemathesis.engine.from_schema(schema).execute():
        recorder = getattr(event, "recorder", None)
        if recorder is not None and hasattr(event, "status"):
            cases += len(recorder.cases)
            for case_id, checks in recorder.checks.items():
                if complaint := unexpected_refusal(recorder, case_id):
                    found.setdefault(f"{recorder.label} refuses what is valid", complaint)
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        asked = recorder.cases[case_id].value
                        found.setdefault(
                            f"{asked.operation.label} {failure.title}",
                            f"{failure.message[:600]}\n{check.failure_info.code_sample[:900]}",
                        )
        error = getattr(event, "exception", None) or getattr(event, "value", None)
        if isinstance(error, Exception):
            found[f"{type(event).__name__} {getattr(event, 'label', '')}"] = repr(error)[:1500]
    assert not found, "\n\n".join(f"{name}: {text}" for name, text in found.items())
    assert cases > 300


def unexpected_refusal(recorder: Any, case_id: str) -> str | None:
    """A 400 to a valid request, about something that the schema could have said."""
    meta, response = recorder.cases[case_id].value.meta, recorder.interactions[case_id].response
    if meta is None or meta.generation.mode.is_negative or response is None or response.status_code != 400:
        return None
    problem = response.json()
    steps = set(str(problem.get("field", problem["code"])).split("."))
    told = steps & CHECKED_LATER or any(words in problem["detail"] for words in BEYOND_SCHEMAS)
    return None if told else f"{problem['detail']} {recorder.cases[case_id].value.as_curl_command()[:900]}"
