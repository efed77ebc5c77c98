"""Whatever bytes a server is sent, it answers with no failure of its own, in problem documents, and goes on."""

import base64
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from search_api.openapi.operations import OPERATIONS
from tests.bundles import picture
from tests.search_api.test_filter_checks import any_filter
from tests.search_api.test_openapi_fuzzed import ADMIN_KEY, LONG, fuzzed  # noqa: F401  a fixture

PARTS_AWAY = {503, 507}
"""No failure: a part that the server needs is away, or full."""
KEY = {"X-API-Key": ADMIN_KEY}
_SECONDS = 30


def examples(of_10_000: int) -> Callable[[Any], Any]:
    """How many examples: so many of 10,000 in all in the long run, else a few of the same each time."""
    return hypothesis_settings(
        max_examples=of_10_000 if LONG else max(20, of_10_000 // 50),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Server:
    """A server with a few items, asked by a client and through sockets."""

    address: tuple[str, int]
    client: httpx.Client
    seen: Counter[int] = field(default_factory=Counter)
    """Statuses of answers."""

    def ask(self, method: str, path: str, **parts: Any) -> httpx.Response:
        answer = self.client.request(method, path, **parts)
        self.check(answer.status_code, answer.headers.get("Content-Type", ""), answer.text)
        return answer

    def send(self, sent: bytes) -> list[tuple[int, str]]:
        """The status and the type of each answer to some bytes, on a connection of their own that ends with them."""
        received = b""
        with socket.create_connection(self.address, timeout=_SECONDS) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(2**16):
                    received += piece
            except OSError as error:  # it did not read to the end, and what it said may be lost
                assert not isinstance(error, TimeoutError), "it neither answers nor closes the connection"
        answers = []
        for part in re.split(rb"(?=HTTP/1\.[01] \d{3} )", received)[1:]:
            head = part.partition(b"\r\n\r\n")[0].decode("latin-1")
            kind = re.search(r"^content-type: (.*)$", head, re.MULTILINE | re.IGNORECASE)
            answers.append((int(part[9:12]), kind[1].strip() if kind else ""))
            self.check(*answers[-1], part[:1000].decode("latin-1"))
        return answers

    def check(self, status: int, kind: str, said: str) -> None:
        self.seen[status] += 1
        assert status < 500 or status in PARTS_AWAY, said
        assert status < 400 or kind == "application/problem+json", said

    def check_alive(self) -> None:
        assert self.client.get("/healthz").status_code == 200
        assert self.client.get("/v1/collections/media").json()["count"] >= 3


@pytest.fixture
def server(fuzzed: str) -> Iterator[Server]:  # noqa: F811
    url = urlsplit(fuzzed)
    assert url.hostname is not None and url.port is not None
    with httpx.Client(base_url=fuzzed, headers=KEY, timeout=_SECONDS) as client:
        texts = [
            {"text": text, "id": text, "payload": {"year": 2020, "tags": ["a"]}} for text in ("red", "blue", "sea")
        ]
        assert client.post("/v1/collections/media/items", json={"items": texts}).status_code == 201
        assert client.put("/v1/collections/other").status_code == 201
        labels = {"labels": [{"name": "red"}, {"name": "blue"}]}
        assert client.put("/v1/collections/media/labels/colour", json=labels).status_code == 201
        made = Server((url.hostname, url.port), client)
        yield made
        made.check_alive()


# Bodies

_odd = st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "é" * 300,
        "{}",
        "[" * 50,
        "../..",
        "' OR 1=1",
        "http://0",
        "data:,",
        "9" * 400,
        "1e999",
        "NaN",
    ]
)
_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | _odd
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
_PICTURE = base64.b64encode(picture("red")).decode()
_FURTHER: dict[str, list[Any]] = {
    "POST /v1/collections/<name>/search": [
        {"query": [{"image": _PICTURE, "weight": -1}, {"vector": [1.0, 0.5], "modality": "image"}], "limit": 3},
        {"query": [{"text": "red", "template": "photo"}], "filter": "tags:a", "group_by": "year", "order_by": "-year",
         "collapse": ["alike"], "diversity": 0.5, "min_relevance": 0.1, "explain": True, "exact": True},
        {"like": ["red"], "dislike": ["sea"], "group_size": 2}, {"order_by": "year", "kind": "text"},
    ],
    "POST /v1/collections/<name>/classify": [{"items": [{"image": _PICTURE}, {"item": "red"}], "set": "colour"}],
    "PUT /v1/collections/<name>": [{"fields": {"trip": "keyword", "a[].b": "integer"}, "model": "colours"}],
}  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, step))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    return reduce(lambda inner, step: inner[step], path, value)


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = _changed(copy[path[0]], path[1:], change)
    return copy


def _alike(value: Any) -> st.SearchStrategy[Any]:
    """Another value of the same type, which a model may let through to what works with it."""
    match value:
        case bool():
            return st.booleans()
        case int() | float():
            return st.integers(-2, 5) | st.floats(-2, 2) | st.sampled_from([1e-310, 5e-324, 1e16, 100, 2**31, 2**63])
        case str():
            return st.text(min_size=1, max_size=5) | st.sampled_from(
                ["red", "blue", "year", "-year", "tags", "a.b", "*", "é" * 300]
            )
        case list() if value:
            return st.lists(st.sampled_from(value), max_size=8)
        case _:
            return _json


@st.composite
def mutated(draw: st.DrawFn, valid: list[Any]) -> Any:
    """A valid document with a place or two of it changed."""
    value = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(_places(value))))
        if draw(st.integers(0, 2)):
            other = draw(_alike(_at(value, path)))
            value = _changed(value, path, lambda _, other=other: other)
            continue
        other = draw(_json)
        change = draw(
            st.sampled_from(
                [
                    lambda _, other=other: other,
                    lambda old, other=other: [old, other],
                    lambda old, other=other: {**old, "x": other} if isinstance(old, dict) else {"x": old},
                    lambda old: dict(list(old.items())[1:]) if isinstance(old, dict) else old,
                    lambda old: old * 3 if isinstance(old, str | list) else old,
                    lambda old: -old * 1e300 if isinstance(old, int | float) else old,
                ]
            )
        )
        value = _changed(value, path, change)
    return value


_WRITING = [route for route in OPERATIONS if route.split()[0] in {"POST", "PUT", "PATCH"}]
_names = st.sampled_from(["media"] * 6 + ["other"])


@st.composite
def _paths(draw: st.DrawFn, route: str) -> str:
    """A route's path, its places filled with what is there, or with anything."""
    there = {"name": _names, "item": st.sampled_from(["red", "blue"]), "label_set_name": st.just("colour")}

    def filled_in(found: re.Match[str]) -> str:
        known = there.get(found[1], st.nothing()) if draw(st.integers(0, 9)) else st.nothing()
        return quote(draw(known | st.text(min_size=1, max_size=8)), safe="", errors="surrogatepass")

    filled = re.sub(r"<(?:\w+:)?(\w+)>", filled_in, route.split()[1])
    return filled.replace("%2F", "x") or "/"


@st.composite
def requests_with_bodies(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    route = draw(st.sampled_from(_WRITING))
    path = draw(_paths(route))
    valid = [*OPERATIONS[route].examples.values(), *_FURTHER.get(route, [])] or [{}]
    document = json.dumps(draw(mutated(valid) | mutated(valid) | mutated(valid) | _json)).encode()
    parts: dict[str, Any] = {"content": document, "headers": {"Content-Type": "application/json"}}
    match draw(st.sampled_from(["json"] * 6 + ["cut", "bytes", "form"])):
        case "cut":
            at = draw(st.integers(0, len(document)))
            parts["content"] = document[:at] + draw(st.binary(max_size=3)) + document[at + 1 :]
        case "bytes":
            kind = draw(st.sampled_from(["application/json", "text/plain", "", "multipart/form-data; boundary=x"]))
            parts = {"content": draw(st.binary(max_size=200)), "headers": {"Content-Type": kind}}
        case "form":
            content = draw(st.sampled_from([picture("red"), b""]) | st.binary(max_size=50))
            name = draw(st.sampled_from(["file", "photo", "request"]))
            parts = {"files": [("request", (None, document, "application/json")), (name, ("a.png", content))]}
    return route.split()[0], path, parts


@pytest.mark.timeout(1800 if LONG else 300)
def test_bodies(server: Server) -> None:
    @examples(5_000)
    @given(requests_with_bodies())
    def ask(asked: tuple[str, str, dict[str, Any]]) -> None:
        method, path, parts = asked
        server.ask(method, path, **parts)

    ask()
    assert server.seen[200] and server.seen[201]  # not everything was refused at the door


# Filters and cursors

_short = st.text(alphabet=st.sampled_from('ab:<>=-",. \\\n0é'), max_size=40) | st.lists(
    st.sampled_from(["tags:a", "-kind:text", "year>=2020", "taken<2021-01-01", 'text:"', "a.b:c", "bytes:1e400", "x[]:1"])
    | st.text(max_size=6), max_size=5,
).map(" ".join)  # fmt: skip


@pytest.mark.timeout(1800 if LONG else 300)
def test_filters(server: Server) -> None:
    @examples(2_000)
    @given(any_filter | _short | _json, st.sampled_from(["search", "walk", "facets", "batch"]))
    def ask(filter: Any, where: str) -> None:
        bodies: dict[str, Any] = {
            "search": {"query": [{"text": "red"}], "filter": filter},
            "walk": {"filter": filter, "order_by": "year"},
            "facets": {"fields": ["kind"], "filter": filter},
            "batch": {"searches": [{"query": [{"text": "red"}], "filter": filter}]},
        }
        path = {"walk": "search", "batch": "search/batch"}.get(where, where)
        document = json.dumps(bodies[where]).encode()
        headers = {"Content-Type": "application/json"}
        server.ask("POST", f"/v1/collections/media/{path}", content=document, headers=headers)

    ask()


@pytest.mark.timeout(1800 if LONG else 300)
def test_cursors(server: Server) -> None:
    path = "/v1/collections/media/search"
    bodies: list[dict[str, Any]] = [{"query": [{"text": "red"}]}, {}, {"order_by": "year"}, {"like": ["red"]}]
    valid = [server.ask("POST", path, json={**body, "limit": 1, "group_by": None}).json()["cursor"] for body in bodies]
    assert all(valid)

    @examples(1_000)
    @given(
        st.sampled_from(valid), st.integers(0, 2500), st.integers(0, 12),
        st.text(max_size=12) | st.binary(max_size=40).map(lambda some: base64.urlsafe_b64encode(some).decode()) | _scalars,
        st.sampled_from(["media", "other"]),
    )  # fmt: skip
    def ask(cursor: str, at: int, length: int, put: Any, collection: str) -> None:
        at %= len(cursor)
        changed = cursor[:at] + put + cursor[at + length :] if isinstance(put, str) else put
        answer = server.ask(
            "POST", f"/v1/collections/{collection}/search",
            content=json.dumps({"cursor": changed, "limit": 1}).encode(), headers={"Content-Type": "application/json"},
        )  # fmt: skip
        # Base64 has no two spellings of the same bytes that matter here: only the whole cursor is a cursor.
        assert answer.status_code == 400 or changed is None or (changed in valid and collection == "media")

    ask()


# Headers and framing

_line = (
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
    | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30)
).map(lambda text: text.encode("latin-1"))
_VALUES: dict[bytes, list[bytes]] = {
    b"Authorization": [b"Bearer " + ADMIN_KEY.encode(), b"Bearer", b"Basic Og==", b"Bearer clk_a_b", b"Digest x"],
    b"X-API-Key": [ADMIN_KEY.encode(), b"clk_aaaaaaaaaaaa_bbbb", b"", b"\xff"],
    b"Host": [b"localhost", b"[::1]:8000", b"a@b", b"127.0.0.1:99999", b"x" * 300, b"", b"[", b"a b", b"\xe9"],
    b"Origin": [b"null", b"http://127.0.0.1", b"http://[", b"*"],
    b"X-Forwarded-For": [b"1.2.3.4", b"::1, unknown", b"1" * 500, b",,,", b"127.0.0.1:x"],
    b"X-Forwarded-Proto": [b"https", b"gopher", b"http,https"],
    b"X-Forwarded-Host": [b"evil.example", b"a, b", b"["],
    b"X-Forwarded-Prefix": [b"/x", b"//", b"\x00"],
    b"Forwarded": [b'for="[::1]";proto=https', b"for=", b'for="'],
    b"Content-Type": [b"application/json; charset=utf-99", b"multipart/form-data", b"multipart/form-data; boundary=", b"/"],
    b"Content-Length": [b"0", b"1", b"99999999999999", b"-1", b"+1", b"0x1", b"1_0", b"9" * 5000, b"1, 1", b""],
    b"Transfer-Encoding": [b"chunked", b"identity", b"gzip, chunked", b"chunked, chunked", b"\x0bchunked", b"xchunked"],
    b"Range": [b"bytes=0-", b"bytes=-0", b"bytes=5-1", b"bytes=0-0,1-1", b"bytes=" + b"9" * 5000, b"x", b"bytes=-"],
    b"If-None-Match": [b"*", b'"', b'W/"a", "b"', b'"' + b"a" * 3000],
    b"If-Modified-Since": [b"Thu, 01 Jan 1970 00:00:00 GMT", b"x", b"Thu, 99 Jan 99999 00:00:00 GMT"],
    b"traceparent": [b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"ff-0-0-0", b"00-" + b"0" * 32],
    b"tracestate": [b"a=b," * 100, b"="],
    b"Cookie": [b"a=b; c", b"=;=", b"a=" + b"\xff" * 50],
    b"Accept": [b"*/*;q=x", b"text/html", b""],
    b"Accept-Encoding": [b"gzip;q=2", b"br"],
    b"Expect": [b"100-continue", b"200-ok"],
    b"Connection": [b"close", b"Upgrade", b"keep-alive, x"],
    b"Upgrade": [b"websocket", b"h2c"],
}  # fmt: skip
_FRAMING = {b"Content-Length", b"Transfer-Encoding"}
_plain = st.sampled_from(sorted(set(_VALUES) - _FRAMING)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(_VALUES[name]) | _line)
)
_framing = st.sampled_from(sorted(_FRAMING)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(_VALUES[name]))
)
_header = st.one_of(_plain, _plain, _plain, _plain, _plain, _framing, st.tuples(_line, _line))
_READING = [route for route in OPERATIONS if route.startswith("GET ")]


@st.composite
def requests_with_headers(draw: st.DrawFn) -> bytes:
    method, _ = route = draw(st.sampled_from(_READING * 4 + _WRITING)).split()
    path = draw(_paths(" ".join(route)))
    query = draw(st.just("") | st.text(max_size=9).map(lambda text: "?limit=" + quote(text, errors="surrogatepass")))
    given = draw(st.lists(_header, max_size=6))
    always = {b"X-API-Key": ADMIN_KEY.encode(), b"Host": b"127.0.0.1"}
    given = [(name, value) for name, value in always.items() if name not in dict(given)] + given
    head = f"{method} {path}{query} HTTP/1.1\r\n".encode("latin-1")
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in given)
    return head + lines + b"\r\n" + draw(st.sampled_from([b"", b"{}", b"5\r\nhello\r\n0\r\n\r\n"]))


@pytest.mark.timeout(1800 if LONG else 300)
def test_headers(server: Server) -> None:
    @examples(1_000)
    @given(requests_with_headers())
    def ask(sent: bytes) -> None:
        server.send(sent)

    ask()
    assert server.seen[200]


_HOST = b"Host: 127.0.0.1\r\n"
_INNER = b"GET /v1/keys HTTP/1.1\r\n" + _HOST + b"X-API-Key: " + ADMIN_KEY.encode() + b"\r\n\r\n"
_STARTS = [
    b"GET /healthz HTTP/1.1\r\n", b"POST /v1/collections/media/search HTTP/1.1\r\n", b"GET /healthz HTTP/1.0\r\n",
    b"GET /healthz HTTP/9.9\r\n", b"GET /healthz\r\n", b"OPTIONS * HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n",
    b"GET http://a.test/healthz HTTP/1.1\r\n", b"GET http://[::1/ HTTP/1.1\r\n", b"G\0T / HTTP/1.1\r\n", b"get / http/1.1\r\n",
    b"GET /%ff%00%2e%2e/ HTTP/1.1\r\n", b"GET /\xff\xfe HTTP/1.1\r\n", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET  /  HTTP/1.1\r\n", b"GET /?\x00 HTTP/1.1\r\n",
]  # fmt: skip
_LINES = [
    _HOST, b"Content-Length: 5\r\n", b"Content-Length: 6\r\n", b"Content-Length: 0\r\n", b"content-length: 500\r\n",
    b"Content-Length : 5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: \xb2\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: \x85chunked\r\n", b" folded: yes\r\n", b"X: a\n", b"X: a\r", b"\x00: b\r\n", b"Transfer-Encoding\r\n : chunked\r\n",
    b"no colon\r\n", b": empty\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Content-Type: application/json\r\n",
    b"X-API-Key: " + ADMIN_KEY.encode() + b"\r\n", b"X: " + b"a" * 300_000 + b"\r\n", b"X: 1\r\n" * 5_000, b"Content_Length: 5\r\n",
]  # fmt: skip
_ENDS = [
    b"", b"\r\n", b"\n\n", b"\r\n{}", b"\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n0\r\n\r\n" + _INNER, b"\r\nhello" + _INNER,
    b"\r\n5;x=y\r\nhello\r\n0\r\nTrailer: a\r\n\r\n", b"\r\nffffffffffffffffffff\r\nhello", b"\r\n-1\r\nx\r\n0\r\n\r\n",
    b"\r\n0x5\r\nhello\r\n0\r\n\r\n", b"\r\n5\nhello\n0\n\n", b"\r\n5\r\nhelloXX0\r\n\r\n", b"\r\n" + b"5" * 2000, b"\r\n" + _INNER * 3,
]  # fmt: skip


@pytest.mark.timeout(1800 if LONG else 300)
def test_bytes_that_are_hardly_requests(server: Server) -> None:
    @examples(1_000)
    @given(
        st.sampled_from(_STARTS), st.lists(st.sampled_from(_LINES) | _line, max_size=5), st.sampled_from(_ENDS),
        st.integers(0, 400), st.binary(max_size=3),
    )  # fmt: skip
    def ask(start: bytes, lines: list[bytes], end: bytes, at: int, put: bytes) -> None:
        whole = start + b"".join(lines) + end
        sent = whole[:at] + put + whole[at + len(put) :] if put else whole
        server.send(sent)
        server.check_alive()

    ask()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"POST /healthz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: gzip\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 5, 5\r\n",
    ],
)
def test_a_request_with_two_ends_has_one_answer(server: Server, head: bytes) -> None:
    for body in (b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"):
        assert server.send(head + _HOST + b"\r\n" + body + _INNER) == [(400, "application/problem+json")]


def test_what_is_too_large_to_read_is_said_so(server: Server) -> None:
    assert server.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 2**19) in ([], [(431, "application/problem+json")])
    length = b"POST /healthz HTTP/1.1\r\n" + _HOST + b"Content-Length: 99999999999999\r\n\r\n"
    assert server.send(length) == [(413, "application/problem+json")]


def test_chunked_bodies_and_pipelines_are_read_as_ever(server: Server) -> None:
    head = b"POST /v1/collections/media/search HTTP/1.1\r\n" + _HOST + b"X-API-Key: " + ADMIN_KEY.encode() + b"\r\n"
    head += b"Content-Type: application/json\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert server.send(chunked + _INNER) == [(200, "application/json")] * 2
    assert server.send(head + b"Content-Length: 2\r\n\r\n{}" + _INNER) == [(200, "application/json")] * 2
