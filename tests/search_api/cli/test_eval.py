"""`crosslens eval` on a real index: figures, what was not matched, and probabilities that searches then answer with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from indexer.evaluation import fit as fitting
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import Store, open_store
from search_api.cli.eval import evaluate
from search_api.engine import SearchEngine
from search_api.request import SearchRequest
from tests.bundles import COLOURS, picture


@pytest.fixture
def store(settings: Settings, encoder: Encoder, tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "photos").mkdir()
    for colour in COLOURS:
        for mark in range(10):
            (tmp_path / "photos" / f"{colour}-{mark}.png").write_bytes(picture(colour, mark=mark))
    lines = [json.dumps({"text": f"a {colour} photo of {colour}", "id": f"{colour}-words"}) for colour in COLOURS]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    with open_store(settings) as store:
        made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        sources = [str(tmp_path / "photos"), str(tmp_path / "words.jsonl")]
        assert ingest(sources, collection=made, encoder=encoder, settings=settings).failed == 0
        yield store


def run(tmp_path: Path, pairs: list[dict[str, Any]], *options: str, code: int = 0) -> dict[str, Any]:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(pair) for pair in pairs))
    done = CliRunner().invoke(evaluate, [str(path), "--json", *options])
    assert done.exit_code == code, (done.output, done.exception)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def photos(colour: str) -> list[str]:
    return [f"photos/{colour}-{mark}.png" for mark in range(10)]


def test_every_direction_has_its_figures(store: Store, tmp_path: Path) -> None:
    pairs: list[dict[str, Any]] = [{"query": f"a {colour} photo", "relevant": photos(colour)} for colour in COLOURS]
    pairs += [{"query": {"image": photos(c)[0]}, "relevant": [f"{c}-words"]} for c in ("red", "green", "blue")]
    # The picture itself is no answer to itself, its twins are; and a wrong claim is a miss.
    pairs += [{"query": {"image": photos("red")[0]}, "relevant": photos("red")[1:]}]
    pairs += [{"query": {"image": photos("red")[0]}, "relevant": photos("blue")}]
    pairs += [{"query": "red", "relevant": ["nowhere.png", str(tmp_path / photos("red")[0])]}]
    answer = run(tmp_path, pairs, code=1)
    assert answer["unmatched"] == [{"query": "red", "relevant": "nowhere.png"}]
    directions = answer["directions"]
    assert {name: each["pairs"] for name, each in directions.items()} == {
        "text_to_image": 8,
        "image_to_text": 3,
        "image_to_image": 2,
    }
    assert directions["text_to_image"]["recall@10"]["value"] == 1
    assert directions["image_to_text"]["recall@1"] == {"value": 1, "low": 1, "high": 1}
    assert directions["image_to_image"]["recall@1"]["value"] == 0.5
    worst = directions["image_to_image"]["worst"]
    assert [each["rank"] > 1 for each in worst] == [True]
    assert all("red-" in each["source"] and "red-0" not in each["source"] for each in worst[0]["instead"])


def test_fitted_probabilities_are_what_searches_answer(store: Store, encoder: Encoder, tmp_path: Path) -> None:
    pairs = [
        {"query": f"{words} {colour}", "relevant": [photo]}
        for colour in ("red", "green", "blue", "yellow")
        for words, photo in zip(["a", "photo", "a photo", "of"] * 3, photos(colour), strict=False)
    ]
    answer = run(tmp_path, pairs, "--fit")
    fitted = answer["fitted"]["text_to_image"]
    assert fitted["log_loss"] < fitted["log_loss_of_base_rate"]
    collection = store.get("media")
    kept = collection.metadata["calibration"]["text_to_image"]
    assert kept.keys() == {"scale", "bias", "fitted_on"}
    found = SearchEngine(encoder, collection, max_pixels=10**6).search(
        SearchRequest.parse({"query": [{"text": "red"}], "kind": "image", "limit": 3})
    )
    assert found.relevance_from == {"text_to_image": "fitted"}
    expected = 1 / (1 + np.exp(-(kept["scale"] * found.results[0].score + kept["bias"])))  # type: ignore[operator]
    assert found.results[0].relevance == pytest.approx(expected, abs=1e-4)


def test_what_else_a_pair_names_is_no_counterexample(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[int, int]] = []
    scored_of = fitting.scored_of

    def counted(vectors: Any, positives: Any, others: Any) -> fitting.Scored:
        counts.extend((len(right), len(wrong)) for right, wrong in zip(positives, others, strict=True))
        return scored_of(vectors, positives, others)

    monkeypatch.setattr(fitting, "scored_of", counted)
    run(tmp_path, [{"query": f"{colour} photo", "relevant": photos(colour)} for colour in COLOURS] * 5, "--fit")
    assert set(counts) == {(10, 60)}


def test_too_few_pairs_are_measured_and_not_fitted(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"query": "red", "relevant": photos("red")}))
    done = CliRunner().invoke(evaluate, [str(path), "--fit"])
    assert "too few" in str(done.exception)
    assert "calibration" not in store.get("media").metadata
    table = CliRunner().invoke(evaluate, [str(path)])
    assert table.exit_code == 0
    assert "recall@10" in table.output


def test_nothing_to_match_is_a_failure(store: Store, tmp_path: Path) -> None:
    answer = run(tmp_path, [{"query": "red", "relevant": ["gone.png"]}], code=1)
    assert answer["directions"] == {}
