"""What people's decisions teach, over HTTP: a policy that is proposed, with pictures, and never put in force."""

import itertools
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from indexer.moderation.policy import Policy
from search_api.moderation import fit
from tests.search_api.moderation.conftest import BASE, Site
from tests.search_api.test_http import problem

FIT = f"{BASE}/moderation/fit"
ANIMALS = ("a cat", "a dog", "a horse", "a cow", "a sheep", "a zebra")
OTHERS = ("a table", "a window", "a street", "a mountain", "a book", "a lamp")
WHERE = ("in the morning", "on a hill", "in the rain", "at home", "by a river", "seen from above")
PROMPTS = {"type": "prompts", "positive": ["an animal"], "items": ["text"]}
POLICY = {
    "name": "pets",
    "categories": [{"name": "animals", "action": "flag", "threshold": 0.99, "detectors": [PROMPTS]}],
}


def texts(what: tuple[str, ...]) -> list[str]:
    return [" ".join(each) for each in itertools.product(what, WHERE)]


@pytest.fixture
def taught(site: Site) -> Iterator[Site]:
    """A collection of 72 texts, of which people said whether they are of animals."""
    site.put_policy(POLICY)
    items = [{"text": text, "id": text} for text in texts(ANIMALS) + texts(OTHERS)]
    assert site.client.post(f"{BASE}/items", json={"items": items}).status_code == 201
    for ids, decision in (
        (texts(ANIMALS), {"what": "recategorise", "categories": ["animals"]}),
        (texts(OTHERS), {"what": "approve"}),
    ):
        body = {"ids": ids, "decision": decision}
        assert site.client.post(f"{BASE}/moderation/review", json=body).status_code == 200
    yield site


def learned(site: Site, **body: Any) -> Any:
    answer = site.client.post(FIT, json=body)
    assert answer.status_code == 200, answer.data
    return answer.get_json()


def test_a_policy_is_proposed_and_not_applied(taught: Site) -> None:
    before = taught.client.get(f"{BASE}/policy").get_json()
    told = learned(taught, precision=0.8)
    assert (told["items"], told["sampled"], told["reviewed"], told["unnamed"]) == (72, 72, 72, 0)
    (animals,) = told["categories"]
    assert (animals["reviewed"], animals["positive"], animals["kinds"]) == (72, 36, ["text"])
    assert animals["base_rate"]["value"] == pytest.approx(0.5, abs=0.05)
    assert animals["recommended"]
    assert told["to"] != told["from"] == before["version"]
    proposed = Policy.model_validate(told["proposed"])
    assert proposed.version == told["to"]
    assert ElementTree.fromstring(told["pictures"]["animals"]).tag.endswith("svg")
    assert taught.client.get(f"{BASE}/policy").get_json() == before
    assert learned(taught, precision=0.8)["proposed"] == told["proposed"]
    assert taught.put_policy(told["proposed"]).status_code == 200
    # With it, what is of animals is found that was not before.
    ran = taught.client.post(f"{BASE}/moderation/dry-run", json=told["proposed"]).get_json()
    run = ran["categories"][0]["reviewed"]
    assert run["recall"] >= 0.8
    assert run["precision"] >= 0.8


def test_rejected_without_a_category_teaches_nothing(taught: Site) -> None:
    ids = texts(ANIMALS)[:30]
    seen = {each["id"]: each["number"] for each in taught.client.get(f"{BASE}/moderation/review").get_json()["items"]}
    body = {"ids": ids, "decision": {"what": "reject"}, "seen": seen}
    assert taught.client.post(f"{BASE}/moderation/review", json=body).status_code == 200
    told = learned(taught)
    assert (told["reviewed"], told["unnamed"]) == (42, 30)
    (animals,) = told["categories"]
    assert "needed" in animals["refused"]
    assert not told["recommended"]
    assert told["pictures"] == {}


def test_a_sample_stands_for_the_collection(taught: Site) -> None:
    told = learned(taught, precision=None, sample=40)
    assert (told["items"], told["sampled"], told["reviewed"], told["goal"]) == (72, 40, 72, "f1")


def test_what_is_asked_for_has_bounds(taught: Site) -> None:
    for body in ({"sample": 0}, {"sample": 50_001}, {"precision": 1}, {"precision": 0}, {"seed": 1}):
        problem(taught.client.post(FIT, json=body), 400, "invalid_request")
    with fit._running:
        problem(taught.client.post(FIT, json={}), 429, "too_busy")


def test_without_a_policy_or_decisions(site: Site) -> None:
    problem(site.client.post(FIT), 404, "policy_not_found")
    site.put_policy(POLICY)
    told = site.client.post(FIT)
    assert told.status_code == 200
    assert (told.get_json()["reviewed"], told.get_json()["recommended"]) == (0, False)
