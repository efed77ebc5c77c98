"""Keys before the real server: the first one, a revocation by another process, and bodies that are not read."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from indexer.cli import main
from indexer.settings import Settings
from tests.test_architecture import ROOT
from tests.waiting import until

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]
LARGE = 250 * 2**20


def run(*words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CLI, *words], capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def keys(*words: str, workers: int = 0) -> Any:
    done = CliRunner().invoke(main, ["keys", *words, "--json"], env={"CROSSLENS_WORKERS": str(workers)})
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def serving(*words: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        [*CLI, "serve", "--port", "0", "--json", *words], stdout=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, path: str = "/v1/collections", key: str | None = None, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.request(options.pop("method", "GET"), f"{url}{path}", headers=headers, timeout=30, **options)


def test_the_first_key_opens_another_address_and_its_revocation_closes_it(settings: Settings) -> None:
    """As the server itself says; with its own queue, which is not running while the key is made."""
    refused = run("serve", "--host", "0.0.0.0", "--port", "0", code=2)
    assert "without a key" in refused.stderr
    assert refused.stdout == ""
    (command,) = re.findall(r"`crosslens (keys create .*?)`", refused.stderr)
    made = run(*shlex.split(command))
    admin = made.stdout.strip()
    assert re.fullmatch(r"clk_[0-9a-f]{12}_[\w-]{43}", admin)
    assert "once" in made.stderr
    for url, _ in serving("--host", "0.0.0.0"):
        assert ask(url).status_code == 401
        assert ask(url, key=admin).status_code == 200
        assert ask(url, "/readyz").json()["parts"]["queue"]["ok"]
        reader = keys("create", "reader", "--role", "read", "--expires", "1d", workers=1)
        until(lambda: ask(url, key=reader["key"]).status_code == 200, 1)  # noqa: B023  made by another process
        keys("revoke", reader["id"], workers=1)
        until(lambda: ask(url, key=reader["key"]).status_code == 401, 5)  # noqa: B023
        rotated = keys("rotate", admin.split("_")[1], "--overlap", "1h", workers=1)
        until(lambda: ask(url, key=rotated["key"]).status_code == 200, 1)  # noqa: B023
        assert ask(url, key=admin).status_code == 200
        listed = keys("list", workers=1)["keys"]
        assert [(each["name"], each["state"]) for each in listed] == [
            ("admin", "active"), ("reader", "revoked"), ("admin", "active"),
        ]  # fmt: skip
        assert listed[0]["expires"] is not None
        assert listed[0]["used"] is not None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Iterator[tuple[str, str]]:
    """A server on loopback without a queue, and a key that may do everything."""
    place = {"CROSSLENS_DATA": str(tmp_path_factory.mktemp("data")), "CROSSLENS_WORKERS": "0"}
    place["CROSSLENS_MODEL"] = str(colours)
    for url, _ in serving(**place):
        assert ask(url).status_code == 200  # nobody made a key, and this machine asks
        key = json.loads(run("keys", "create", "all", "--role", "admin", "--json", **place).stdout)["key"]
        until(lambda: ask(url).status_code == 401, 5)  # noqa: B023
        yield url, key


def told(url: str, request: bytes, *, seconds: float = 10) -> bytes:
    """What the server says to these bytes, up to the end of its first answer's head or the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := connection.recv(65536)):
            answer += more
    return answer


def head(length: str, key: str | None = None, *more: str) -> bytes:
    lines = [
        "POST /v1/collections/media/items HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        length,
        *more,
    ]
    lines += [f"Authorization: Bearer {key}"] if key else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_strangers_large_body_is_not_read(server: tuple[str, str]) -> None:
    url, key = server
    for wrong in (None, "clk_0123456789ab_" + "A" * 43, key + "x"):
        for length in (f"Content-Length: {LARGE}", "Transfer-Encoding: chunked"):
            answer = told(url, head(length, wrong))
            assert answer.startswith(b"HTTP/1.1 401 "), (wrong, length)
            assert b"Connection: close" in answer
            assert b"X-Content-Type-Options: nosniff" in answer
    # It is asked for by who waits to be asked for it, and may send it.
    expecting = (f"Content-Length: {LARGE}",)
    assert told(url, head(*expecting, None, "Expect: 100-continue")).startswith(b"HTTP/1.1 401 ")
    assert told(url, head(*expecting, key, "Expect: 100-continue")).startswith(b"HTTP/1.1 100 Continue")
    assert told(url, head(*expecting, None, "unread: 1", "Expect: 100-continue")).startswith(b"HTTP/1.1 401 ")


def test_what_a_stranger_sends_behind_is_no_request(server: tuple[str, str]) -> None:
    url, key = server
    inside = (
        f"PUT /v1/collections/smuggled HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: 0\r\n\r\n"
    )
    answer = told(url, head(f"Content-Length: {LARGE}") + inside.encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [each["name"] for each in ask(url, key=key).json()["collections"]] == []


def test_a_strangers_small_body_costs_no_connection(server: tuple[str, str]) -> None:
    url, key = server
    with httpx.Client(base_url=url, timeout=30) as client:
        for _ in range(3):
            answer = client.post("/v1/collections/media/items", json={"items": []})
            assert answer.status_code == 401
            assert answer.headers.get("Connection") != "close"
    assert ask(url, "/v1/collections/media/items", key, method="POST", json={"items": []}).status_code == 400


def test_a_large_body_with_a_key_is_read(server: tuple[str, str]) -> None:
    url, key = server
    answer = ask(url, "/v1/collections/media/items", key, method="POST", files={"file": ("x.png", bytes(3 * 2**20))})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_an_image")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["create", "x"], "Missing option '--role'"),
        (["create", "x", "--role", "king"], "is not one of"),
        (["create", "", "--role", "read"], "name"),
        (["create", "x", "--role", "read", "--for", "../*"], "collections"),
        (["create", "x", "--role", "read", "--expires", "soon"], "is no time"),
        (["create", "x", "--role", "read", "--rate", "0"], "rate"),
        (["revoke", "none"], "There is no key 'none'"),
        (["revoke", "none", "--forget"], "There is no key 'none'"),
        (["rotate", "none"], "There is no key 'none'"),
    ],
)
def test_what_cannot_be_done_with_keys_is_said(settings: Settings, words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(main, ["keys", *words], env={"CROSSLENS_WORKERS": "0"})
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_forgetting_the_last_key_opens_loopback_again(settings: Settings) -> None:
    key = keys("create", "x", "--role", "read")
    assert keys("revoke", key["id"]) == {"revoked": [key["id"]]}
    assert [each["state"] for each in keys("list")["keys"]] == ["revoked"]
    refused = CliRunner().invoke(main, ["keys", "rotate", key["id"]], env={"CROSSLENS_WORKERS": "0"})
    assert refused.exit_code == 2
    assert "is revoked" in refused.stderr
    keys("revoke", key["id"], "--forget")
    assert keys("list") == {"keys": []}


def test_a_rotated_key_may_do_the_same(settings: Settings) -> None:
    old = keys(
        "create", "x", "--role", "write", "--for", "a-*", "--expires", "1h", "--rate", "2.5", "--items-per-day", "9"
    )
    new = keys("rotate", old["id"])
    assert old["id"] != new["id"]
    same = ("name", "roles", "collections", "expires", "limits")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert new["limits"] == {"rate": 2.5, "items_per_day": 9}
    assert keys("list")["keys"][0]["expires"] == old["expires"]  # sooner than the overlap ends
    assert keys("rotate", new["id"], "--expires", "90d")["expires"] > new["expires"]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"CROSSLENS_ADMIN_KEY": "short"}, "32 or more"),
        ({"CROSSLENS_ADMIN_KEY_FILE": "/no/such/secret"}, "cannot be read"),
        ({"CROSSLENS_CORS_ORIGINS": "a.example"}, "CROSSLENS_CORS_ORIGINS"),
        ({"CROSSLENS_TRUSTED_PROXIES": "10.0.0.1/8"}, "CROSSLENS_TRUSTED_PROXIES"),
        ({"CROSSLENS_REDIS_URL": "redis://127.0.0.1:1/0"}, "does not answer"),
    ],
)
def test_serving_elsewhere_is_refused_with_a_reason(
    settings: Settings, environment: dict[str, str], sentence: str
) -> None:
    done = CliRunner().invoke(main, ["serve", "--host", "0.0.0.0", "--port", "0"], env=environment)
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_an_admin_key_of_the_environment_is_enough(settings: Settings) -> None:
    place = {"CROSSLENS_WORKERS": "0", "CROSSLENS_ADMIN_KEY": "0123456789abcdef" * 4}
    for url, _ in serving("--host", "0.0.0.0", **place):
        assert ask(url).status_code == 401
        assert ask(url, "/v1/keys", place["CROSSLENS_ADMIN_KEY"]).json() == {"keys": []}


def test_the_compose_file_with_keys_publishes_to_this_machine_and_wants_one() -> None:
    overlay = yaml.safe_load((ROOT / "deploy" / "compose.keys.yml").read_text())
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(overlay, schema)
    (api,) = overlay["services"].values()
    assert api["ports"] == ["127.0.0.1:8000:8000"]
    assert api["environment"] == {"CROSSLENS_ADMIN_KEY": "${CROSSLENS_ADMIN_KEY:?is not set}"}
    assert api["command"] == ["serve", "--host", "0.0.0.0"]
