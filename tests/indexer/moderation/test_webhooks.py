"""Webhooks arrive, signed, at a real server; whatever fails is tried again, and no restart loses one."""

import base64
import hashlib
import hmac
import json
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from indexer.errors import CrosslensError, FetchFailed, FetchTimeout, UrlRefused, UsageError
from indexer.moderation.outbox import Outbox
from indexer.moderation.posting import Answer, Poster
from indexer.moderation.webhooks import LEASE_SECONDS, PAUSES, Endpoint, Webhooks, signed

KEY, NEXT_KEY = bytes(range(32)), bytes(range(40, 64))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NEXT_SECRET = "whsec_" + base64.b64encode(NEXT_KEY).decode()
VERDICT: dict[str, Any] = {
    "action": "block",
    "categories": {
        "cats": {"score": 3.0, "probability": 0.95, "fired": True},
        "soup": {"score": -3.0, "probability": 0.05, "fired": False},
    },
    "policy": "menagerie",
    "version": "0" * 16,
    "by": "policy",
    "at": "2026-03-01T12:00:00.000000Z",
}


@dataclass
class Server:
    """A receiver, which answers what it is told to."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[Mapping[str, str], bytes, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=hush"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = state.answers.pop(0) if state.answers else 204
            state.got.append(({k.lower(): v for k, v in self.headers.items()}, body, self.path))
            self.send_response(status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def poster() -> Iterator[Poster]:
    poster = Poster(allow=["127.0.0.1"], deadline=5)
    yield poster
    poster.close()


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def webhooks(data: Path, server: Server, poster: Poster, clock: Clock | None = None, **options: Any) -> Webhooks:
    endpoint = Endpoint("desk", server.url, SecretStr(options.pop("secret", SECRET)), **options)
    return Webhooks(data, [endpoint], poster=poster, clock=clock or Clock(), jitter=lambda: 0.5)


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    # The example of the specification's reference libraries.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_names_the_verdict_and_not_the_content(tmp_path: Path, server: Server, poster: Poster) -> None:
    hooks = webhooks(tmp_path, server, poster)
    assert hooks.put("media", {"item-1": VERDICT}) == 1
    assert hooks.deliver("desk") == 1
    ((headers, body, path),) = server.got
    assert path == "/hook?token=hush"
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    assert document["type"] == "verdict.changed" and document["timestamp"] == "2027-01-15T08:00:00.000000Z"
    assert document["data"] == {
        "collection": "media",
        "item": "item-1",
        "action": "block",
        "categories": ["cats"],
        "policy": "menagerie",
        "version": "0" * 16,
        "by": "policy",
        "at": "2026-03-01T12:00:00.000000Z",
        "number": 0,
    }
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert headers["webhook-timestamp"] == "1800000000"
    assert hooks.outbox.counts() == (0, 0)
    assert hooks.deliver("desk") == 0 and len(server.got) == 1


def test_a_persons_verdict_says_so_without_the_name(tmp_path: Path, server: Server, poster: Poster) -> None:
    hooks = webhooks(tmp_path, server, poster)
    review = {"number": 7, "categories": ["soup"], "agreed": ["alice"]}
    hooks.put("media", {"i": {**VERDICT, "by": "person:alice", "review": review}})
    hooks.deliver("desk")
    data = json.loads(server.got[0][1])["data"]
    assert (data["by"], data["categories"], data["number"]) == ("person", ["soup"], 7)
    assert b"alice" not in server.got[0][1]


def test_both_secrets_sign_while_one_takes_the_others_place(tmp_path: Path, server: Server, poster: Poster) -> None:
    hooks = webhooks(tmp_path, server, poster, secret=f"{NEXT_SECRET} {SECRET}")
    hooks.put("media", {"i": VERDICT})
    hooks.deliver("desk")
    headers, body, _ = server.got[0]
    one, other = (signed([key], headers["webhook-id"], 1_800_000_000, body) for key in (NEXT_KEY, KEY))
    assert headers["webhook-signature"].split() == [one["webhook-signature"], other["webhook-signature"]]


def test_endpoints_get_what_they_want(tmp_path: Path, server: Server, poster: Poster) -> None:
    hooks = webhooks(tmp_path, server, poster, actions=frozenset({"block", "quarantine"}))
    assert hooks.put("media", {"a": VERDICT, "b": {**VERDICT, "action": "flag"}, "c": VERDICT}) == 2
    hooks.deliver("desk")
    assert [json.loads(body)["data"]["item"] for _, body, _ in server.got] == ["a", "c"]


def test_what_fails_is_tried_again_later_under_the_same_id_and_signed_anew(
    tmp_path: Path, server: Server, poster: Poster
) -> None:
    clock = Clock()
    hooks = webhooks(tmp_path, server, poster, clock)
    server.answers = [500, 302, 404]
    server.headers = {"Location": server.url}
    hooks.put("media", {"i": VERDICT})
    for tries, pause in enumerate(PAUSES[:3], 1):
        assert hooks.deliver("desk") == 0
        assert len(server.got) == tries, "redirects are not followed"
        clock.now += pause * 1.1 - 1
        assert hooks.deliver("desk") == 0 and len(server.got) == tries, "not yet"
        clock.now += 1.5
    assert hooks.deliver("desk") == 1
    assert len({headers["webhook-id"] for headers, _, _ in server.got}) == 1
    assert len({headers["webhook-timestamp"] for headers, _, _ in server.got}) == 4
    assert len({headers["webhook-signature"] for headers, _, _ in server.got}) == 4
    assert hooks.outbox.counts() == (0, 0)


def test_a_server_may_ask_for_a_longer_pause(tmp_path: Path, server: Server, poster: Poster) -> None:
    clock = Clock()
    hooks = webhooks(tmp_path, server, poster, clock)
    for asked, pause in (("4000", 4000), ("999999", 86_400), ("soon", 1800 * 1.1), ("9" * 50, 7200 * 1.1)):
        server.answers, server.headers = [429], {"Retry-After": asked}
        if asked == "4000":
            hooks.put("media", {"i": VERDICT})
        hooks.deliver("desk")
        due = hooks.outbox.next_due("desk")
        assert due is not None and due - clock.now == pytest.approx(pause)
        clock.now = due


def test_after_the_last_try_it_is_a_dead_letter_that_can_be_revived(
    tmp_path: Path, server: Server, poster: Poster
) -> None:
    clock = Clock()
    hooks = webhooks(tmp_path, server, poster, clock)
    hooks.put("media", {"i": VERDICT})
    server.answers = [500] * (len(PAUSES) + 1)
    for _ in range(len(PAUSES) + 1):
        assert hooks.outbox.counts() == (1, 0)
        hooks.deliver("desk")
        clock.now += 2 * 86_400
    assert hooks.outbox.counts() == (0, 1)
    assert hooks.deliver("desk") == 0 and len(server.got) == len(PAUSES) + 1
    (letter,) = hooks.outbox.dead()
    assert (letter.tries, letter.problem) == (10, "It answers 500.")
    assert hooks.revive([letter.id, "msg_none"]) == 1
    assert hooks.deliver("desk") == 1


def test_who_is_gone_is_not_asked_again(tmp_path: Path, server: Server, poster: Poster) -> None:
    hooks = webhooks(tmp_path, server, poster)
    server.answers = [410]
    hooks.put("media", {"i": VERDICT})
    hooks.deliver("desk")
    assert hooks.outbox.counts() == (0, 1)


def test_a_restart_loses_nothing(tmp_path: Path, server: Server, poster: Poster) -> None:
    clock = Clock()

    class Dies:
        def post(self, *_: object) -> Answer:
            raise KeyboardInterrupt

    hooks = webhooks(tmp_path, server, poster, clock)
    hooks.put("media", {f"{number}": VERDICT for number in range(5)})
    dying = Webhooks(tmp_path, [Endpoint("desk", server.url, SecretStr(SECRET))], poster=Dies(), clock=clock)
    with pytest.raises(KeyboardInterrupt):
        dying.deliver("desk")
    after = webhooks(tmp_path, server, poster, clock)
    assert after.deliver("desk") == 4, "what was in work is nobody else's for a while"
    clock.now += LEASE_SECONDS + 1
    assert after.deliver("desk") == 1
    assert sorted(json.loads(body)["data"]["item"] for _, body, _ in server.got) == list("01234")


def test_two_that_deliver_share_the_work(tmp_path: Path, server: Server, poster: Poster) -> None:
    hooks = [webhooks(tmp_path, server, poster) for _ in range(3)]
    hooks[0].put("media", {f"{number}": VERDICT for number in range(30)})
    threads = [threading.Thread(target=each.deliver, args=("desk",)) for each in hooks]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    items = [json.loads(body)["data"]["item"] for _, body, _ in server.got]
    assert sorted(items) == sorted(f"{number}" for number in range(30)), "each once"


def test_threads_deliver_and_one_that_hangs_holds_up_no_other(tmp_path: Path, server: Server, poster: Poster) -> None:
    free = threading.Event()

    class Slow:
        def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
            if "hangs" in url:
                free.wait(20)
                return Answer(200)
            return poster.post(url, body, headers)

    endpoints = [
        Endpoint("hangs", "https://hangs.example", SecretStr(SECRET)),
        Endpoint("desk", server.url, SecretStr(SECRET)),
    ]
    with Webhooks(tmp_path, endpoints, poster=Slow()) as hooks:
        hooks.put("media", {"a": VERDICT})
        hooks.put("media", {"b": VERDICT})
        assert soon(lambda: len(server.got) == 2)
        server.answers = [503]
        hooks.put("media", {"c": VERDICT})
        assert soon(lambda: len(server.got) == 3)
        free.set()
        assert soon(lambda: hooks.outbox.counts() == (1, 0)), "the one that was refused waits"
    assert not [each for each in threading.enumerate() if each.name.startswith("crosslens-webhook")]


def test_a_database_that_fails_ends_no_thread(
    tmp_path: Path, server: Server, poster: Poster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.moderation.webhooks._IDLE_SECONDS", 0.01)
    hooks = Webhooks(tmp_path, [Endpoint("desk", server.url, SecretStr(SECRET))], poster=poster)
    claim, failures = hooks.outbox.claim, iter([sqlite3.OperationalError("database or disk is full")])

    def full(*args: Any, **options: Any) -> Any:
        for error in failures:
            raise error
        return claim(*args, **options)

    monkeypatch.setattr(hooks.outbox, "claim", full)
    hooks.put("media", {"a": VERDICT})
    with hooks:
        assert soon(lambda: len(server.got) == 1)


def test_nothing_goes_to_private_addresses_or_in_the_clear_unless_allowed(tmp_path: Path, server: Server) -> None:
    strict = Poster(resolve=lambda *_: ["127.0.0.1"])
    clear = Poster(resolve=lambda *_: ["93.184.215.14"])
    listed = Poster(allow=["inside.example"], resolve=lambda *_: ["127.0.0.1"])
    try:
        for url in (server.url, f"https://public.example:{server.port}/", "http://169.254.169.254/latest"):
            with pytest.raises(UrlRefused):
                strict.post(url, b"{}", {})
        with pytest.raises(UrlRefused, match="https"):
            clear.post("http://public.example/", b"{}", {})
        assert listed.post(f"http://inside.example:{server.port}/x", b"{}", {}).status == 204
        assert server.got[0][0]["host"] == f"inside.example:{server.port}"
        hooks = Webhooks(tmp_path, [Endpoint("desk", server.url, SecretStr(SECRET))], poster=strict)
        hooks.put("media", {"i": VERDICT})
        hooks.deliver("desk")
        assert hooks.outbox.counts() == (1, 0)
    finally:
        for each in (strict, clear, listed):
            each.close()
    assert len(server.got) == 1


def test_what_does_not_answer_is_an_error_of_its_own(server: Server, poster: Poster) -> None:
    import socket

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(FetchFailed):
            poster.post(f"http://127.0.0.1:{closed.getsockname()[1]}/", b"{}", {})
    impatient = Poster(allow=["127.0.0.1"], deadline=0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(FetchTimeout):
        impatient.post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {})
    impatient.close()
    nowhere = Poster(resolve=lambda *_: [])
    with pytest.raises(FetchFailed):
        nowhere.post("https://nowhere.example/", b"{}", {})
    nowhere.close()


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hush",
        "whsec_",
        "whsec_aHVzaA==",
        "whsec_!!!",
        SECRET[6:],
        f"{SECRET} hush",
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_said(secret: str) -> None:
    with pytest.raises(UsageError) as error:
        Endpoint("desk", "https://example.org", SecretStr(secret))
    assert "hush" not in str(error.value.as_dict())


@pytest.mark.parametrize("url", ["ftp://example.org", "https://user:pass@example.org", "https://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CrosslensError):
        Endpoint("desk", url, SecretStr(SECRET))


def test_names_are_endpoints_own(tmp_path: Path) -> None:
    endpoint = Endpoint("desk", "https://example.org", SecretStr(SECRET))
    with pytest.raises(UsageError):
        Webhooks(tmp_path, [endpoint, endpoint])


def test_secrets_are_on_no_disk_and_in_no_log(tmp_path: Path, server: Server, poster: Poster) -> None:
    server.answers = [500]
    with structlog.testing.capture_logs() as logs:
        hooks = webhooks(tmp_path, server, poster)
        hooks.put("media", {"i": VERDICT})
        hooks.deliver("desk")
    assert logs[0]["problem"] == "It answers 500."
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for hidden in (SECRET, SECRET[6:], "token=hush"):
        assert hidden not in str(logs) and hidden.encode() not in kept
    assert SECRET[6:] not in repr(Endpoint("desk", server.url, SecretStr(SECRET)))
    for path in (tmp_path / "moderation" / "webhooks").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_dead_letters_are_bounded(
    tmp_path: Path, server: Server, poster: Poster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.moderation.outbox.MOST_DEAD", 3)
    clock = Clock()
    hooks = webhooks(tmp_path, server, poster, clock)
    server.answers = [410] * 5
    for number in range(5):
        clock.now += 1
        hooks.put("media", {f"{number}": VERDICT})
        hooks.deliver("desk")
    assert [json.loads(each.body)["data"]["item"] for each in Outbox(tmp_path / "moderation" / "webhooks").dead()] == [
        "4",
        "3",
        "2",
    ]
