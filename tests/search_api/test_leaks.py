"""What a policy withholds: to who does not ask as a moderator, a collection is as if those items were not there.

A twin holds what may be shown and nothing else, under another name. Whatever is asked, both answer the same.
"""

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as within
from hypothesis import strategies as st

from indexer.items import Kind, Location, Record, now, to_payload
from indexer.models.encoder import Encoder
from indexer.moderation.policy import Action
from indexer.moderation.starting import starting_policy
from indexer.moderation.stored import put_policy
from indexer.settings import Settings
from indexer.store import open_store
from indexer.store.collection import Point
from search_api.access.keys import Role
from search_api.services import Services
from tests.rerankers import make_reranker, make_text_reranker
from tests.search_api.access.conftest import Api

COUNT = 1000
ADDED = now()
WITHHELD = ("block", "quarantine", "unjudged", "part")
TAGS = ("red", "green", "blue")
MARK = "HIDDEN"


def item(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def hidden(number: int) -> str | None:
    """Why an item is withheld: every tenth is, for one of four reasons."""
    return WITHHELD[number // 10 % len(WITHHELD)] if number % 10 == 3 else None


SHOWN = [item(number) for number in range(COUNT) if hidden(number) is None]
HIDDEN = [item(number) for number in range(COUNT) if hidden(number) is not None]


def point(number: int, dimension: int) -> Point:
    chance = np.random.default_rng(number)
    vector = chance.normal(size=dimension)
    why = hidden(number)
    mark = MARK if why else "open"
    action = why if why in {"block", "quarantine"} else [Action.ALLOW, Action.FLAG, Action.BLUR][number % 3].value
    text = f"{mark} words of {number}" if number % 2 else None
    record = Record(
        kind=Kind.TEXT if text else Kind.IMAGE,
        sha256=f"{number // 7:064x}",
        locations=[Location(source=f"/photos/{mark}-{number}.jpg")],
        bytes=number,
        media_type="text/plain" if text else "image/jpeg",
        width=None if text else 10,
        height=None if text else 10,
        pdq=None if text else f"{number // 5:064x}",
        text=text,
        verdict=None if why == "unjudged" else {"action": action, "by": "policy", "policy": "p", "version": "0" * 16},
        withheld=True if why == "part" else None,
        added_at=ADDED,
    )
    payload = {"year": 2000 + number % 9, "tags": [TAGS[number % 3], mark], "secret": f"{mark}-{number}"}
    return Point(item(number), (vector / np.linalg.norm(vector)).astype(np.float32), to_payload(record, payload))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, colours, encoder: Encoder) -> Iterator[Api]:
    settings = Settings(
        data=tmp_path_factory.mktemp("leaks") / "data", model=str(colours), workers=0, key_rate=10**6, key_burst=10**6
    )
    make_reranker(settings.models_folder)
    make_text_reranker(settings.models_folder)
    with open_store(settings) as store:
        for name in ("closed", "twin"):
            store.create(name, encoder.name, encoder.fingerprint, encoder.dimension)
            made = store.declare(name, {"secret": "keyword"})
            points = [point(number, encoder.dimension) for number in range(COUNT)]
            made.upsert([each for each in points if name == "closed" or each.id in set(SHOWN)])
        put_policy(store, store.get("closed"), starting_policy("neutral"), by="test")
        services = Services(settings)
        yield Api(settings, services)
        services.close()


@pytest.fixture(scope="module")
def keys(api: Api) -> dict[Role, str]:
    return {role: api.key(role) for role in Role}


UNLIKE = ("took_ms", "stages", "cursor", "as_of")
"""Members of an answer that differ between any two."""


def ask(api: Api, key: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """The answer's status and body, without what differs between any two, and without the collection's name."""
    answer = api.ask(method, path, key, **options)
    text = answer.get_data(as_text=True)
    assert answer.status_code < 500, text
    try:
        body = json.loads(text)
    except ValueError:
        return answer.status_code, text
    return answer.status_code, _plain(body)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in UNLIKE and key != "instance"}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return re.sub(r"closed|twin", "NAME", value) if isinstance(value, str) else value


def same(api: Api, key: str, method: str, path: str, **options: Any) -> Any:
    """Ask both; gives what they answer, which is the same and has nothing of what is withheld."""
    closed, twin = (ask(api, key, method, f"/v1/collections/{name}{path}", **options) for name in ("closed", "twin"))
    assert closed == twin
    if method == "GET":  # else the answer may repeat what was asked
        assert MARK not in json.dumps(closed)
    return closed


ids = st.sampled_from([*HIDDEN[:20], *SHOWN[:20], str(uuid.UUID(int=10**6))])
conditions = st.one_of(
    st.sampled_from(TAGS).map(lambda tag: {"key": "tags", "match": {"value": tag}}),
    st.just({"key": "tags", "match": {"value": MARK}}),
    st.integers(0, COUNT).map(lambda number: {"key": "secret", "match": {"value": f"{MARK}-{number}"}}),
    st.integers(1999, 2010).map(lambda year: {"key": "year", "range": {"gte": year}}),
    st.lists(ids, min_size=1, max_size=5).map(lambda some: {"has_id": some}),
)
filters = st.one_of(
    st.none(),
    st.builds(lambda some, kind: {kind: some}, st.lists(conditions, max_size=3), st.sampled_from(["must", "should"])),
    st.builds(lambda some: {"must_not": some}, st.lists(conditions, max_size=2)),
    st.just(f"tags:{MARK}"),
)
terms = st.one_of(
    st.sampled_from(["red", "green", "blue and red"]).map(lambda text: {"text": text}),
    ids.map(lambda each: {"item": each}),
)
searches = st.fixed_dictionaries(
    {"limit": st.integers(1, 30)},
    optional={
        "query": st.lists(terms, min_size=1, max_size=2),
        "filter": filters,
        "kind": st.sampled_from(["image", "text"]),
        "order_by": st.sampled_from(["year", "-year"]),
        "group_by": st.sampled_from(["tags", "secret", None]),
        "diversity": st.sampled_from([0.0, 0.5]),
        "collapse": st.sampled_from([["bytes"], ["picture"], ["alike"]]),
        "min_relevance": st.sampled_from([0.01, 0.5]),
        "explain": st.booleans(),
        "rerank": st.sampled_from([False, {"top": 5, "deadline_ms": 60_000}, {"top": 200, "deadline_ms": 60_000}]),
    },
)
quietly = within(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(request=searches, role=st.sampled_from(list(Role)))
@quietly
def test_searches_answer_as_if_it_were_not_there(api: Api, keys: dict[Role, str], request: Any, role: Role) -> None:
    status, body = same(api, keys[role], "POST", "/search", json=request)
    if status == 200:
        assert not {result["id"] for result in body["results"]} & set(HIDDEN)
        assert "verdict" not in json.dumps(body)
    same(api, keys[role], "POST", "/search/batch", json={"searches": [request]})


@given(request=searches, sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
@within(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_too(api: Api, keys: dict[Role, str], request: Any, sizes: list[int]) -> None:
    pages: dict[str, list[Any]] = {}
    for name in ("closed", "twin"):
        found = pages[name] = []
        answer = api.ask("POST", f"/v1/collections/{name}/search", keys[Role.READ], json=request).get_json()
        found.append([result["id"] for result in answer.get("results", [])])
        for size in sizes:
            if not (cursor := answer.get("cursor")):
                break
            body = {"cursor": cursor, "limit": size}
            answer = api.ask("POST", f"/v1/collections/{name}/search", keys[Role.READ], json=body).get_json()
            found.append([result["id"] for result in answer["results"]])
    assert not {each for page in pages["closed"] for each in page} & set(HIDDEN)
    assert pages["closed"] == pages["twin"]


def test_a_moderators_cursor_shows_a_visitor_nothing_more(api: Api, keys: dict[Role, str]) -> None:
    path = "/v1/collections/closed/search"
    body: dict[str, Any] = {"query": [{"text": "red"}], "limit": 5}
    answer = api.ask("POST", f"{path}?view=moderator", keys[Role.MODERATE], json=body).get_json()
    seen = []
    while answer["cursor"] and len(seen) < 1000:
        body = {"cursor": answer["cursor"], "limit": 100}
        answer = api.ask("POST", path, keys[Role.READ], json=body).get_json()
        seen += [result["id"] for result in answer["results"]]
    assert seen
    assert not set(seen) & set(HIDDEN)


@given(among=filters, fields=st.lists(st.sampled_from(["tags", "secret", "year", "kind"]), min_size=1, max_size=2))
@quietly
def test_facets_count_what_is_shown(api: Api, keys: dict[Role, str], among: Any, fields: list[str]) -> None:
    same(api, keys[Role.WRITE], "POST", "/facets", json={"fields": fields, "filter": among, "limit": 1000})


@pytest.mark.parametrize("role", list(Role))
def test_items_are_not_there(api: Api, keys: dict[Role, str], role: Role) -> None:
    for each in HIDDEN[:8]:
        for method, path, options in (
            ("GET", "", {}),
            ("GET", "/media", {}),
            ("GET", "/thumbnail", {}),
            ("HEAD", "/media", {}),
            ("PATCH", "", {"json": {"payload": {"a": 1}}}),
            ("POST", "/appeal", {}),
            ("DELETE", "", {}),
        ):
            status, _ = same(api, keys[role], method, f"/items/{each}{path}", **options)
            assert status in {403, 404}
    same(api, keys[role], "POST", "/classify", json={"labels": ["red"], "items": [{"item": HIDDEN[0]}]})
    assert same(api, keys[role], "GET", "")[1]["count"] == len(SHOWN)


def test_the_lists_of_collections_and_metrics_count_what_is_shown(api: Api, keys: dict[Role, str]) -> None:
    for role in Role:
        answer = api.ask("GET", "/v1/collections", keys[role]).get_json()
        assert {each["name"]: each["count"] for each in answer["collections"]} == {
            "closed": len(SHOWN),
            "twin": len(SHOWN),
        }
    metrics = api.ask("GET", "/metrics", keys[Role.ADMIN]).get_data(as_text=True)
    assert re.findall(r"crosslens_items\{.*\} ([0-9.]+)", metrics) == [f"{len(SHOWN):.1f}"] * 2


@pytest.mark.parametrize("by", ["bytes", "picture", "alike"])
def test_duplicates_are_among_what_is_shown(api: Api, keys: dict[Role, str], by: str) -> None:
    answers = {}
    for name in ("closed", "twin"):
        while (status := ask(api, keys[Role.READ], "POST", f"/v1/collections/{name}/duplicates", json={"by": by}))[
            0
        ] == 202:
            pass
        answers[name] = status
    assert answers["closed"] == answers["twin"]
    assert MARK not in json.dumps(answers["closed"])


def test_who_may_moderate_sees_all_by_asking_for_it(api: Api, keys: dict[Role, str]) -> None:
    everything = {"limit": 100, "filter": {"must": [{"key": "tags", "match": {"value": MARK}}]}}
    for role in Role:
        status, body = ask(api, keys[role], "POST", "/v1/collections/closed/search?view=moderator", json=everything)
        if role in {Role.MODERATE, Role.ADMIN}:
            assert {result["id"] for result in body["results"]} == set(HIDDEN)
            assert all(
                result["verdict"]["action"] == "block" for result in body["results"] if result["id"] == HIDDEN[0]
            )
            path = f"/v1/collections/closed/items/{HIDDEN[0]}?view=moderator"
            assert ask(api, keys[role], "GET", path)[1]["verdict"]["action"] == "block"
        else:
            assert (status, body["code"]) == (403, "forbidden")
    assert ask(api, keys[Role.READ], "GET", "/v1/collections/closed?view=all")[0] == 400
    assert "verdict" not in same(api, keys[Role.ADMIN], "GET", f"/items/{SHOWN[0]}")[1]
