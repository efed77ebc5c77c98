"""The document says what the API does: each route, and its real answers."""

import base64
import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from indexer.settings import Settings
from search_api.access.needs import routes
from search_api.app import create_app
from search_api.openapi import (
    answers,
    classification_answers,
    duplicates_answers,
    moderation_answers,
    review_answers,
    service_answers,
)
from search_api.services import Services
from tests.bundles import picture
from tests.search_api.conftest import Served
from tests.waiting import until


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    services = Services(settings.model_copy(update={"workers": 0}))
    yield create_app(services.settings, services)
    services.close()


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    answer = app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    return dict(answer.get_json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method, path, operation


def test_every_route_is_described_and_nothing_else(app: Flask, document: dict[str, Any]) -> None:
    described = sorted(f"{method.upper()} {path}" for method, path, _ in operations(document))
    assert described == sorted(re.sub(r"<(\w+)>", r"{\1}", route) for route in routes(app))
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert not [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]


def test_every_operation_says_what_it_does_and_what_can_go_wrong(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert set(operation["tags"]) <= tags, where
        variables = {each["name"] for each in document["paths"][path].get("parameters", ())}
        assert variables == set(re.findall(r"{(\w+)}", path)), where
        free = operation.get("security") == []
        assert ("401" in operation["responses"]) != free, where
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema["allOf"][1]["properties"]["code"]["enum"], where
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for example in content.get("examples", {}).values():
                errors = Draft202012Validator({**content["schema"], "components": document["components"]}).iter_errors(
                    example["value"]
                )
                assert not [error.message for error in errors], where


def test_links_lead_to_operations_with_their_parameters(document: dict[str, Any]) -> None:
    by_name = {operation["operationId"]: path for _, path, operation in operations(document)}
    found = 0
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                path = by_name[link["operationId"]]
                assert set(link["parameters"]) == set(re.findall(r"{(\w+)}", path))
                found += 1
    assert found >= 5


def test_a_key_is_asked_for_as_it_is_described(settings: Settings) -> None:
    services = Services(settings.model_copy(update={"workers": 0}))
    with create_app(services.settings, services, public=True).test_client() as client:
        document = client.get("/openapi.json").get_json()
        for method, path, operation in operations(document):
            answer = client.open(re.sub(r"{\w+}", "x", path), method=method.upper())
            if path != "/metrics":  # a setting's
                assert (answer.status_code == 401) == ("401" in operation["responses"]), path
    services.close()


ANSWERS = (
    answers, classification_answers, duplicates_answers, moderation_answers, review_answers, service_answers,
)  # fmt: skip


class Truth:
    """Holds answers against the document: nothing undescribed in them, no status, type or code that is not there."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = copy.deepcopy(document)
        for name in (name for module in ANSWERS for name in vars(module)):
            schema = self.document["components"]["schemas"].get(name)
            if schema is not None and schema.get("additionalProperties") is not True:
                schema["additionalProperties"] = False
        self.seen: set[tuple[str, int]] = set()
        # `search/batch` before `{item}`: what is fixed goes first, as in the app.
        paths = sorted(document["paths"], key=lambda path: (path.count("{"), path))
        self._paths = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in paths]

    def __call__(self, response: httpx.Response) -> None:
        response.read()
        path = response.request.url.raw_path.decode().partition("?")[0]
        rule = next(rule for pattern, rule in self._paths if pattern.fullmatch(path))
        operation = self.document["paths"][rule][response.request.method.lower()]
        described = operation["responses"].get(str(response.status_code))
        where = f"{operation['operationId']} {response.status_code}"
        assert described is not None, f"{where}: {response.text[:300]}"
        self.seen.add((operation["operationId"], response.status_code))
        for name, header in described["headers"].items():
            required = self.document["components"]["headers"][header["$ref"].rpartition("/")[2]].get("required", False)
            assert name in response.headers or not required, f"{where}: {name}"
        content = described.get("content", {})
        if not content:
            assert not response.content, where
            return
        media_type = response.headers["Content-Type"].partition(";")[0]
        assert media_type in content or "*/*" in content, f"{where}: {media_type}"
        schema = content.get(media_type, {}).get("schema")
        if media_type.endswith("json") and schema:
            validator = Draft202012Validator(
                {**schema, "components": self.document["components"]},
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
            problems = [
                f"{list(error.absolute_path)}: {error.message[:300]}"
                for error in validator.iter_errors(response.json())
            ]
            assert not problems, f"{where}: {problems}"


def test_real_answers_are_as_described(served: Served) -> None:
    truth = Truth(httpx.get(f"{served.url}/openapi.json").json())
    with httpx.Client(
        base_url=served.url, headers=served.headers, event_hooks={"response": [truth]}, timeout=60
    ) as client:
        ask_for_everything(client, served)
    described = {
        (operation["operationId"], int(status))
        for _, _, operation in operations(truth.document)
        for status in operation["responses"]
        if int(status) < 400
    }
    assert described - truth.seen == {("get_thumbnail", 206)}


def ask_for_everything(client: httpx.Client, served: Served) -> None:  # noqa: PLR0915  one request after another
    media = "/v1/collections/truth"
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 200
    for path in ("/", "/static/page.js"):
        kept = {"If-None-Match": client.get(path).headers["ETag"]}
        assert client.get(path, headers=kept).status_code == 304
    client.get("/static/none")
    assert client.put(media).status_code == 201
    assert client.put(media, json={}).status_code == 200
    client.put(media, json={"model": "none"})
    client.put("/v1/collections/no%20name")
    client.get("/v1/collections")
    client.get(media)
    client.get("/v1/collections/none")

    items = [{"file": "red.png", "id": "my red", "payload": {"tag": "warm"}}, {"text": "so much blue", "id": "words"}]
    files = [("file", ("red.png", picture("red"))), ("file", ("bad.png", b"bad"))]
    form = [("request", (None, json.dumps({"items": items}), "application/json")), *files]
    assert client.post(f"{media}/items", files=form).status_code == 201
    client.post(f"{media}/items", files={"file": b"bad"})
    client.post(f"{media}/items", json={"items": [{"text": "x", "payload": {"crosslens": 1}}]})
    client.post(f"{media}/items", json={"items": []})
    client.post(f"{media}/items", content=b"x")
    for item in ("my red", "words"):
        client.get(f"{media}/items/{item}")
    client.get(f"{media}/items/none")
    client.patch(f"{media}/items/my red", json={"payload": {"stars": 5}})
    whole = client.get(f"{media}/items/my red/media")
    client.get(f"{media}/items/my red/media", headers={"Range": "bytes=3-"})
    client.get(f"{media}/items/my red/media", headers={"Range": "bytes=999999-"})
    client.get(f"{media}/items/my red/media", headers={"If-None-Match": whole.headers["ETag"]})
    client.get(f"{media}/items/words/media")
    small = client.get(f"{media}/items/my red/thumbnail?size=64")
    client.get(f"{media}/items/my red/thumbnail?size=64", headers={"If-None-Match": small.headers["ETag"]})
    client.get(f"{media}/items/my red/thumbnail?size=1")
    client.get(f"{media}/items/words/thumbnail")

    search = f"{media}/search"
    explained = {"query": [{"text": "red"}, {"item": "my red", "weight": 0.5}], "explain": True, "diversity": 0.2}
    assert client.post(search, json=explained).json()["results"][0]["explain"]
    page = client.post(search, json={"query": [{"text": "red"}], "limit": 1}).json()
    assert client.post(search, json={"cursor": page["cursor"], "limit": 1}).json()["results"]
    client.post(search, json={"limit": 1})
    client.post(search, files={"file": picture("blue")})
    for wrong in (
        {"query": [{"vector": [1.0]}]}, {"query": [{"item": "none"}]}, {"query": [{"image": "aGVsbG8="}]},
        {"filter": {"must": 1}}, {"cursor": "x"}, {"query": [{"text": "a"}], "limit": 0},
        {"query": [{"image": "http://127.0.0.1/x.png"}]}, {"query": [{"text": "red"}], "rerank": {"top": 3}},
    ):  # fmt: skip
        assert client.post(search, json=wrong).status_code >= 400
    client.post(f"{search}/batch", json={"searches": [{"query": [{"text": "red"}]}] * 2})
    client.post(f"{search}/batch", json={"searches": [{"query": [{"text": "red"}], "rerank": True}]})
    client.post(f"{media}/facets", json={"fields": ["kind"]})
    client.post(f"{media}/facets", json={"fields": []})
    assert client.post(f"{media}/duplicates", json={"by": "picture"}).status_code == 202
    until(lambda: client.post(f"{media}/duplicates", json={"by": "picture"}).status_code == 200)
    client.post(f"{media}/duplicates", json={"by": "x"})

    labels = {"labels": ["red", "green"], "threshold": 0.4}
    assert client.put(f"{media}/labels/colours", json=labels).status_code == 201
    assert client.put(f"{media}/labels/colours", json={**labels, "multi": True}).status_code == 200
    client.put(f"{media}/labels/colours", json={})
    client.get(f"{media}/labels")
    client.get(f"{media}/labels/colours")
    client.get(f"{media}/labels/none")
    image = base64.b64encode(picture("green")).decode()
    everything = [{"text": "red"}, {"image": image}, {"item": "my red"}]
    assert client.post(f"{media}/classify", json={"items": everything, **labels}).status_code == 200
    client.post(f"{media}/classify", json={"items": everything, "set": "colours"})
    client.post(f"{media}/classify", json={"items": everything, "set": "none"})
    applied = client.post(f"{media}/labels/colours/apply")
    assert applied.status_code == 202
    client.delete(f"{media}/labels/colours")

    ask_to_moderate(client)
    job = client.post(f"{media}/ingest", json={"source": str(served.photos)}).json()["job"]
    until(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == "done")
    assert client.get(f"/v1/jobs/{job}/failures").json()["failures"]
    assert "event: job" in client.get(f"/v1/jobs/{job}/events").text
    client.post(f"/v1/jobs/{job}/retry")
    client.post(f"/v1/jobs/{job}/cancel")
    client.get("/v1/jobs?limit=5")
    client.get("/v1/jobs?limit=x")
    client.get("/v1/jobs/none")
    client.post(f"{media}/ingest", json={})

    made = client.post("/v1/keys", json={"name": "reader", "roles": ["read"], "limits": {"rate": 5}, "expires": "1d"})
    assert made.status_code == 201
    reader = {"Authorization": f"Bearer {made.json()['key']}"}
    assert client.delete(media, headers=reader).status_code == 403
    client.get("/v1/keys", headers={"Authorization": "Bearer wrong"})
    client.get("/v1/keys")
    client.get("/v1/key")
    client.delete(f"/v1/keys/{made.json()['id']}")
    client.delete("/v1/keys/none")
    client.get("/v1/audit?limit=3")
    client.get("/v1/audit?limit=0")
    assert client.delete(f"{media}/items/words").status_code == 204
    assert client.delete(media).status_code == 204


def ask_to_moderate(client: httpx.Client) -> None:
    """Of a collection of its own, as a policy hides what is there."""
    base = "/v1/collections/moderated"
    client.get("/v1/policies")
    client.get("/v1/policies/neutral")
    client.get("/v1/policies/none")
    client.put(base)
    client.post(f"{base}/items", files=[("file", ("red.png", picture("red"))), ("file", ("blue.png", picture("blue")))])
    client.get(f"{base}/policy")
    client.post(f"{base}/moderation/rescan")
    prompts = {"type": "prompts", "positive": ["red"]}
    policy = {"name": "p", "categories": [{"name": "c", "action": "block", "detectors": [prompts]}]}
    assert client.post(f"{base}/moderation/dry-run", json=policy).json()["categories"][0]["nearest"]
    client.post(f"{base}/moderation/dry-run?limit=0", json=policy)
    assert client.put(f"{base}/policy?queries=true", json=policy).status_code == 201
    assert client.put(f"{base}/policy", json={**policy, "description": "new"}).status_code == 200
    client.put(f"{base}/policy", json={})
    client.put(f"{base}/policy", content=b"x")
    client.put(f"{base}/policy", json=policy, headers={"If-Match": '"1"'})
    client.get(f"{base}/policy")
    client.get(f"{base}/policies")
    client.get(f"{base}/policies/1")
    client.get(f"{base}/policies/9")
    assert client.post(f"{base}/policies/1/restore").status_code == 200
    assert client.post(f"{base}/moderation/rescan").status_code == 202
    ask_to_review(client, base)
    client.post(f"{base}/search", json={"query": [{"text": "red"}]})
    image = base64.b64encode(picture("red")).decode()
    for items in ([{"text": "red"}, {"image": image}, {"image": "aGVsbG8="}], []):
        client.post("/v1/moderate", json={"items": items, "collection": "moderated"})
    client.post("/v1/moderate", files={"file": picture("red")})

    lists, csv = f"{base}/hash-lists", {"Content-Type": "text/csv"}
    assert client.put(f"{lists}/known", content=f"hash,type\n{'a' * 64},pdq\n", headers=csv).status_code == 201
    assert client.put(f"{lists}/known?join=true", json={"data": []}).status_code == 200
    client.put(f"{lists}/known", content=b"x", headers=csv)
    client.put(f"{lists}/known", content=b"x")
    client.get(lists)
    client.get(f"{lists}/known?format=json")
    client.get(f"{lists}/none")
    assert client.delete(f"{lists}/known").status_code == 204
    assert client.delete(f"{base}/policy").status_code == 204
    client.delete(f"{base}/policy")
    assert client.post(f"{base}/policies/1/restore").status_code == 201
    client.delete(base)


def ask_to_review(client: httpx.Client, base: str) -> None:
    """By the policy `p` of one category, `c`: prompts that find what is red."""
    review = f"{base}/moderation/review"
    words = [f"{colour} {number}" for colour in ("red", "blue") for number in range(24)]
    items = [{"text": word, "id": word} for word in words]
    assert client.post(f"{base}/items", json={"items": items}).status_code == 201
    assert client.get(f"{review}?limit=5").json()["next"]
    client.get(f"{review}?after=x")
    for some, decision in (
        (words[:24], {"what": "recategorise", "categories": ["c"]}),
        (words[24:], {"what": "approve"}),
    ):
        decided = client.post(review, json={"ids": some, "decision": decision})
        assert decided.status_code == 200
    client.post(review, json={"ids": ["none"], "decision": {"what": "approve"}})
    client.post(review, json={"ids": words[:1], "decision": {"what": "approve"}, "seen": {words[0]: 0}})
    client.post(review, json={})
    last = decided.json()["entries"][-1]["number"]
    assert client.post(f"{base}/moderation/undo", json={"numbers": [last]}).status_code == 200
    client.post(f"{base}/moderation/undo", json={"numbers": [last]})
    client.post(f"{base}/moderation/undo", json={"numbers": [10**6]})
    assert client.post(f"{base}/items/{words[-2]}/appeal", json={"note": "no"}).status_code == 201
    client.post(f"{base}/items/{words[-2]}/appeal")
    client.post(f"{base}/items/none/appeal")
    assert len(client.get(f"{base}/moderation/trail").text.splitlines()) > 48
    client.get(f"{base}/moderation/trail?format=csv&after=3")
    client.get(f"{base}/moderation/trail?format=x")
    assert client.post(f"{base}/moderation/fit").json()["categories"][0]["positive"] == 24
    client.post(f"{base}/moderation/fit", json={"precision": 2})


def test_the_page_has_all_of_it_and_loads_nothing(app: Flask, document: dict[str, Any]) -> None:
    answer = app.test_client().get("/docs")
    page = answer.get_data(as_text=True)
    assert answer.mimetype == "text/html"
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for _, path, operation in operations(document):
        assert f'id="{operation["operationId"]}"' in page, path
        assert f'href="#{operation["operationId"]}"' in page, path
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in page, name
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))
    assert not re.search(r"<script|src=|@import|url\(|\son\w+=", page)
    assert "curl -X POST http://localhost:8000/v1/collections/media/search" in page
