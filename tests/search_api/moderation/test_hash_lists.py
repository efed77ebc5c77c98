"""Hash lists over HTTP: taken in, given out, added to, and what a policy finds by them."""

import hashlib
import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.search_api.moderation.conftest import BASE, MEDIA, Site
from tests.search_api.test_http import problem
from workers.judging import POLICY

LISTS = f"{BASE}/hash-lists"
ONE, TWO, THREE = "a1" * 32, "b2" * 32, "c3" * 32
BY_HASH = {
    "name": "by-hash",
    "categories": [{"name": "known", "action": "block", "detectors": [{"type": "hash", "list": "known"}]}],
}


def put(site: Site, content: str | bytes, name: str = "known", kind: str = "text/csv", **query: Any) -> TestResponse:
    return site.client.put(f"{LISTS}/{name}", data=content, content_type=kind, query_string=query)


def test_a_list_is_taken_given_out_and_taken_again(site: Site) -> None:
    csv = f"hash,type,quality\n{ONE},pdq,100\n{ONE},pdq,100\n{TWO},sha256,\n{THREE},pdq,10\n{'d' * 32},md5,\n"
    made = put(site, csv)
    assert made.status_code == 201
    body = made.get_json()
    counts = {name: body[name] for name in ("count", "taken", "twice", "other_kinds", "flat", "rescan")}
    assert counts == {"count": 2, "taken": 2, "twice": 1, "other_kinds": 1, "flat": 1, "rescan": None}
    assert [each["name"] for each in site.client.get(LISTS).get_json()["lists"]] == ["known"]

    given = site.client.get(f"{LISTS}/known")
    assert given.mimetype == "text/csv"
    assert given.headers["Content-Disposition"] == 'attachment; filename="known.csv"'
    as_json = site.client.get(f"{LISTS}/known?format=json")
    assert {each["type"] for each in as_json.get_json()["data"]} == {"HASH_PDQ", "HASH_SHA256"}
    for content, kind in ((given.data, "text/csv"), (as_json.data, "application/json")):
        again = put(site, content, kind=kind)
        assert (again.status_code, again.get_json()["sha256"]) == (200, body["sha256"])
    problem(site.client.get(f"{LISTS}/known?format=xml"), 400, "invalid_request")


def test_a_list_is_added_to_or_replaced(site: Site) -> None:
    problem(put(site, ONE, kind="text/plain"), 400, "hash_list_invalid")  # of which kind it is, nobody said
    query = {"query_string": {"kind": "pdq"}, "content_type": "text/plain"}
    assert site.client.put(f"{LISTS}/known", data=ONE, **query).get_json()["count"] == 1
    joined = {**query, "query_string": {"kind": "pdq", "join": "true"}}
    body = site.client.put(f"{LISTS}/known", data=f"{ONE}\n{TWO}", **joined).get_json()
    assert (body["count"], body["taken"]) == (2, 2)
    assert site.client.put(f"{LISTS}/known", data=THREE, **query).get_json()["count"] == 1
    assert site.client.put(f"{LISTS}/fresh", data=THREE, **joined).status_code == 201


@pytest.mark.parametrize("content", ["nonsense", f"hash,type\n{ONE},pdq\nxyz,pdq\n", "{", '{"data": 1}', b"\xff\xfe"])
def test_a_list_with_a_mistake_changes_nothing(site: Site, content: str | bytes) -> None:
    put(site, f"hash,type\n{ONE},pdq\n")
    kept = site.client.get(f"{LISTS}/known").data
    problem(put(site, content), 400, "hash_list_invalid")
    assert site.client.get(f"{LISTS}/known").data == kept


def test_what_is_no_list_or_not_there(site: Site) -> None:
    problem(put(site, ONE, kind="application/pdf"), 415, "wrong_content_type")
    problem(put(site, f"{ONE}", name="no name"), 400, "invalid_request")
    problem(site.client.get(f"{LISTS}/none"), 404, "hash_list_not_found")
    problem(site.client.delete(f"{LISTS}/none"), 404, "hash_list_not_found")
    put(site, f"hash,type\n{ONE},pdq\n")
    assert site.client.delete(f"{LISTS}/known").status_code == 204
    problem(site.client.get(f"{LISTS}/known"), 404, "hash_list_not_found")
    assert site.client.get(LISTS).get_json()["lists"] == []


def test_a_policy_finds_what_is_on_its_list_by_bytes_and_nearly_the_same_by_pdq(site: Site) -> None:
    site.upload("cat.jpg", "coffee.webp", "gravel.jpg")
    coffee = site.client.get(f"{BASE}/items/coffee").get_json()["pdq"]
    near = f"{int(coffee, 16) ^ 0b1011:064x}"
    cat = hashlib.sha256((MEDIA / "cat.jpg").read_bytes()).hexdigest()
    put(site, f"hash,type\n{cat},sha256\n{near},pdq\n")
    assert site.put_policy(BY_HASH).status_code == 201
    site.rescan()
    assert site.actions() == {"cat": "block", "coffee": "block", "gravel": "allow"}


def test_a_list_that_the_policy_names_has_what_is_stored_judged_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(site, f"hash,type\n{ONE},pdq\n")
    assert site.put_policy(BY_HASH).status_code == 201
    site.upload("cat.jpg")
    assert site.actions() == {"cat": "allow"}
    assert put(site, f"hash,type\n{ONE},pdq\n", name="other").get_json()["warnings"] == []
    pdq = site.client.get(f"{BASE}/items/cat").get_json()["pdq"]
    answer = put(site, f"hash,type\n{pdq},pdq\n", join="true").get_json()
    assert (answer["rescan"], len(answer["warnings"])) == (None, 1)  # there is no queue here
    site.rescan()
    assert site.actions() == {"cat": "block"}

    asked: list[Any] = []

    class Queued:
        def as_dict(self) -> dict[str, Any]:
            return {"job": "j"}

    class Queue:
        def submit(self, collection: Any, sources: list[str]) -> Queued:
            asked.append((collection.name, sources))
            return Queued()

    settings = site.services.settings.model_copy(update={"workers": 1})
    monkeypatch.setattr(site.services, "settings", settings)
    monkeypatch.setitem(vars(site.services), "queue", Queue())
    assert put(site, f"hash,type\n{TWO},pdq\n").get_json()["rescan"] == {"job": "j"}
    assert asked == [("media", [POLICY])]
    assert json.loads(put(site, f"hash,type\n{TWO},pdq\n", name="other").data)["rescan"] is None
