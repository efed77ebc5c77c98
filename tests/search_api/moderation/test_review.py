"""Review over HTTP: the queue, decisions and their undoing, appeals, and the trail."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from indexer.moderation.starting import starting_policy
from indexer.moderation.trail import Trail
from indexer.settings import Settings
from indexer.store import Store
from search_api.access.guard import Guard
from search_api.access.keys import Role, new_key
from search_api.app import create_app
from search_api.services import Services
from tests.indexer.media.test_frames import animated, noise
from tests.search_api.moderation.conftest import BASE, PHOTOS, Site
from tests.search_api.test_http import problem

REVIEW, UNDO, TRAIL = (f"{BASE}/moderation/{name}" for name in ("review", "undo", "trail"))


@pytest.fixture
def reviewed(site: Site) -> Iterator[Site]:
    """The photos, judged by `neutral`; with a trail of its own."""
    folder = Trail(site.services.settings.data, "media").folder
    for path in folder.glob("*") if folder.exists() else ():
        path.unlink()
    site.put_policy()
    site.upload(*PHOTOS)
    yield site


def waiting(site: Site, **query: Any) -> dict[str, Any]:
    answer = site.client.get(REVIEW, query_string=query)
    assert answer.status_code == 200, answer.data
    return {each["id"]: each for each in answer.get_json()["items"]}


def decide(site: Site, ids: list[str], decision: Any, **more: Any) -> list[dict[str, Any]]:
    answer = site.client.post(REVIEW, json={"ids": ids, "decision": decision, **more})
    assert answer.status_code == 200, answer.data
    found: list[dict[str, Any]] = answer.get_json()["entries"]
    return found


def entries(site: Site, **query: Any) -> list[dict[str, Any]]:
    answer = site.client.get(TRAIL, query_string=query)
    assert (answer.status_code, answer.mimetype) == (200, "application/jsonl")
    return [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]


def shown(site: Site) -> set[str]:
    answer = site.client.post(f"{BASE}/search", json={"limit": 100}).get_json()
    return {each["id"] for each in answer["results"]}


def test_the_queue_has_what_was_found_and_nobody_decided_on(reviewed: Site) -> None:
    found = waiting(reviewed)
    acted = {name for name, action in reviewed.actions().items() if action != "allow"}
    assert set(found) == acted
    assert {"cat", "coffee", "rocket"} <= acted
    cat = found["cat"]
    assert (cat["why"], cat["number"], cat["payload"], cat["kind"]) == ("block", 0, {"tag": "cat.jpg"}, "image")
    assert cat["verdict"]["categories"]["animals"]["fired"]
    assert cat["distance"] > 0
    assert reviewed.client.get(cat["thumbnail"]).mimetype == "image/webp"
    ordered = [each for each in found.values() if each["why"] == "block"]
    assert [each["distance"] for each in ordered] == sorted(each["distance"] for each in ordered)


def test_what_many_were_shown_comes_first(site: Site) -> None:
    policy = starting_policy("neutral").model_dump(mode="json", exclude_defaults=True)
    every = [{**each, "action": "flag", "threshold": 0.001} for each in policy["categories"]]
    site.put_policy({**policy, "categories": every})
    site.upload(*PHOTOS)
    before = waiting(site)
    assert len(before) > 2
    assert {each["shown"] for each in before.values()} == {0}
    last = list(before)[-1]
    for _ in range(30):
        found = site.client.post(f"{BASE}/search", json={"query": [{"item": last}], "limit": 1, "kind": "image"})
        other = found.get_json()["results"][0]["id"]
    for _ in range(3):
        site.client.post(f"{BASE}/search?view=moderator", json={"limit": 100})
    site.services.impressions.write()
    after = waiting(site)
    assert {name: each["shown"] for name, each in after.items() if each["shown"]} == {other: 30}
    assert next(iter(after)) == other


def test_the_queue_comes_in_pages(reviewed: Site) -> None:
    everything, pages, after = list(waiting(reviewed)), [], None
    for _ in range(len(everything)):
        query = {"limit": 2, **({"after": after} if after else {})}
        page = reviewed.client.get(REVIEW, query_string=query).get_json()
        pages += [each["id"] for each in page["items"]]
        if (after := page["next"]) is None:
            break
    assert pages == everything
    problem(reviewed.client.get(f"{REVIEW}?limit=0"), 400, "invalid_request")
    problem(reviewed.client.get(f"{REVIEW}?after=x"), 400, "invalid_cursor")


def test_decisions_take_effect_at_once_and_are_undone(reviewed: Site) -> None:
    assert "cat" not in shown(reviewed)
    made = decide(reviewed, ["cat", "coffee"], {"what": "approve"}, note="fine")
    first = made[0]["number"]
    assert [(each["what"], each["note"], each["number"]) for each in made] == [
        ("approve", "fine", first),
        ("approve", "fine", first + 1),
    ]
    assert {"cat", "coffee"} <= shown(reviewed)
    assert not {"cat", "coffee"} & set(waiting(reviewed))
    assert reviewed.rescan() == 0  # a person's verdict stays
    answer = reviewed.client.post(UNDO, json={"numbers": [first], "note": "not it"})
    undone = answer.get_json()["entries"]
    assert [(each["what"], each["undoes"], each["note"]) for each in undone] == [("undo", first, "not it")]
    assert {"cat", "coffee"} & shown(reviewed) == {"coffee"}
    problem(reviewed.client.post(UNDO, json={"numbers": [first]}), 409, "review_conflict")
    problem(reviewed.client.post(UNDO, json={"numbers": [99]}), 404, "trail_entry_not_found")
    decide(reviewed, ["gravel"], {"what": "recategorise", "categories": ["animals"]})
    assert "gravel" not in shown(reviewed)
    decide(reviewed, ["gravel"], {"what": "withdraw"})
    assert "gravel" in shown(reviewed)


def test_what_others_have_changed_is_a_conflict(reviewed: Site) -> None:
    number = decide(reviewed, ["cat"], {"what": "approve"})[0]["number"]
    body = {"ids": ["coffee", "cat"], "decision": {"what": "reject"}, "seen": {"cat": 0}}
    told = problem(reviewed.client.post(REVIEW, json=body), 409, "review_conflict")
    assert len(told["conflicts"]) == 1
    assert reviewed.actions()["coffee"] == "quarantine"  # all or none
    decide(reviewed, ["coffee", "cat"], {"what": "reject"}, seen={"cat": number})
    assert {reviewed.actions()[name] for name in ("cat", "coffee")} == {"block"}


def test_decisions_that_make_no_sense_are_refused(reviewed: Site) -> None:
    for body in (
        {},
        {"ids": [], "decision": {"what": "approve"}},
        {"ids": ["cat"], "decision": {"what": "love"}},
        {"ids": ["cat"], "decision": {"what": "recategorise"}},
        {"ids": ["cat"], "decision": {"what": "reject", "categories": ["none"]}},
        {"ids": ["cat"] * 1001, "decision": {"what": "approve"}},
        {"ids": ["cat"], "decision": {"what": "approve"}, "note": "x" * 2001},
        {"ids": ["cat"], "decision": {"what": "approve"}, "who": "somebody else"},
        {"ids": ["cat"], "decision": {"what": "approve"}, "seen": {"cat": -1}},
    ):
        problem(reviewed.client.post(REVIEW, json=body), 400, "invalid_request")
    told = problem(
        reviewed.client.post(REVIEW, json={"ids": ["cat", "none"], "decision": {"what": "approve"}}),
        404,
        "item_not_found",
    )
    assert len(told["items"]) == 1
    for numbers in ([], [0], ["x"]):
        problem(reviewed.client.post(UNDO, json={"numbers": numbers}), 400, "invalid_request")
    assert entries(reviewed)[1:] == []  # but for the policy


def test_without_a_policy_there_is_nothing_to_review(site: Site) -> None:
    site.upload("cat.jpg")
    problem(site.client.get(REVIEW), 404, "policy_not_found")
    problem(site.client.post(REVIEW, json={"ids": ["cat"], "decision": {"what": "approve"}}), 404, "policy_not_found")
    problem(site.client.post(f"{BASE}/items/cat/appeal"), 404, "policy_not_found")


def test_appeals_are_of_what_one_sees_and_come_first(reviewed: Site) -> None:
    assert "rocket" in shown(reviewed)  # blurred
    answer = reviewed.client.post(f"{BASE}/items/rocket/appeal", json={"note": "It is a drawing."})
    assert answer.status_code == 201
    assert set(answer.get_json()) == {"id", "at"}  # nothing of the verdict, nor of how many decisions there are
    queue = list(waiting(reviewed).values())
    assert (queue[0]["id"], queue[0]["why"]) == ("rocket", "appeal")
    problem(reviewed.client.post(f"{BASE}/items/rocket/appeal"), 409, "review_conflict")
    for hidden in ("cat", "none"):
        told = problem(reviewed.client.post(f"{BASE}/items/{hidden}/appeal"), 404, "item_not_found")
        assert told["detail"].replace(hidden, "") == "The collection 'media' has no item ''."
    assert reviewed.client.post(f"{BASE}/items/cat/appeal?view=moderator").status_code == 201
    assert [each["note"] for each in entries(reviewed, item="rocket")] == ["It is a drawing."]
    decide(reviewed, ["rocket"], {"what": "approve"}, seen={"rocket": queue[0]["number"]})
    assert "rocket" not in waiting(reviewed)


def test_the_trail_is_filtered_and_exported(reviewed: Site) -> None:
    decide(reviewed, ["cat"], {"what": "approve"}, note="=1+1")
    decide(reviewed, ["coffee"], {"what": "reject"})
    everything = entries(reviewed)
    assert [each["what"] for each in everything] == ["policy", "approve", "reject"]
    trail = Trail(reviewed.services.settings.data, "media")
    exported = reviewed.client.get(TRAIL)
    assert exported.is_streamed
    assert exported.data == (trail.folder / "trail.jsonl").read_bytes()
    assert trail.check() is None
    who = everything[1]["who"]
    assert [each["number"] for each in entries(reviewed, who=who)] == [2, 3]
    assert [each["number"] for each in entries(reviewed, item="coffee")] == [3]
    assert [each["number"] for each in entries(reviewed, after=2)] == [3]
    assert [each["number"] for each in entries(reviewed, **{"from": everything[2]["at"]})] == [3]
    assert [each["number"] for each in entries(reviewed, to=everything[2]["at"])] == [1, 2]
    assert entries(reviewed, who="nobody else") == []
    answer = reviewed.client.get(f"{TRAIL}?format=csv")
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))
    assert [(row["number"], row["note"]) for row in rows] == [("1", ""), ("2", "'=1+1"), ("3", "")]
    for query in ("format=xml", "from=never", "after=-1"):
        problem(reviewed.client.get(f"{TRAIL}?{query}"), 400, "invalid_request")


@pytest.fixture
def guarded(
    parts: tuple[Settings, Store, Services], reviewed: Site, tmp_path: Path
) -> tuple[FlaskClient, dict[str, Any], dict[str, str]]:
    """A client of the same site where keys are asked for; headers and ids of a reader's and two moderators' keys."""
    settings, _, services = parts
    guard = Guard(settings.model_copy(update={"data": tmp_path}), public=True)
    client = create_app(settings, services, guard=guard).test_client()
    headers, ids = {}, {}
    for name, role in (("reader", Role.READ), ("ann", Role.MODERATE), ("bob", Role.MODERATE)):
        key, token = new_key(name, [role], now=datetime.now(UTC))
        guard.book.store.add(key)
        headers[name], ids[name] = {"Authorization": f"Bearer {token}"}, key.id
    guard.book.changed()
    return client, headers, ids


def test_readers_appeal_and_do_nothing_else(guarded: tuple[FlaskClient, Any, Any]) -> None:
    client, headers, _ = guarded
    reader = headers["reader"]
    assert client.post(f"{BASE}/items/rocket/appeal", headers=reader).status_code == 201
    moderators = ("GET", REVIEW), ("POST", REVIEW), ("POST", UNDO), ("GET", TRAIL), ("POST", f"{BASE}/moderation/fit")
    for method, path in moderators:
        problem(client.open(path, method=method, json={}, headers=reader), 403, "forbidden")
    problem(client.post(f"{BASE}/items/cat/appeal?view=moderator", headers=reader), 403, "forbidden")
    problem(client.post(f"{BASE}/items/rocket/appeal"), 401, "key_required")


def test_two_reviewers_are_two_keys(reviewed: Site, guarded: tuple[FlaskClient, Any, Any]) -> None:
    client, headers, ids = guarded
    reviewed.put_policy(reviewers=2)
    body: dict[str, Any] = {"ids": ["cat"], "decision": {"what": "approve"}}
    first = client.post(REVIEW, json=body, headers=headers["ann"]).get_json()["entries"][0]
    assert first["who"] == f"ann ({ids['ann']})"
    assert reviewed.actions()["cat"] == "block"

    def asked(name: str) -> dict[str, str]:
        page = client.get(REVIEW, headers=headers[name]).get_json()
        assert page["reviewers"] == 2
        return {each["id"]: each["why"] for each in page["items"]}

    assert "cat" not in asked("ann")
    assert asked("bob")["cat"] == "proposed"
    problem(client.post(UNDO, json={"numbers": [first["number"]]}, headers=headers["bob"]), 409, "review_conflict")
    assert client.post(REVIEW, json=body, headers=headers["bob"]).status_code == 200
    assert reviewed.actions()["cat"] == "allow"


def test_a_decision_on_a_frame_is_one_on_its_file(reviewed: Site) -> None:
    moving = (io.BytesIO(animated("GIF", [noise(1), noise(2), noise(3)], duration=500)), "moving.gif")
    answer = reviewed.client.post(f"{BASE}/items", data={"file": [moving]}, content_type="multipart/form-data")
    assert answer.status_code == 201
    first = answer.get_json()["items"][0]["id"]
    frames = {item.id for item in reviewed.services.collection("media").parts(first)}

    def seen() -> int:
        return sum(reviewed.client.get(f"{BASE}/items/{each}").status_code == 200 for each in frames)

    assert (len(frames), seen()) == (3, 3)
    entry = decide(reviewed, [max(frames - {first})], {"what": "reject"})[0]
    assert seen() == 0
    assert reviewed.client.post(UNDO, json={"numbers": [entry["number"]]}).status_code == 200
    assert seen() == 3
