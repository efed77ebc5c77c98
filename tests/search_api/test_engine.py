"""The engine on a real index: what is asked is found, mixtures mean something, the wrong model is refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from indexer.errors import FetchFailed, InvalidRequest, InvalidVector, ItemNotFound, MediaError, ModelMismatch
from indexer.items import Kind
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import Collection, open_store
from search_api.batched import BatchedEncoder
from search_api.engine import SearchEngine
from search_api.request import SearchRequest
from tests.bundles import COLOURS, make_bundle, picture


@pytest.fixture
def collection(settings: Settings, encoder: Encoder, tmp_path: Path) -> Iterator[Collection]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(picture(colour))
    (tmp_path / "captions.jsonl").write_text(
        '{"text": "all is red", "id": "red-words", "payload": {"tags": "warm"}}\n{"text": "a blue photo"}\n'
    )
    with open_store(settings) as store:
        made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        sources = [str(folder), str(tmp_path / "captions.jsonl")]
        assert ingest(sources, collection=made, encoder=encoder, settings=settings).failed == 0
        yield made


@pytest.fixture
def engine(collection: Collection, encoder: Encoder) -> SearchEngine:
    return SearchEngine(encoder, collection, max_pixels=10**6)


def found(engine: SearchEngine, *terms: dict[str, object], **more: object) -> list[str]:
    answer = engine.search(SearchRequest.parse({"query": list(terms), **more}))
    return [
        Path(result.source).stem if result.record.kind is Kind.IMAGE else str(result.record.text)
        for result in answer.results
    ]


def test_words_find_pictures_and_pictures_find_words(engine: SearchEngine) -> None:
    for colour in COLOURS:
        assert found(engine, {"text": f"a {colour} photo"}, kind="image", limit=1) == [colour]
    assert found(engine, {"image": picture("red", mark=3)}, kind="text", limit=1) == ["all is red"]
    assert found(engine, {"image": picture("blue", (10, 90))}, kind="image", limit=1) == ["blue"]


def test_both_kinds_take_turns_the_best_picture_first(engine: SearchEngine) -> None:
    assert found(engine, {"text": "red"}, limit=4)[:2] == ["red", "all is red"]


def test_a_mixture_lies_between_and_a_negative_weight_leads_away(engine: SearchEngine) -> None:
    assert found(engine, {"image": picture("red")}, {"text": "green"}, kind="image", limit=1) == ["yellow"]
    assert found(engine, {"text": "yellow"}, {"text": "red", "weight": -1}, kind="image", limit=1) == ["green"]


def test_an_item_finds_its_like_but_not_itself(engine: SearchEngine) -> None:
    assert "all is red" not in found(engine, {"item": "red-words"}, limit=10)
    assert found(engine, {"item": "red-words"}, kind="image", limit=1) == ["red"]
    with pytest.raises(ItemNotFound):
        found(engine, {"item": "nobody"})


def test_filters_and_vectors(engine: SearchEngine, encoder: Encoder) -> None:
    warm = {"must": [{"key": "tags", "match": {"value": "warm"}}]}
    assert found(engine, {"text": "blue"}, filter=warm) == ["all is red"]
    vector = (3 * encoder.encode_texts(["green"]).vectors[0]).tolist()
    assert found(engine, {"vector": vector}, kind="image", limit=1) == ["green"]
    for wrong in ([1.0] * 3, [0.0] * encoder.dimension):
        with pytest.raises(InvalidVector):
            found(engine, {"vector": wrong})
    with pytest.raises(InvalidRequest):
        found(engine, {"text": "x"}, filter={"must": [{"key": "tags", "match": {"wrong": 1}}]})
    with pytest.raises(InvalidRequest, match="cancel"):
        found(engine, {"text": "red"}, {"text": "red", "weight": -1})
    with pytest.raises(MediaError):
        found(engine, {"image": b"no picture"})


def test_urls_of_all_searches_are_fetched_together_and_an_error_names_its_term(
    collection: Collection, encoder: Encoder
) -> None:
    asked: list[list[str]] = []

    def fetch(urls: Sequence[str]) -> list[bytes | MediaError]:
        asked.append(list(urls))
        names = [url.rsplit("/", 1)[1] for url in urls]
        broken = {"gone": FetchFailed("example.org answers 404."), "text": b"no picture"}
        return [broken[name] if name in broken else picture(name) for name in names]

    engine = SearchEngine(encoder, collection, max_pixels=10**6, fetch=fetch)
    requests = [
        SearchRequest.parse({"query": [{"text": "red"}, {"image": f"https://example.org/{colour}"}], "kind": "image"})
        for colour in ("green", "blue")
    ]
    answers = engine.search_many(requests)
    assert asked == [["https://example.org/green", "https://example.org/blue"]]
    assert [Path(answer.results[0].source).stem for answer in answers] == ["yellow", "purple"]

    for name, url, error in (("gone", "gone", FetchFailed), ("text", "text", MediaError)):
        with pytest.raises(error) as caught:
            found(
                engine,
                {"image": picture("red")},
                {"image": "https://example.org/red"},
                {"image": f"https://e.org/{url}"},
            )
        assert caught.value.message.startswith("query.2: "), name
        assert caught.value.details["field"] == "query.2"
    with pytest.raises(FetchFailed, match=r"searches\.1\.query\.0: "):
        engine.search_many([requests[0], SearchRequest.parse({"query": [{"image": "https://e.org/gone"}]})])
    with pytest.raises(InvalidRequest, match="not fetched here"):
        found(SearchEngine(encoder, collection, max_pixels=10**6), {"image": "https://e.org/red"})


def test_a_language_that_the_model_was_not_made_for_is_said(collection: Collection, encoder: Encoder) -> None:
    def warnings(languages: Any, *texts: str) -> list[str]:
        engine = SearchEngine(encoder, collection, max_pixels=10**6)
        manifest = encoder.manifest.model_copy(update={"languages": languages})
        with mock.patch.object(type(encoder), "manifest", manifest):
            return engine.search(SearchRequest.parse({"query": [{"text": text} for text in texts]})).warnings

    german = "ein roter Hund läuft am Strand"
    for known in (None, "any", ("en", "de")):
        assert warnings(known, german) == []
    assert warnings(("en",), "a red dog runs along the beach") == []
    (warning,) = warnings(("en",), german, "red", german)
    assert warning.startswith(f"The text '{german}' looks like German; the model 'colours' was made for English: ")
    assert "crosslens models list" in warning


def test_relevance_and_warnings(engine: SearchEngine) -> None:
    answer = engine.search(SearchRequest.parse({"query": [{"text": "red " * 40}], "kind": "image"}))
    assert "cut off" in answer.warnings[0]
    relevances = [result.relevance for result in answer.results]
    assert relevances == sorted(relevances, reverse=True)
    assert all(relevance is not None and 0 < relevance < 1 for relevance in relevances)
    uncalibrated = engine.search(SearchRequest.parse({"query": [{"image": picture("red")}], "kind": "image"}))
    assert {result.relevance for result in uncalibrated.results} == {None}  # too few items to say


def test_another_vector_space_is_refused(collection: Collection, tmp_path: Path) -> None:
    other = Encoder(load_bundle(make_bundle(tmp_path, "other", twist=1.0)))
    with pytest.raises(ModelMismatch):
        SearchEngine(other, collection, max_pixels=10**6)


def test_shared_runs_give_the_same_vectors(encoder: Encoder) -> None:
    texts = [f"a {colour} photo" for colour in COLOURS]
    with BatchedEncoder(encoder) as batched:
        assert np.allclose(batched.encode_texts(texts).vectors, encoder.encode_texts(texts).vectors, atol=1e-6)
        assert batched.encode_texts([]).vectors.shape == (0, encoder.dimension)
        assert batched.encode_texts(["red " * 40]).truncated == [True]


def test_a_text_that_was_asked_for_is_remembered_and_the_oldest_forgotten(encoder: Encoder, monkeypatch) -> None:
    monkeypatch.setattr("search_api.batched.REMEMBERED", 2)
    with BatchedEncoder(encoder) as batched:
        asked: list[str] = []
        run = batched._encoder.encode_texts
        monkeypatch.setattr(batched._encoder, "encode_texts", lambda texts: asked.extend(texts) or run(texts))
        for text in ("red", "blue", "red", "green", "red", "blue"):
            assert np.allclose(batched.encode_texts([text]).vectors, run([text]).vectors, atol=1e-6)
        assert asked == ["red", "blue", "green", "blue"]
        assert batched.encode_texts(["red", "red"]).vectors.shape == (2, encoder.dimension)
