"""Mixed queries: terms of different modality count alike; shares, diversity, collapse and relevance mean what they say."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from indexer.models.encoder import TextEmbeddings
from indexer.models.manifest import Calibration, Manifest, Padding, TextRecipe
from indexer.settings import Settings
from indexer.store import Collection, Store, open_store
from indexer.store.collection import Point
from search_api.background import EVERYDAY
from search_api.diversity import diverse_order
from search_api.engine import SearchEngine
from search_api.request import SearchRequest
from tests.search_api.test_pages import point

DIMENSION = 64
TOPICS = 8


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def direction(topic: int) -> np.ndarray:
    return np.eye(DIMENSION)[topic]


IMAGES_APART = np.eye(DIMENSION)[20]
TEXTS_APART = np.eye(DIMENSION)[21]


def as_image(*topics: int, seed: int = 0, strength: float = 1.0) -> np.ndarray:
    """A picture of topics: photos share a direction of their own, and what they show is strong in them."""
    noise = np.random.default_rng(seed).normal(size=DIMENSION) * 0.04
    return unit(IMAGES_APART * 0.8 + strength * sum(direction(topic) for topic in topics) + noise)


def as_text(topic: int) -> np.ndarray:
    """A text of a topic: far from all photos, with little of the topic, as a modality gap has it."""
    noise = np.random.default_rng(1000 + topic).normal(size=DIMENSION) * 0.02
    return unit(TEXTS_APART + 0.2 * direction(topic) + noise)


@dataclass
class GapEncoder:
    """An encoder with a modality gap. A text is the number of its topic."""

    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def devices(self) -> dict[str, str]:
        return {"text": "cpu"}

    def encode_texts(self, texts: list[str]) -> TextEmbeddings:
        topics = [int(text) if text.isdigit() else 30 + EVERYDAY.index(text) % 30 for text in texts]
        return TextEmbeddings(np.stack([as_text(topic) for topic in topics]), [False] * len(texts))


def gap_manifest(**more: object) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "gap", "family": "test", "description": "", "dimension": DIMENSION, "precision": {"text": "fp32"},
            "text": TextRecipe(context_length=8, padding=Padding.FIXED), "source": "", "licence": "CC0-1.0",
            "files": {}, **more,
        }
    )  # fmt: skip


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings) as opened:
        yield opened


@pytest.fixture
def collection(store: Store) -> Collection:
    """Photos of two topics each, ten of every pair, named by it."""
    made = store.create("media", "gap", gap_manifest().fingerprint, DIMENSION)
    pairs = [(one, other) for one in range(TOPICS) for other in range(one + 1, TOPICS)]
    points = []
    for number, (one, other) in enumerate(pairs * 10):
        blank = point(number, DIMENSION, pair=f"{one}-{other}")
        points.append(Point(blank.id, as_image(one, other, seed=number), blank.payload))
    made.upsert(points)
    return made


def search(collection: Collection, body: dict, manifest: Manifest | None = None):  # type: ignore[no-untyped-def]
    engine = SearchEngine(GapEncoder(manifest or gap_manifest()), collection, max_pixels=1)
    return engine.search(SearchRequest.parse({"kind": "image", **body}))


def image_term(*topics: int, **more: object) -> dict:
    return {"vector": as_image(*topics, seed=77).tolist(), "modality": "image", **more}


def test_an_image_does_not_drown_a_text(collection: Collection) -> None:
    """A picture of topic 0 and a text of topic 5 find what shows both; in a plain sum the picture decides alone."""
    answer = search(collection, {"query": [image_term(0), {"text": "5"}], "limit": 10})
    assert {result.payload["pair"] for result in answer.results} == {"0-5"}
    plain = unit(as_image(0, seed=77) + as_text(5))
    found = search(collection, {"query": [{"vector": plain.tolist()}], "limit": 10})
    assert {result.payload["pair"] for result in found.results} != {"0-5"}


def test_weights_and_negative_terms_hold_across_modalities(collection: Collection) -> None:
    pairs = [
        [result.payload["pair"] for result in search(collection, {"query": query, "limit": 30}).results]
        for query in (
            [image_term(0), {"text": "5", "weight": 6}],
            [image_term(0), {"text": "5", "weight": -1}],
        )
    ]
    assert sum("5" in pair for pair in pairs[0]) == 30
    assert not any("5" in pair for pair in pairs[1])
    assert all("0" in pair for pair in pairs[1])


@pytest.mark.parametrize("weight", [5e-324, -5e-324, 1e-300, 1e-40])  # float32 has none of them
def test_only_the_ratio_of_weights_counts(collection: Collection, weight: float) -> None:
    alone, mixed = [{"text": "1"}], [{"text": "1"}, image_term(2)]
    for terms in (alone, mixed) if abs(weight) > 5e-324 else (alone,):  # the least has not the digits for two terms
        sign = np.sign(weight)
        small = search(collection, {"query": [{**term, "weight": weight} for term in terms], "limit": 5})
        plain = search(collection, {"query": [{**term, "weight": float(sign)} for term in terms], "limit": 5})
        assert [each.id for each in small.results] == [each.id for each in plain.results]
        assert [each.score for each in small.results] == pytest.approx([each.score for each in plain.results])


def test_explain_gives_each_terms_share(collection: Collection) -> None:
    answer = search(collection, {"query": [image_term(0), {"text": "5"}], "limit": 200 // 2, "explain": True})
    for result in answer.results:
        shares = {each["term"]: each["share"] for each in result.explanation}
        assert shares.keys() == {"vector", "5"}
        assert sum(abs(share) for share in shares.values()) == pytest.approx(1, abs=1e-3)
    best = {each["term"]: each["share"] for each in answer.results[0].explanation}
    assert min(best.values()) > 0.3
    half = next(
        result for result in answer.results if "0" in result.payload["pair"] and "5" not in result.payload["pair"]
    )
    shares = {each["term"]: each["share"] for each in half.explanation}
    assert shares["vector"] > 0.6 > shares["5"]


def test_likes_and_dislikes(collection: Collection) -> None:
    by_pair = {item.payload["pair"]: item.id for item in collection.scan()}
    liked = {"like": [by_pair["0-1"], by_pair["0-2"]], "limit": 20}
    found = [result.payload["pair"] for result in search(collection, liked).results]
    assert all("0" in pair for pair in found)
    away = [result.payload["pair"] for result in search(collection, {**liked, "dislike": [by_pair["1-2"]]}).results]
    assert sum(pair in {"0-1", "0-2"} for pair in away) < sum(pair in {"0-1", "0-2"} for pair in found)
    assert not {by_pair["0-1"], by_pair["0-2"]} & {result.id for result in search(collection, liked).results}


def test_diversity_covers_more_topics(collection: Collection) -> None:
    def pairs(diversity: float) -> int:
        answer = search(collection, {"query": [image_term(0)], "limit": 10, "diversity": diversity})
        return len({result.payload["pair"] for result in answer.results})

    assert pairs(0) < pairs(0.5) <= pairs(0.9)


def test_diverse_order_is_the_scores_at_zero_and_begins_with_the_best() -> None:
    chance = np.random.default_rng(0)
    vectors = np.stack([unit(row) for row in chance.normal(size=(50, 8))])
    scores = chance.uniform(size=50).astype(np.float32)
    assert diverse_order(scores, vectors, 0.0) == np.argsort(-scores, kind="stable").tolist()
    for diversity in (0.3, 1.0):
        order = diverse_order(scores, vectors, diversity)
        assert order[0] == int(np.argmax(scores))
        assert sorted(order) == list(range(50))


def test_three_notions_of_the_same(store: Store) -> None:
    made = store.create("twins", "gap", gap_manifest().fingerprint, DIMENSION)
    vectors = [as_image(0, 1, seed=1), as_image(0, 1, seed=1), as_image(2, 3, seed=2), as_image(4, 5, seed=3)]
    hashes = ["aa", "bb", "aa", "cc"]
    pictures = ["0" * 64, "f" * 64, "0" * 63 + "1", "f" * 63 + "0"]
    points = []
    for number, (vector, sha256, pdq) in enumerate(zip(vectors, hashes, pictures, strict=True)):
        blank = point(number, DIMENSION)
        record = {**blank.payload["crosslens"], "sha256": sha256, "pdq": pdq}
        points.append(Point(blank.id, vector, {**blank.payload, "crosslens": record}))
    made.upsert(points)

    def numbers(*collapse: str) -> set[int]:
        answer = search(made, {"query": [image_term(0, 1, 2)], "collapse": list(collapse)})
        return {result.payload["number"] for result in answer.results}

    assert numbers() == {0, 1, 2, 3}
    assert len(numbers("bytes")) == 3
    assert len(numbers("bytes") & {0, 2}) == 1
    assert len(numbers("alike")) == 3
    assert len(numbers("alike") & {0, 1}) == 1
    assert len(numbers("picture")) == 2
    assert len(numbers("bytes", "alike", "picture")) <= 2


class TestRelevance:
    def test_the_models_own_calibration_counts(self, collection: Collection) -> None:
        own = gap_manifest(calibration={"text_to_image": Calibration(scale=40.0, bias=-6.0, fitted_on="this test")})
        answer = search(collection, {"query": [{"text": "5"}]}, own)
        first = answer.results[0]
        assert first.relevance == pytest.approx(1 / (1 + np.exp(-(40 * first.score - 6))), abs=1e-4)
        assert answer.relevance_from == {"text_to_image": "model"}

    def test_a_sigmoid_loss_is_its_own_calibration(self, collection: Collection) -> None:
        answer = search(collection, {"query": [{"text": "5"}]}, gap_manifest(logit_scale=100.0, logit_bias=-15.0))
        first = answer.results[0]
        assert first.relevance == pytest.approx(1 / (1 + np.exp(-(100 * first.score - 15))), abs=1e-4)

    def test_the_background_tells_what_is_unlike_the_rest(self, collection: Collection) -> None:
        rare = point(9999, DIMENSION, pair="rare")
        collection.upsert([Point(rare.id, as_image(12), rare.payload)])
        answer = search(collection, {"query": [image_term(12)], "limit": 100})
        assert answer.relevance_from == {"image_to_image": "background"}
        relevances = [result.relevance for result in answer.results]
        assert relevances == sorted(relevances, reverse=True)
        assert answer.results[0].payload["pair"] == "rare"
        assert relevances[0] > 0.9
        assert relevances[1] < 0.5
        nothing = search(collection, {"query": [{"vector": direction(40).tolist(), "modality": "text"}]})
        assert max(result.relevance for result in nothing.results) < 0.5

    def test_an_empty_answer_is_an_answer(self, collection: Collection) -> None:
        own = gap_manifest(calibration={"text_to_image": Calibration(scale=40.0, bias=-6.0, fitted_on="this test")})
        answer = search(collection, {"query": [{"text": "5"}], "min_relevance": 0.999}, own)
        assert (answer.results, answer.cursor) == ([], None)
        some = search(collection, {"query": [{"text": "5"}], "limit": 100}, own)
        line = sorted(result.relevance for result in some.results)[50]
        answer = search(collection, {"query": [{"text": "5"}], "limit": 100, "min_relevance": line}, own)
        assert len(answer.results) == 50
        assert min(result.relevance for result in answer.results) >= line

    def test_a_mixture_is_as_relevant_as_its_least_fitting_term(self, collection: Collection) -> None:
        both = {"scale": 40.0, "bias": -6.0, "fitted_on": "this test"}
        own = gap_manifest(calibration={"text_to_image": both, "image_to_image": both})
        answer = search(collection, {"query": [image_term(0), {"text": "5"}], "explain": True}, own)
        for result in answer.results:
            least = min(each["cosine"] for each in result.explanation)
            assert result.relevance == pytest.approx(1 / (1 + np.exp(-(40 * least - 6))), abs=1e-3)
