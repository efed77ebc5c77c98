"""The operator's webhook hears of verdicts that change: by people, by rescans, and through a served API."""

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from indexer.errors import UrlRefused, UsageError
from indexer.moderation.notices import open_webhooks
from indexer.moderation.outbox import Outbox
from indexer.settings import Settings
from indexer.store import Store
from search_api.app import create_app
from search_api.services import Services
from tests.search_api.conftest import CLI
from tests.search_api.moderation.conftest import BASE, Site
from tests.waiting import until

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def noticed(parts: tuple[Settings, Store, Services]) -> Iterator[Site]:
    """The site of an operator with a webhook, which nobody delivers to."""
    settings, _, services = parts
    changed = settings.model_copy(
        update={"webhook_url": "https://hooks.example/x", "webhook_secret": SecretStr(SECRET)}
    )
    services.settings = changed
    with create_app(changed, services).test_client() as client:
        assert client.put(BASE).status_code == 201
        put_in(Site(client, services))
        yield Site(client, services)
        assert client.delete(BASE).status_code == 204
    services.settings = settings


def put_in(site: Site) -> list[dict[str, Any]]:
    """What was put in since the last look."""
    outbox, found = Outbox(site.services.settings.data / "moderation" / "webhooks"), []
    while delivery := outbox.claim("operator", 1e12, until=2e12):
        found.append(json.loads(delivery.body)["data"])
        outbox.arrived(delivery)
    return found


def test_decisions_and_judgements_that_change_are_told(noticed: Site) -> None:
    noticed.upload("cat.jpg", "gravel.jpg", "rocket.jpg")
    ids = {item.record.name: item.id for item in noticed.services.collection("media").scan()}
    noticed.put_policy()
    noticed.rescan()
    told = {each["item"]: each for each in put_in(noticed)}
    assert {item: each["action"] for item, each in told.items()} == {ids["cat"]: "block", ids["rocket"]: "blur"}
    assert told[ids["cat"]]["categories"] == ["animals"]
    noticed.rescan()
    assert put_in(noticed) == []

    body = {"ids": ["cat"], "decision": {"what": "approve"}}
    answer = noticed.client.post(f"{BASE}/moderation/review", json=body)
    (message,) = put_in(noticed)
    number = answer.get_json()["entries"][0]["number"]
    assert (message["item"], message["action"], message["by"], message["number"]) == (
        ids["cat"],
        "allow",
        "person",
        number,
    )
    noticed.client.post(f"{BASE}/moderation/undo", json={"numbers": [number]})
    (message,) = put_in(noticed)
    assert (message["action"], message["by"]) == ("block", "policy")


def test_proposals_and_appeals_change_nothing_yet(noticed: Site) -> None:
    noticed.put_policy(reviewers=2)
    noticed.upload("cat.jpg", "rocket.jpg")
    put_in(noticed)
    body = {"ids": ["cat"], "decision": {"what": "approve"}}
    assert noticed.client.post(f"{BASE}/moderation/review", json=body).status_code == 200
    assert noticed.client.post(f"{BASE}/items/rocket/appeal").status_code == 201
    assert put_in(noticed) == []


def test_a_full_disk_undoes_no_decision(noticed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    noticed.put_policy()
    noticed.upload("cat.jpg")

    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Outbox, "put", full)
    body = {"ids": ["cat"], "decision": {"what": "approve"}}
    assert noticed.client.post(f"{BASE}/moderation/review", json=body).status_code == 200
    assert noticed.actions() == {"cat": "allow"}


def test_settings_that_will_not_do_are_refused(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    assert open_webhooks(settings) is None
    assert not settings.data.exists()
    for url, secret, error in (
        ("https://hooks.example/", None, UsageError),
        ("https://hooks.example/", "short", UsageError),
        ("ftp://hooks.example/", SECRET, UrlRefused),
    ):
        given = {"webhook_url": url, "webhook_secret": SecretStr(secret) if secret else None}
        with pytest.raises(error):
            open_webhooks(settings.model_copy(update=given))


def test_a_served_api_delivers(tmp_path: Path, colours: Path) -> None:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append({**json.loads(body), "signed": self.headers["webhook-signature"]})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{receiver.server_address[1]}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CROSSLENS_")} | {
            "CROSSLENS_DATA": str(tmp_path / "data"),
            "CROSSLENS_MODEL": str(colours),
            "CROSSLENS_WORKERS": "0",
            "CROSSLENS_WEBHOOK_URL": f"http://{host}/hook",
            "CROSSLENS_WEBHOOK_SECRET": SECRET,
            "CROSSLENS_FETCH_ALLOW": host,
        }
        refused = subprocess.run(
            [*CLI, "serve", "--port", "0"],
            env={**environment, "CROSSLENS_WEBHOOK_SECRET": "none"},
            capture_output=True,
            check=False,
        )
        assert refused.returncode == 2
        process = subprocess.Popen(
            [*CLI, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, env=environment, text=True
        )
        try:
            assert process.stdout is not None
            with httpx.Client(base_url=json.loads(process.stdout.readline())["url"], timeout=60) as client:
                red = {"type": "text", "words": ["red"]}
                client.put(BASE)
                policy = {"name": "p", "categories": [{"name": "red", "action": "block", "detectors": [red]}]}
                assert client.put(f"{BASE}/policy", json=policy).status_code == 201
                client.post(f"{BASE}/items", json={"items": [{"text": "so red", "id": "r"}]})
                body = {"ids": ["r"], "decision": {"what": "approve"}}
                assert client.post(f"{BASE}/moderation/review", json=body).status_code == 200
                until(lambda: any(each["data"]["by"] == "person" for each in got))
        finally:
            process.terminate()
            process.wait(60)
            receiver.shutdown()
    assert got[-1]["data"]["action"] == "allow"
    assert got[-1]["signed"].startswith("v1,")
