"""What visitors search with, judged where a policy says so."""

import base64
import io
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.errors import UrlRefused
from search_api.moderation import queries
from search_api.services import Services
from tests.search_api.moderation.conftest import BASE, MEDIA, Site
from tests.search_api.test_http import problem

SEARCH = f"{BASE}/search"
WORDS = {
    "name": "words",
    "categories": [
        {"name": "secret", "action": "block", "detectors": [{"type": "text", "words": ["swordfish"]}]},
        {"name": "mild", "action": "flag", "detectors": [{"type": "text", "words": ["swordfish", "mackerel"]}]},
    ],
}


def by_text(text: str, **more: Any) -> dict[str, Any]:
    return {"query": [{"text": text, **more}], "limit": 5}


def picture_of(name: str) -> str:
    return base64.b64encode((MEDIA / name).read_bytes()).decode()


def test_a_text_that_the_policy_blocks_is_refused_with_its_categories_alone(site: Site) -> None:
    site.put_policy(WORDS, queries="true")
    body = problem(site.client.post(SEARCH, json=by_text("where is the swordfish")), 403, "query_blocked")
    assert body["categories"] == ["secret"]
    assert "swordfish" not in str(body)
    for harmless in (by_text("a tuna"), by_text("mackerel"), {"limit": 3}):
        assert site.client.post(SEARCH, json=harmless).status_code == 200
    batch = {"searches": [by_text("a tuna"), by_text("swordfish")]}
    problem(site.client.post(f"{SEARCH}/batch", json=batch), 403, "query_blocked")
    assert site.client.post(f"{SEARCH}/batch", json={"searches": [by_text("a tuna")]}).status_code == 200


def test_who_asks_for_less_of_it_or_as_a_moderator_is_answered(site: Site) -> None:
    site.put_policy(WORDS, queries="true")
    less = {"query": [{"text": "the sea"}, {"text": "swordfish", "weight": -0.5}]}
    assert site.client.post(SEARCH, json=less).status_code == 200
    assert site.client.post(f"{SEARCH}?view=moderator", json=by_text("swordfish")).status_code == 200


def test_pictures_are_judged_too(site: Site) -> None:
    site.put_policy(queries="true")  # animals are blocked, food is held back, vehicles are blurred
    for image, categories in (("cat.jpg", ["animals"]), ("coffee.webp", ["food"])):
        answer = site.client.post(SEARCH, json={"query": [{"image": picture_of(image)}]})
        assert problem(answer, 403, "query_blocked")["categories"] == categories
        form = {"picture": (io.BytesIO((MEDIA / image).read_bytes()), image)}
        problem(site.client.post(SEARCH, data=form), 403, "query_blocked")
    for image in ("rocket.jpg", "gravel.jpg"):
        assert site.client.post(SEARCH, json={"query": [{"image": picture_of(image)}]}).status_code == 200
    junk = {"query": [{"text": "sand"}, {"image": base64.b64encode(b"no picture").decode()}]}
    assert problem(site.client.post(SEARCH, json=junk), 422, "not_an_image")["field"] == "query.1"


def test_what_a_url_gives_is_fetched_once_and_judged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[list[str]] = []

    def fetch_all(self: Services, urls: list[str]) -> list[Any]:
        fetched.append(list(urls))
        # The second time it would be another picture.
        name = "gravel.jpg" if len(fetched) == 1 else "cat.jpg"
        return [(MEDIA / name).read_bytes() if "ok" in url else UrlRefused("no") for url in urls]

    monkeypatch.setattr(Services, "fetch_all", fetch_all)
    site.put_policy(queries="true")
    asked = {"query": [{"image": "http://photos.test/ok.jpg"}, {"text": "stones"}]}
    assert site.client.post(SEARCH, json=asked).status_code == 200
    assert fetched == [["http://photos.test/ok.jpg"]]
    problem(site.client.post(SEARCH, json=asked), 403, "query_blocked")
    wrong = {"searches": [by_text("stones"), {"query": [{"image": "http://photos.test/x"}]}]}
    answer = site.client.post(f"{SEARCH}/batch", json=wrong)
    assert answer.get_json(force=True)["field"] == "searches.1.query.0"


def test_without_such_a_policy_nothing_is_judged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("nothing is to be judged")

    monkeypatch.setattr(queries, "_check", fail)
    monkeypatch.setattr(queries, "_fetched", fail)
    assert site.client.post(SEARCH, json=by_text("swordfish")).status_code == 200
    site.put_policy(WORDS)
    assert site.client.post(SEARCH, json=by_text("swordfish")).status_code == 200


def test_it_takes_effect_at_once_and_is_switched_off(site: Site) -> None:
    assert site.client.post(SEARCH, json=by_text("swordfish")).status_code == 200
    site.put_policy(WORDS, queries="true")
    problem(site.client.post(SEARCH, json=by_text("swordfish")), 403, "query_blocked")
    site.put_policy(WORDS, queries="false")
    assert site.client.post(SEARCH, json=by_text("swordfish")).status_code == 200


def test_a_policy_that_cannot_judge_lets_nothing_through(site: Site) -> None:
    site.client.put(f"{BASE}/hash-lists/known", data=f"hash,type\n{'a' * 64},pdq\n", content_type="text/csv")
    by_hash = {
        "name": "h",
        "categories": [{"name": "k", "action": "block", "detectors": [{"type": "hash", "list": "known"}]}],
    }
    site.put_policy(by_hash, queries="true")
    assert site.client.post(SEARCH, json=by_text("a tuna")).status_code == 200
    site.client.delete(f"{BASE}/hash-lists/known")
    body = problem(site.client.post(SEARCH, json=by_text("a tuna")), 403, "query_blocked")
    assert body["categories"] == []


@pytest.mark.parametrize("content", [False, True])
def test_it_is_logged_with_the_content_only_if_so_set(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, content: bool
) -> None:
    settings = site.services.settings.model_copy(update={"log_blocked_queries": content})
    monkeypatch.setattr(site.services, "settings", settings)
    site.put_policy(WORDS, queries="true")
    with capture_logs() as logs:
        site.client.post(SEARCH, json=by_text("my swordfish"))
    noted = [line for line in logs if line["event"] == "query blocked"]
    assert [(line["collection"], line["categories"], line["key"]) for line in noted] == [("media", ["secret"], "local")]
    assert ("my swordfish" in str(logs)) == content
    assert noted[0].get("queries") == (["my swordfish"] if content else None)
