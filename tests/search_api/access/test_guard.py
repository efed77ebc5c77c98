"""The guard before a real app: who gets what, by every route and role; scopes, limits, headers, and the audit log."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Blueprint
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import KeysUnavailable
from indexer.settings import Settings
from search_api import health
from search_api.access.guard import presented
from search_api.access.keys import Allowance, Role
from search_api.access.needs import NEEDS, Scope, UndeclaredRoute, check_routes, routes
from search_api.app import create_app
from search_api.services import Services
from tests.bundles import picture
from tests.search_api.access.conftest import Api

ITEMS = "/v1/collections/media/items"
SEARCH = "/v1/collections/media/search"
DECLARED_AHEAD = {"GET /openapi.json", "GET /docs", "POST /v1/collections/<name>/facets"}


def filled(route: str, **names: str) -> tuple[str, str]:
    """The method and a path of a route; what it names is not there unless said."""
    method, path = route.split(" ", 1)
    for name, value in {"name": "media", **names}.items():
        path = path.replace(f"<{name}>", value)
    path = re.sub(r"<[^>]*>", "none", path)
    return method, path


def refused(api: Api, route: str, key: str | None, **names: str) -> int | None:
    """401, 403 or 429 if that was the answer."""
    method, path = filled(route, **names)
    status = api.ask(method, path, key, json={} if method in {"POST", "PUT", "PATCH"} else None).status_code
    return status if status in {401, 403, 429} else None


# Routes and roles


@pytest.fixture
def bare(alone: Settings) -> Settings:
    """Without an index: what gets past the guard fails, which is told apart from being refused."""
    return alone.model_copy(update={"qdrant_url": "http://127.0.0.1:1"})


@pytest.fixture
def matrix(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    services = Services(bare)
    for name in ("collection", "engine", "ready_collection", "create", "delete"):
        monkeypatch.setattr(services, name, lambda *_, **__: passed())
    monkeypatch.setattr(Services, "store", property(lambda _: passed()))
    monkeypatch.setattr(Services, "queue", property(lambda _: passed()))
    monkeypatch.setattr(services, "check_index", lambda: None)
    monkeypatch.setattr(services.encoders, "check", lambda: None)
    # Every route is asked several times by one key.
    yield Api(bare.model_copy(update={"key_burst": 1000}), services)


def passed() -> Any:
    raise KeysUnavailable("it got past the guard")


def test_the_table_has_every_route_and_no_other(alone: Settings) -> None:
    app = create_app(alone)
    assert NEEDS.keys() - set(routes(app)) <= DECLARED_AHEAD
    app.register_blueprint(Blueprint("new", __name__))
    app.add_url_rule("/new", view_func=lambda: "")
    with pytest.raises(UndeclaredRoute, match="GET /new"):
        check_routes(app)


def test_a_route_that_nobody_declared_keeps_the_app_from_starting(
    alone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = Blueprint("added", __name__)
    added.add_url_rule("/v1/secrets", view_func=lambda: "")
    monkeypatch.setattr(health, "blueprint", added)
    with pytest.raises(UndeclaredRoute, match="GET /v1/secrets"):
        create_app(alone)


def test_a_scope_needs_its_place_in_the_path(alone: Settings) -> None:
    app = create_app(alone)
    wrong = {**NEEDS, "GET /healthz": NEEDS["GET /v1/collections/<name>"]}
    with pytest.raises(UndeclaredRoute, match="<name>"):
        check_routes(app, wrong)


@pytest.mark.parametrize("role", [None, *Role])
def test_every_route_by_every_role(matrix: Api, role: Role | None) -> None:
    matrix.key(Role.READ)
    key = matrix.key(role) if role else None
    from_here = {"GET /metrics"}
    for route in routes(matrix.client.application):
        need = NEEDS[route]
        may = need.without_key == "anybody" or (route in from_here if role is None else need.role in role.includes)
        expected = None if may else 401 if role is None else 403
        assert refused(matrix, route, key) == expected, route
        if route.startswith("GET "):
            assert refused(matrix, route.replace("GET", "HEAD"), key) == expected, route


@pytest.mark.parametrize("role", list(Role))
def test_every_route_by_a_key_for_other_collections(matrix: Api, role: Role) -> None:
    key = matrix.key(role, collections=("mine", "acme-*"))
    for route in routes(matrix.client.application):
        need = NEEDS[route]
        if need.without_key == "anybody":
            continue
        may = need.role in role.includes and need.scope in {Scope.LISTED, Scope.JOB, Scope.NOTHING}
        assert refused(matrix, route, key) == (None if may else 403), route
        if need.scope is Scope.COLLECTION and "ingest" not in route:
            may = need.role in role.includes
            assert refused(matrix, route, key, name="mine") == (None if may else 403), route
            assert refused(matrix, route, key, name="acme-1") == (None if may else 403), route


def test_without_any_key_this_machine_may_do_everything(matrix: Api) -> None:
    for route in routes(matrix.client.application):
        assert refused(matrix, route, None) is None, route


def test_on_another_address_keys_are_demanded_though_there_is_none(alone: Settings) -> None:
    with_none = Api(alone, Services(alone), public=True)
    assert with_none.ask("GET", "/v1/collections").status_code == 401
    assert with_none.ask("GET", "/healthz").status_code == 200
    proxied = alone.model_copy(update={"trusted_proxies": "10.0.0.0/8"})
    assert Api(proxied, Services(proxied)).ask("GET", "/v1/collections").status_code == 401


def test_a_brought_key_may_do_everything(alone: Settings) -> None:
    settings = Settings(data=alone.data, workers=0, model=alone.model, admin_key="s3cret" * 8)  # type: ignore[arg-type]
    api = Api(settings, Services(settings))
    assert api.ask("GET", "/v1/keys").status_code == 401
    assert api.ask("GET", "/v1/keys", "s3cret" * 8).get_json() == {"keys": []}
    assert api.ask("DELETE", "/v1/keys/environment", "s3cret" * 8).status_code == 404


def test_a_key_may_ask_what_it_is_for(matrix: Api) -> None:
    assert matrix.ask("GET", "/v1/key").get_json()["roles"] == ["admin"]  # this machine, while there is no key
    for role in Role:
        key = matrix.key(role, collections=("mine", "acme-*"))
        own = matrix.ask("GET", "/v1/key", key).get_json()
        assert (own["roles"], own["collections"], own["state"]) == ([role.value], ["mine", "acme-*"], "active")
        assert key.split("_", 2)[2] not in json.dumps(own)
    assert matrix.ask("GET", "/v1/key").status_code == 401


# How keys are sent


def test_a_key_is_sent_in_either_header(api: Api) -> None:
    key = api.key(Role.ADMIN)
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer  {key} "},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": f"Bearer {key}"},
        {"X-API-Key": key, "Authorization": "Basic eDp5"},
    ):
        assert api.ask("GET", "/v1/keys", headers=headers).status_code == 200, headers
    other = api.key(Role.ADMIN)
    for headers in (
        {},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer"},
        {"Authorization": key},
        {"X-API-Key": ""},
        {"X-API-Key": key, "Authorization": f"Bearer {other}"},
        {"X-API-Key": key + "x"},
        {"X-API-Key": key[4:]},
    ):
        answer = api.ask("GET", "/v1/keys", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="crosslens"')
        assert answer.get_json(force=True)["remedy"]
        assert key not in answer.text


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "Authorization",
                "X-API-Key",
                "Host",
                "Origin",
                "X-Forwarded-For",
                "Forwarded",
                "Sec-Fetch-Site",
                "Content-Length",
                "Access-Control-Request-Method",
            ]
        ),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)
        | st.sampled_from(
            ["Bearer clk_0123456789ab_" + "A" * 43, "clk_0123456789ab_" + "A" * 43, "Bearer " + "\xff" * 20]
        ),
    ),
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PUT"]),
    st.sampled_from(["/v1/keys", "/v1/collections", "/readyz", "/metrics", "/nowhere", "/v1/audit"]),
)
def test_no_header_makes_it_fail(matrix: Api, headers: dict[str, str], method: str, path: str) -> None:
    if not matrix.guard.book.demanded():
        matrix.key(Role.READ)
    assert matrix.client.open(path, method=method, headers=headers).status_code in {
        200,
        400,
        401,
        403,
        404,
        405,
        413,
        429,
    }


@given(st.text(max_size=60) | st.none(), st.text(max_size=60) | st.none())
def test_any_headers_hold_a_key_or_none(authorization: str | None, x_api_key: str | None) -> None:
    found = presented(authorization, x_api_key)
    assert found is None or found == "" or found in f"{authorization} {x_api_key}"


# Keys over HTTP


def test_keys_are_made_seen_and_revoked(api: Api) -> None:
    body = {"name": "first", "roles": ["admin"], "expires": "90d", "limits": {"rate": 5}}
    made = api.ask("POST", "/v1/keys", json=body)  # from this machine, before there is any
    assert made.status_code == 201
    first = made.get_json()["key"]
    assert made.headers["Cache-Control"] == "no-store"
    assert api.ask("GET", "/v1/keys").status_code == 401
    second = api.ask("POST", "/v1/keys", first, json={"name": "second", "roles": ["read"], "collections": ["a*"]})
    assert second.headers["Location"] == f"/v1/keys/{second.get_json()['id']}"
    listed = api.ask("GET", "/v1/keys", first).get_json()["keys"]
    assert [(each["name"], each["roles"], each["collections"], each["state"]) for each in listed] == [
        ("first", ["admin"], [], "active"), ("second", ["read"], ["a*"], "active"),
    ]  # fmt: skip
    assert listed[0]["expires"].startswith("2027-05-01T12:00:00")
    assert listed[0]["used"] is not None
    assert listed[0]["limits"] == {"rate": 5.0}
    text = json.dumps(listed)
    assert "digest" not in text
    assert first.split("_", 2)[2] not in text
    assert api.ask("GET", "/v1/collections", second.get_json()["key"]).status_code == 200
    assert api.ask("DELETE", second.headers["Location"], first).status_code == 204
    assert api.ask("GET", "/v1/collections", second.get_json()["key"]).status_code == 401
    assert api.ask("DELETE", "/v1/keys/none", first).status_code == 404
    api.clock.move(days=90)
    late = api.ask("GET", "/v1/keys", first)
    assert (late.status_code, late.get_json(force=True)["code"]) == (401, "key_invalid")
    assert "expired" in late.get_json(force=True)["detail"]
    for wrong in (
        {},
        {"name": "x"},
        {"name": "x", "roles": []},
        {"name": "x", "roles": ["king"]},
        {"name": "x", "roles": ["read"], "collections": ["../*"]},
        {"name": "x", "roles": ["read"], "expires": "1999-01-01T00:00:00Z"},
        {"name": "x", "roles": ["read"], "limits": {"rate": 0}},
        {"name": "x", "roles": ["read"], "digest": "0"},
    ):
        fresh = api.key()
        assert api.ask("POST", "/v1/keys", fresh, json=wrong).status_code == 400, wrong


def test_a_server_whose_last_key_was_revoked_goes_on_demanding_one(api: Api) -> None:
    key = api.key(Role.ADMIN)
    (listed,) = api.ask("GET", "/v1/keys", key).get_json()["keys"]
    assert api.ask("DELETE", f"/v1/keys/{listed['id']}", key).status_code == 204
    assert api.ask("GET", "/v1/collections").status_code == 401
    assert api.ask("GET", "/v1/collections", key).status_code == 401


# Scopes, over a real index


def test_a_key_sees_its_own_collections_and_tells_others_from_missing_ones_in_nothing(api: Api) -> None:
    admin = api.key()
    for name in ("mine", "theirs"):
        assert api.ask("PUT", f"/v1/collections/{name}", admin).status_code == 201
    key = api.key(Role.WRITE, collections=("mine", "new-*"))
    listed = api.ask("GET", "/v1/collections", key)
    assert [each["name"] for each in listed.get_json()["collections"]] == ["mine"]
    assert int(listed.headers["Content-Length"]) == len(listed.data)
    for method, path in (("GET", ""), ("POST", "/search"), ("GET", "/items/x"), ("PUT", ""), ("POST", "/items")):
        there, gone = (
            api.ask(method, f"/v1/collections/{name}{path}", key, json=None if method == "GET" else {})
            for name in ("theirs", "gone")
        )
        assert there.status_code == gone.status_code == 403
        told = [{k: v for k, v in each.get_json(force=True).items() if k != "instance"} for each in (there, gone)]
        assert told[0] == told[1]
    assert api.ask("GET", "/v1/collections/bad%20name", key).status_code == 403
    assert api.ask("DELETE", "/v1/collections/mine", key).status_code == 403
    upload = {"file": (io.BytesIO(picture("red")), "red.png")}
    assert api.ask("POST", "/v1/collections/mine/items", key, data=upload).status_code == 201


def test_jobs_of_other_collections_are_not_found(queued: Api) -> None:
    jobs = queued.services.queue.jobs
    mine, theirs = (jobs.create(name, "colours", ["/x"]) for name in ("mine", "theirs"))
    admin, key = queued.key(), queued.key(Role.WRITE, collections=("mine",))
    assert len(queued.ask("GET", "/v1/jobs", admin).get_json()["jobs"]) == 2
    assert [each["job"] for each in queued.ask("GET", "/v1/jobs", key).get_json()["jobs"]] == [mine.id]
    assert queued.ask("GET", f"/v1/jobs/{mine.id}", key).status_code == 200
    for method, path in (
        ("GET", ""),
        ("GET", "/failures"),
        ("GET", "/events"),
        ("POST", "/retry"),
        ("POST", "/cancel"),
    ):
        there, gone = (queued.ask(method, f"/v1/jobs/{job}{path}", key) for job in (theirs.id, "gone"))
        assert there.status_code == gone.status_code == 404
        told = [each.get_json(force=True) for each in (there, gone)]
        assert {each["code"] for each in told} == {"job_not_found"}
        assert told[0]["detail"].replace(theirs.id, "gone") == told[1]["detail"]
    assert jobs.get(theirs.id).state == "queued"


def test_a_key_for_some_collections_reads_no_files_of_the_server(queued: Api) -> None:
    key = queued.key(Role.WRITE, collections=("mine",))
    path = "/v1/collections/mine/ingest"
    for source in (
        "/etc",
        "data/uploads",
        "file:///etc",
        "s3://bucket/x",
        "upload:" + "0" * 64,
        ["https://a.example/x.jpg", "/etc"],
        "ftp://x",
    ):
        answer = queued.ask("POST", path, key, json={"source": source})
        assert answer.status_code == 403, source
    assert (
        queued.ask("POST", path, key, json={"source": ["https://a.example/x.jpg", "HTTP://a.example/"]}).status_code
        == 202
    )
    for wrong in ({}, {"source": []}, [], {"source": "/etc", "source2": 1}):
        assert queued.ask("POST", path, key, json=wrong).status_code == 400
    everything = queued.key(Role.WRITE)
    assert queued.ask("POST", path, everything, json={"source": "/no/such/folder"}).status_code == 202


# Limits


def test_too_many_requests_are_told_when_to_come_back(api: Api) -> None:
    key = api.key(Role.READ, allowance=Allowance(rate=0.01, burst=3))
    answers = [api.ask("GET", "/v1/collections", key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"rate";q=3;w=300'
    assert answers[0].headers["RateLimit"] == '"rate";r=2;t=100'
    assert 90 <= int(answers[3].headers["Retry-After"]) <= 100
    assert answers[3].get_json(force=True)["code"] == "rate_limited"
    assert api.ask("GET", "/v1/collections", api.key(Role.READ)).status_code == 200


def test_a_days_requests_are_exact_under_eight_threads(queued: Api) -> None:
    key = queued.key(Role.READ, allowance=Allowance(requests_per_day=50, burst=10_000))
    app = queued.client.application

    def ask(_: int) -> int:
        return int(app.test_client().get("/v1/jobs", headers={"X-API-Key": key}).status_code)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(ask, range(120)))
    assert (done.count(200), done.count(429)) == (50, 70)


def test_uploads_count_in_bytes_and_items_and_what_is_refused_does_not(api: Api) -> None:
    key = api.key(Role.WRITE, allowance=Allowance(items_per_day=4, bytes_per_day=5000))

    def texts(count: int) -> int:
        items = [{"text": f"text {number} of {count}"} for number in range(count)]
        return int(api.ask("POST", ITEMS, key, json={"items": items}).status_code)

    assert texts(5) == 429
    assert texts(2) == 201
    form = {
        "file": (io.BytesIO(picture("red")), "red.png"),
        "request": (io.BytesIO(b'{"items": [{"file": "red.png", "id": "red"}]}'), "request"),
    }
    answer = api.ask("POST", ITEMS, key, data=form)
    assert (answer.status_code, answer.get_json()["items"][0]["id"]) == (201, "red")
    assert '"items";r=1' in answer.headers["RateLimit"]
    assert 'qu="content-bytes"' in answer.headers["RateLimit-Policy"]
    assert texts(2) == 429
    assert texts(1) == 201
    big = api.key(Role.WRITE, allowance=Allowance(bytes_per_day=1000))
    assert api.ask("POST", ITEMS, big, data={"file": (io.BytesIO(bytes(1000)), "x.png")}).status_code == 429
    assert api.ask("POST", ITEMS, big, json={"items": [{"text": "small"}]}).status_code == 201
    assert api.ask("POST", ITEMS, big, json={"items": 1}).status_code == 400
    assert api.ask("POST", ITEMS, key, data="{", content_type="application/json").status_code == 400


def test_strangers_are_limited_by_address(alone: Settings) -> None:
    settings = alone.model_copy(update={"address_rate": 0.01, "address_burst": 5, "trusted_proxies": "127.0.0.1"})
    api = Api(settings, Services(settings))
    key = api.key(Role.READ)

    def ask(address: str, path: str = "/v1/collections", key: str | None = None) -> Any:
        return api.ask("GET", path, key, headers={"X-Forwarded-For": f"6.6.6.6, {address}"})

    assert [ask("203.0.113.1").status_code for _ in range(7)] == [401] * 5 + [429] * 2
    assert int(ask("203.0.113.1", "/healthz").headers["Retry-After"]) > 0
    assert ask("203.0.113.1", "/nowhere").status_code == 429
    assert ask("203.0.113.2").status_code == 401
    assert ask("203.0.113.1", key=key).status_code == 200
    assert {each["address"] for each in api.audited()} == {"203.0.113.1", "203.0.113.2"}


def test_guessing_ends_after_some_wrong_keys(alone: Settings) -> None:
    settings = alone.model_copy(update={"address_failures": 4})
    api = Api(settings, Services(settings))
    known, new = api.key(Role.READ), api.key(Role.READ)
    assert api.ask("GET", "/v1/collections", known).status_code == 200
    wrong = known[:-5] + "AAAAA"
    answers = [api.ask("GET", "/v1/collections", wrong) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 4 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert api.ask("GET", "/readyz", wrong).status_code == 429
    # A right key gains nothing there now, unless it is known from there: one caller locks out no other.
    assert api.ask("GET", "/v1/collections", new).status_code == 429
    assert api.ask("GET", "/v1/collections", known).status_code == 200
    elsewhere = {"REMOTE_ADDR": "203.0.113.1"}
    assert api.ask("GET", "/v1/collections", new, environ_overrides=elsewhere).status_code == 200


def test_keys_fail_closed_and_limits_open_when_the_queue_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    api = Api(away, Services(away))
    answer = api.ask("GET", "/v1/collections")
    assert (answer.status_code, answer.get_json(force=True)["code"]) == (503, "keys_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert api.ask("GET", "/healthz").status_code == 200
    assert api.ask("GET", "/readyz").get_json(force=True)["code"] == "keys_unavailable"
    brought = Settings(data=away.data, redis_url="redis://127.0.0.1:1/0", admin_key="s3cret" * 8)  # type: ignore[arg-type]
    api = Api(brought, Services(brought))
    assert api.ask("GET", "/v1/audit", "s3cret" * 8).status_code == 200


# What needs no key


def test_details_of_health_are_for_this_machine_and_for_keys(alone: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(alone)
    monkeypatch.setattr(services, "check_index", lambda: None)
    monkeypatch.setattr(services.encoders, "check", lambda: None)
    api = Api(alone, services)
    key = api.key(Role.READ, collections=("x",))
    far = {"environ_overrides": {"REMOTE_ADDR": "203.0.113.1"}}
    assert "parts" in api.ask("GET", "/readyz").get_json()
    assert api.ask("GET", "/readyz", **far).get_json() == {"status": "ready"}
    assert "parts" in api.ask("GET", "/readyz", key, **far).get_json()
    assert api.ask("GET", "/readyz", headers={"Host": "evil.example"}).get_json() == {"status": "ready"}
    assert api.ask("GET", "/healthz", **far).get_json() == {"status": "ok"}
    monkeypatch.setattr(services, "check_index", passed)
    down = api.ask("GET", "/readyz", **far)
    assert down.status_code == 503
    assert "parts" not in down.get_json(force=True)
    assert "guard" not in down.text
    assert "guard" in api.ask("GET", "/readyz").text


@pytest.mark.parametrize(("access", "here", "far"), [("nobody", 401, 401), ("local", 200, 401), ("anybody", 200, 200)])
def test_metrics_are_for_whom_the_setting_says(alone: Settings, access: str, here: int, far: int) -> None:
    settings = alone.model_copy(update={"metrics_access": access})
    api = Api(settings, Services(settings))
    key, narrow = api.key(Role.READ), api.key(Role.READ, collections=("x",))
    there = {"environ_overrides": {"REMOTE_ADDR": "203.0.113.1"}}
    assert api.ask("GET", "/metrics").status_code == here
    assert api.ask("GET", "/metrics", **there).status_code == far
    assert api.ask("GET", "/metrics", key, **there).status_code == 200
    assert api.ask("GET", "/metrics", narrow, **there).status_code == 403  # it tells of all collections' use
    assert api.ask("GET", "/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == far


# Browsers


def test_without_keys_other_sites_and_proxies_are_refused(api: Api) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 x"},
    ):
        assert api.ask("GET", "/healthz", headers=headers).status_code == 403
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert api.ask("PUT", "/v1/collections/x", headers=headers).status_code == 403
        assert api.ask("POST", "/v1/keys", headers=headers, json={"name": "x", "roles": ["admin"]}).status_code == 403
    assert api.ask("GET", "/healthz", environ_overrides={"REMOTE_ADDR": "203.0.113.1"}).status_code == 403


def test_with_keys_any_name_and_page_will_do(api: Api) -> None:
    key = api.key(Role.READ)
    headers = {"Host": "photos.example", "Origin": "https://photos.example", "X-Forwarded-For": "203.0.113.1"}
    assert api.ask("GET", "/v1/collections", key, headers=headers).status_code == 200


def test_no_other_origin_may_ask_unless_it_is_said(api: Api) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert not [
        name
        for name, _ in api.ask("OPTIONS", SEARCH, headers=asked).headers.items()
        if name.startswith("Access-Control-Allow")
    ]


def test_origins_that_may_ask_are_told_before_any_key(alone: Settings) -> None:
    settings = alone.model_copy(update={"cors_origins": "https://a.example,http://localhost:3000"})
    api = Api(settings, Services(settings))
    key = api.key(Role.READ)
    preflight = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = api.ask("OPTIONS", SEARCH, headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for status, sent in ((200, key), (401, None)):
        answer = api.ask("GET", "/v1/collections", sent, headers={"Origin": "https://a.example"})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, "https://a.example")
        assert "Origin" in answer.headers["Vary"]
    for origin in ("https://b.example", "https://a.example.evil.example", "https://aXexample", "null"):
        answer = api.ask("OPTIONS", SEARCH, headers=preflight | {"Origin": origin})
        assert "Access-Control-Allow-Origin" not in answer.headers, origin
    anybody = alone.model_copy(update={"cors_origins": "*"})
    answer = Api(anybody, Services(anybody)).ask("GET", "/v1/collections", key, headers={"Origin": "https://b.example"})
    assert answer.headers["Access-Control-Allow-Origin"] in {"*", "https://b.example"}
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_an_origin_that_may_ask_may_write_where_no_key_is_demanded(alone: Settings) -> None:
    settings = alone.model_copy(update={"cors_origins": "http://localhost:3000"})
    api = Api(settings, Services(settings))
    page = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}
    body = {"name": "x", "roles": ["read"]}
    assert api.ask("POST", "/v1/keys", headers=page | {"Origin": "http://localhost:4000"}, json=body).status_code == 403
    assert api.ask("POST", "/v1/keys", headers=page, json=body).status_code == 201


def test_every_answer_has_the_security_headers(api: Api) -> None:
    key = api.key(Role.READ)
    for path, sent in (
        ("/healthz", None),
        ("/v1/collections", key),
        ("/v1/collections", None),
        ("/nowhere", None),
        ("/v1/keys", key),
    ):
        headers = api.ask("GET", path, sent).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Permissions-Policy"]
        assert headers["X-Request-Id"]
        assert "Strict-Transport-Security" not in headers
    behind = api.settings.model_copy(update={"behind_tls": True})
    assert "max-age" in Api(behind, api.services).ask("GET", "/healthz").headers["Strict-Transport-Security"]


# The audit log


def test_changes_and_refusals_are_written_down_and_nothing_secret(api: Api) -> None:
    admin, reader = api.key(), api.key(Role.READ)
    api.ask("PUT", "/v1/collections/media", admin)
    api.ask("POST", ITEMS, admin, json={"items": [{"text": "my private text"}]})
    api.ask("POST", SEARCH, reader, json={"query": [{"text": "my private query"}]})
    api.ask("GET", "/v1/collections", reader)
    denied = api.ask("POST", ITEMS, reader, json={"items": [{"text": "my private text"}]})
    api.ask("GET", "/v1/collections")
    api.ask("GET", f"/v1/collections/{reader}", reader[:-5] + "AAAAA")
    entries = api.audited()
    ids = [key.split("_")[1] for key in (admin, reader)]
    assert [(each["method"], each["status"], each["key"], each["collection"]) for each in entries[::-1]] == [
        ("PUT", 201, ids[0], "media"),
        ("POST", 201, ids[0], "media"),
        ("POST", 403, ids[1], "media"),
        ("GET", 401, None, None),
        ("GET", 401, ids[1], f"clk_{ids[1]}_..."),
    ]
    assert entries[2]["request"] == denied.headers["X-Request-Id"]
    assert (entries[2]["name"], entries[0]["name"]) == ("test", None)
    written = "".join(path.read_text() for path in (api.settings.data / "audit").iterdir())
    assert "private" not in written
    for key in (admin, reader):
        assert key.split("_", 2)[2] not in written


def test_admins_read_the_log(api: Api) -> None:
    admin = api.key()
    for number in range(5):
        api.ask("DELETE", f"/v1/keys/{number}", admin)
        api.clock.move(hours=1)
    page = api.ask("GET", "/v1/audit?limit=2", admin).get_json()
    assert [each["path"] for each in page["entries"]] == ["/v1/keys/4", "/v1/keys/3"]
    page = api.ask("GET", f"/v1/audit?limit=100&to={page['next']}", admin).get_json()
    assert [each["path"] for each in page["entries"]] == ["/v1/keys/2", "/v1/keys/1", "/v1/keys/0"]
    assert page["next"] is None
    since = api.ask("GET", "/v1/audit?from=2027-01-31T15:30:00%2B00:00", admin).get_json()["entries"]
    assert [each["path"] for each in since] == ["/v1/keys/4"]
    span = api.ask("GET", "/v1/audit?from=90m", admin).get_json()["entries"]
    assert [each["path"] for each in span] == ["/v1/keys/4"]
    assert api.ask("GET", "/v1/audit?key=none", admin).get_json()["entries"] == []
    for wrong in ("limit=0", "limit=1001", "limit=x", "from=yesterday", "to=2027-01-31"):
        assert api.ask("GET", f"/v1/audit?{wrong}", admin).status_code == 400


def test_a_flood_of_strangers_is_counted_not_written(alone: Settings) -> None:
    settings = alone.model_copy(update={"address_failures": 3})
    api = Api(settings, Services(settings))
    api.key()
    for _ in range(100):
        api.ask("GET", "/v1/collections")
    lines = api.audited()
    assert 3 <= len(lines) < 50
