"""Dry runs tell what a rescan then does; rescans run as jobs."""

from collections import Counter
from typing import Any

import httpx
import pytest

from indexer.moderation.review.decisions import Reviews
from indexer.moderation.review.state import Decision
from indexer.moderation.stored import policy_of
from indexer.moderation.trail import Trail
from search_api.moderation import rescans
from tests.search_api.conftest import Served
from tests.search_api.moderation.conftest import BASE, PHOTOS, Site
from tests.search_api.test_http import problem
from tests.waiting import until

DRY_RUN = f"{BASE}/moderation/dry-run"


def neutral(site: Site) -> Any:
    return site.client.get("/v1/policies/neutral").get_json()["policy"]


def dry_run(site: Site, policy: Any, **query: Any) -> Any:
    answer = site.client.post(DRY_RUN, json=policy, query_string=query)
    assert answer.status_code == 200, answer.data
    return answer.get_json()


def moves(before: dict[str, str | None], after: dict[str, str | None]) -> dict[str, dict[str, int]]:
    counted = Counter((before[name] or "none", after[name]) for name in before)
    found: dict[str, dict[str, int]] = {}
    for (was, is_now), count in counted.items():
        found.setdefault(was, {})[str(is_now)] = count
    return found


def test_a_dry_run_writes_nothing_and_tells_what_a_rescan_does(site: Site) -> None:
    site.upload(*PHOTOS)
    first = neutral(site)
    for policy in (first, {**first, "categories": [{**each, "threshold": 0.9} for each in first["categories"]]}):
        before = site.actions()
        told = dry_run(site, policy)
        assert site.actions() == before
        site.put_policy(policy)
        site.rescan()
        after = site.actions()
        assert told["actions"] == moves(before, after)
        assert told["changed"] == sum(before[name] != after[name] for name in before)
        assert (told["judged"], told["items"], told["complete"]) == (len(PHOTOS), len(PHOTOS), True)
        assert (told["unscored"], told["held_back"]) == (0, 0)
        verdicts = [item.record.verdict or {} for item in site.services.collection("media").scan()]
        for category in told["categories"]:
            fired = sum(verdict["categories"][category["name"]]["fired"] for verdict in verdicts)
            assert category["fired"] == fired
    assert dry_run(site, policy)["changed"] == 0


def test_what_joins_and_leaves_a_category_and_what_is_near_its_line(site: Site) -> None:
    site.put_policy()
    site.upload(*PHOTOS)
    policy = neutral(site)
    policy["categories"] = [{**each, "threshold": 0.999} for each in policy["categories"]]
    told = dry_run(site, policy, nearest=3)
    animals = told["categories"][0]
    assert (animals["name"], animals["joined"]) == ("animals", 0)
    assert animals["left"] >= 1
    near = animals["nearest"]
    assert len(near) == 3
    assert [each["probability"] for each in near] == sorted((each["probability"] for each in near), reverse=True)
    assert near[0]["id"] in {"cat", "raccoon"}
    assert (near[0]["before"], near[0]["after"]) == ("block", "allow")
    assert site.client.get(near[0]["thumbnail"]).status_code == 200
    assert site.client.get(near[0]["thumbnail"].partition("?")[0]).status_code == 404
    assert dry_run(site, policy, nearest=0)["categories"][0]["nearest"] == []
    # By the policy in force nothing comes or goes; by one that everything is of, what was not of it comes.
    same = dry_run(site, neutral(site))["categories"][0]
    assert (same["fired"], same["joined"], same["left"]) == (animals["left"], 0, 0)
    everything = neutral(site)
    everything["categories"][0]["threshold"] = 1e-9
    wide = dry_run(site, everything)["categories"][0]
    assert (wide["fired"], wide["joined"], wide["left"]) == (len(PHOTOS), len(PHOTOS) - same["fired"], 0)


def test_a_sample_is_called_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.upload(*PHOTOS)
    told = dry_run(site, neutral(site), limit=2)
    assert (told["judged"], told["items"], told["complete"]) == (2, len(PHOTOS), False)
    assert dry_run(site, neutral(site), limit=len(PHOTOS))["complete"]
    monkeypatch.setattr("indexer.moderation.dry_run._BLOCK", 3)
    monkeypatch.setattr(rescans, "SECONDS", -1.0)
    told = dry_run(site, neutral(site))
    assert (told["judged"], told["complete"]) == (3, False)
    for query in ("limit=0", "limit=200001", "limit=x", "nearest=51", f"limit={'9' * 5000}"):
        problem(site.client.post(f"{DRY_RUN}?{query}", json=neutral(site)), 400, "invalid_request")


def test_precision_and_recall_on_what_people_decided(site: Site) -> None:
    site.put_policy()
    site.upload(*PHOTOS)
    collection = site.services.collection("media")
    stored = policy_of(collection)
    assert stored is not None
    named = {item.record.name: item.id for item in collection.scan()}
    reviews = Reviews(collection, Trail(site.services.settings.data, "media"), stored.policy)
    of_animals = Decision(what="recategorise", categories=("animals",))
    reviews.decide([named["cat"], named["gravel"]], of_animals, who="ann")
    reviews.decide([named["coffee"]], Decision(what="approve"), who="ann")
    told = dry_run(site, neutral(site))
    # Of animals by people are cat and gravel, of which the policy finds the cat; coffee, which it withholds, is approved.
    animals, food = told["categories"][0]["reviewed"], told["categories"][1]["reviewed"]
    assert animals == {"items": 3, "caught": 1, "meant": 2, "precision": 1.0, "recall": 0.5}
    assert food == {"items": 3, "caught": 1, "meant": 0, "precision": 0.0, "recall": None}
    assert told["reviewed"] == {"items": 3, "caught": 2, "meant": 2, "precision": 0.5, "recall": 0.5}
    assert told["changed"] == 0  # what people decided stays
    assert site.rescan() == 0


def test_pictures_that_a_classifier_has_not_seen_are_not_guessed_about(site: Site) -> None:
    site.upload("cat.jpg", "gravel.jpg")
    site.client.post(f"{BASE}/items", json={"items": [{"text": "a harmless text", "id": "text"}]})
    adult = site.client.get("/v1/policies/adult").get_json()["policy"]
    told = dry_run(site, adult)
    assert (told["judged"], told["unscored"]) == (1, 2)
    site.put_policy(adult)
    site.rescan()
    told = dry_run(site, adult)
    assert (told["judged"], told["unscored"], told["changed"]) == (3, 0, 0)


def test_one_dry_run_at_a_time(site: Site) -> None:
    with rescans._running:
        problem(site.client.post(DRY_RUN, json=neutral(site)), 429, "too_busy")
    dry_run(site, neutral(site))


def test_a_rescan_needs_a_policy_and_a_queue(site: Site) -> None:
    problem(site.client.post(f"{BASE}/moderation/rescan"), 404, "policy_not_found")
    site.put_policy()
    problem(site.client.post(f"{BASE}/moderation/rescan"), 503, "broker_unavailable")


def test_a_policy_is_put_in_force_and_workers_judge_what_is_stored(served: Served) -> None:
    red = {"type": "text", "words": ["red"]}
    policy = {"name": "colours", "categories": [{"name": "red", "action": "block", "detectors": [red]}]}
    base = "/v1/collections/judged"
    with httpx.Client(base_url=served.url, headers=served.headers, timeout=60) as client:
        client.put(base)
        client.post(f"{base}/items", json={"items": [{"text": "so red", "id": "r"}, {"text": "blue", "id": "b"}]})

        def over(job: Any) -> bool:
            return bool(client.get(f"/v1/jobs/{job['job']}").json()["state"] == "done")

        def shown() -> list[str]:
            return [each["id"] for each in client.post(f"{base}/search", json={}).json()["results"]]

        put = client.put(f"{base}/policy", json=policy)
        assert put.status_code == 201
        job = put.json()["rescan"]
        assert job["sources"] == ["policy:"]
        until(lambda: over(job))
        assert shown() == ["b"]
        again = client.post(f"{base}/moderation/rescan")
        assert (again.status_code, again.headers["Location"]) == (202, f"/v1/jobs/{again.json()['job']}")
        until(lambda: over(again.json()))
        done = client.get(again.headers["Location"]).json()
        assert (done["indexed"], done["skipped"]) == (0, 2)
        assert client.put(f"{base}/policy", json=policy).json()["rescan"] is None  # nothing changed
        assert client.delete(base).status_code == 204
