"""Policies over HTTP: tried, put in force, changed, taken back; and what is shown meanwhile."""

import io
import json
from typing import Any

import pytest

from indexer.moderation.trail import Trail
from tests.search_api.moderation.conftest import BASE, MEDIA, PHOTOS, Site
from tests.search_api.test_http import problem
from tests.waiting import until

ALL_SHOWN = {
    "name": "open",
    "categories": [
        {"name": "cats", "action": "flag", "threshold": 0.2, "detectors": [{"type": "prompts", "positive": ["a cat"]}]}
    ],
}


def ids(answer: Any) -> set[str]:
    return {each["id"] for each in answer.get_json()["results"]}


def test_policies_that_ship_can_be_read_and_put_in_force(site: Site) -> None:
    listed = site.client.get("/v1/policies").get_json()["policies"]
    assert {"neutral", "adult", "violence"} <= {each["name"] for each in listed}
    assert all(category["trust"] for each in listed for category in each["categories"])
    neutral = site.client.get("/v1/policies/neutral").get_json()
    assert neutral["text"].startswith("name: neutral")
    assert [each["name"] for each in neutral["policy"]["categories"]] == ["animals", "food", "vehicles"]
    problem(site.client.get("/v1/policies/none"), 404, "policy_not_found")
    by_yaml = site.put_policy(neutral["text"])
    assert (by_yaml.status_code, by_yaml.get_json()["number"]) == (201, 1)
    by_json = site.put_policy(neutral["policy"])
    assert (by_json.status_code, by_json.get_json()["number"]) == (200, 1)
    assert by_json.get_json()["version"] == neutral["version"]


def test_what_is_uploaded_is_judged_before_it_is_shown(site: Site) -> None:
    site.put_policy()
    site.upload(*PHOTOS)
    actions = site.actions()
    assert (actions["cat"], actions["coffee"], actions["rocket"]) == ("block", "quarantine", "blur")
    hidden = {name for name, action in actions.items() if action in {"block", "quarantine"}}
    shown = set(actions) - hidden
    assert {"rocket", "gravel"} <= shown

    client, search = site.client, f"{BASE}/search"
    by_text: Any = {"query": [{"text": "a photo of a cat"}], "limit": 50}
    assert ids(client.post(search, json=by_text)) == shown
    assert ids(client.post(search, json={"limit": 50})) == shown
    batch = client.post(f"{search}/batch", json={"searches": [by_text]}).get_json()["answers"][0]
    assert {each["id"] for each in batch["results"]} == shown
    assert ids(client.post(f"{search}?view=moderator", json=by_text)) == set(actions)

    for path in ("", "/media", "/thumbnail"):
        for name in sorted(hidden):
            problem(client.get(f"{BASE}/items/{name}{path}"), 404, "item_not_found")
            assert client.get(f"{BASE}/items/{name}{path}?view=moderator").status_code == 200
    problem(client.get(f"{BASE}/items/rocket/media"), 403, "original_withheld")
    blurred = client.get(f"{BASE}/items/rocket/thumbnail").data
    assert blurred != client.get(f"{BASE}/items/rocket/thumbnail?view=moderator").data

    facets = client.post(f"{BASE}/facets", json={"fields": ["kind"]}).get_json()
    assert facets["total"] == len(shown)
    assert client.get(BASE).get_json()["count"] == len(shown)
    assert client.get(f"{BASE}?view=moderator").get_json()["count"] == len(actions)
    problem(client.post(search, json={"query": [{"item": "cat"}]}), 404, "item_not_found")


def test_what_is_withheld_is_nobodys_duplicate(site: Site) -> None:
    site.put_policy()
    site.upload("cat.jpg", "gravel.jpg")
    for name in ("cat.jpg", "gravel.jpg"):
        again = {"file": (io.BytesIO((MEDIA / name).read_bytes() + b"\0"), name)}  # the same picture, other bytes
        site.client.post(f"{BASE}/items", data=again, content_type="multipart/form-data")
    assert len(site.actions()) == 4

    def groups(view: str) -> list[set[str]]:
        path = f"{BASE}/duplicates?view={view}"
        until(lambda: site.client.post(path, json={"by": "picture"}).status_code == 200)
        found = site.client.post(path, json={"by": "picture"}).get_json()["groups"]
        return [{group["id"], *(member["id"] for member in group["members"])} for group in found]

    assert [len(group & {"cat", "gravel"}) for group in groups("visitor")] == [1]
    assert "gravel" in groups("visitor")[0]
    assert len(groups("moderator")) == 2


def test_what_is_stored_stays_hidden_until_it_is_judged(site: Site) -> None:
    site.upload(*PHOTOS)
    assert len(ids(site.client.post(f"{BASE}/search", json={"limit": 50}))) == len(PHOTOS)
    put = site.put_policy().get_json()
    assert (put["rescan"], len(put["warnings"])) == (None, 1)
    assert ids(site.client.post(f"{BASE}/search", json={"limit": 50})) == set()
    assert site.rescan() == len(PHOTOS)
    shown = ids(site.client.post(f"{BASE}/search", json={"limit": 50}))
    assert shown == {name for name, action in site.actions().items() if action not in {"block", "quarantine"}}
    assert site.rescan() == 0
    assert site.client.delete(f"{BASE}/policy").status_code == 204
    assert len(ids(site.client.post(f"{BASE}/search", json={"limit": 50}))) == len(PHOTOS)


def test_a_policy_with_mistakes_is_refused_with_all_of_them_and_the_one_in_force_stays(site: Site) -> None:
    site.put_policy()
    wrong = (
        "name: w\ncategories:\n  - name: a\n    action: burn\n    threshold: 2\n    detectors: []\n    colour: red\n"
    )
    body = problem(site.put_policy(wrong), 400, "policy_invalid")
    assert [each["line"] for each in body["mistakes"]] == [4, 5, 6, 7]
    assert all(each["remedy"] for each in body["mistakes"])
    problem(site.client.put(f"{BASE}/policy", data=b"\xff\xfe", content_type="application/yaml"), 400, "policy_invalid")
    problem(site.client.put(f"{BASE}/policy", data=b"x", content_type="text/plain"), 415, "wrong_content_type")
    large = b"#" + b"x" * 2**20
    problem(site.client.put(f"{BASE}/policy", data=large, content_type="application/yaml"), 413, "too_large")
    problem(site.client.put(f"{BASE}/policy", data=b"", content_type="application/json"), 400, "policy_invalid")
    assert site.client.get(f"{BASE}/policy").get_json()["number"] == 1


@pytest.mark.parametrize(
    ("detector", "code"),
    [({"type": "hash", "list": "known"}, "hash_list_not_found"),
     ({"type": "classifier", "model": "none", "labels": ["x"]}, "classifier_not_found")],
)  # fmt: skip
def test_a_policy_that_cannot_be_opened_changes_nothing(site: Site, detector: dict[str, Any], code: str) -> None:
    policy = {"name": "p", "categories": [{"name": "c", "action": "block", "detectors": [detector]}]}
    problem(site.put_policy(policy), 404, code)
    problem(site.client.get(f"{BASE}/policy"), 404, "policy_not_found")
    problem(site.client.post(f"{BASE}/moderation/dry-run", json=policy), 404, code)


def test_versions_are_listed_read_and_restored_and_noted_in_the_trail(site: Site) -> None:
    site.put_policy()
    site.put_policy(ALL_SHOWN, reviewers=2, queries="true")
    listed = site.client.get(f"{BASE}/policies").get_json()["policies"]
    assert [(each["number"], each["in_force"], each["reviewers"]) for each in listed] == [(2, True, 2), (1, False, 1)]
    first = site.client.get(f"{BASE}/policies/1")
    assert (first.get_json()["policy"]["name"], first.headers["ETag"]) == ("neutral", '"1"')
    restored = site.client.post(f"{BASE}/policies/1/restore")
    assert (restored.status_code, restored.get_json()["number"], restored.get_json()["name"]) == (200, 3, "neutral")
    assert (restored.get_json()["reviewers"], restored.get_json()["queries"]) == (1, False)
    for number in ("9", "x", "-1", "9" * 30):
        problem(site.client.get(f"{BASE}/policies/{number}"), 404, "policy_not_found")
        problem(site.client.post(f"{BASE}/policies/{number}/restore"), 404, "policy_not_found")
    site.client.delete(f"{BASE}/policy")
    problem(site.client.get(f"{BASE}/policy"), 404, "policy_not_found")
    problem(site.client.delete(f"{BASE}/policy"), 404, "policy_not_found")
    assert site.put_policy().get_json()["number"] == 4
    trail = list(Trail(site.services.settings.data, "media").entries())[-5:]
    assert [((each.before or {}).get("number"), (each.after or {}).get("number")) for each in trail] == [
        (None, 1), (1, 2), (2, 3), (3, None), (None, 4),
    ]  # fmt: skip


def test_what_is_not_said_of_reviewers_and_queries_stays(site: Site) -> None:
    site.put_policy(ALL_SHOWN, reviewers=2, queries="true")
    kept = site.put_policy().get_json()
    assert (kept["reviewers"], kept["queries"], kept["number"]) == (2, True, 2)
    changed = site.put_policy(reviewers=1, queries="false").get_json()
    assert (changed["reviewers"], changed["queries"], changed["number"]) == (1, False, 3)
    assert changed["warnings"] == []  # it judges as before
    problem(site.put_policy(reviewers=3), 400, "invalid_request")
    problem(site.put_policy(queries="yes"), 400, "invalid_request")


def test_a_change_to_a_policy_that_is_no_longer_in_force_is_refused(site: Site) -> None:
    def put(policy: Any, match: str) -> Any:
        return site.client.put(f"{BASE}/policy", json=policy, headers={"If-Match": match})

    problem(put(ALL_SHOWN, '"1"'), 412, "policy_changed")
    problem(put(ALL_SHOWN, "*"), 412, "policy_changed")
    assert site.put_policy().headers["ETag"] == '"1"'
    problem(put(ALL_SHOWN, '"2"'), 412, "policy_changed")
    problem(put(ALL_SHOWN, "nothing"), 412, "policy_changed")
    assert put(ALL_SHOWN, '"1"').get_json()["number"] == 2
    stale = {"If-Match": '"1"'}
    problem(site.client.delete(f"{BASE}/policy", headers=stale), 412, "policy_changed")
    problem(site.client.post(f"{BASE}/policies/1/restore", headers=stale), 412, "policy_changed")
    assert site.client.get(f"{BASE}/policy").get_json()["name"] == "open"
    assert site.client.delete(f"{BASE}/policy", headers={"If-Match": '"2"'}).status_code == 204


def test_a_collection_that_is_not_there(site: Site) -> None:
    other = "/v1/collections/other"
    for method, path in (
        ("get", "policy"), ("delete", "policy"), ("get", "policies"), ("get", "policies/1"), ("get", "hash-lists"),
        ("get", "hash-lists/a"), ("delete", "hash-lists/a"), ("post", "moderation/rescan"),
    ):  # fmt: skip
        problem(getattr(site.client, method)(f"{other}/{path}"), 404, "collection_not_found")
    for method, path in (("put", "policy"), ("post", "moderation/dry-run")):
        answer = getattr(site.client, method)(
            f"{other}/{path}", data=json.dumps(ALL_SHOWN), content_type="application/json"
        )
        problem(answer, 404, "collection_not_found")
