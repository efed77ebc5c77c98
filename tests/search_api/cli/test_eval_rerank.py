"""`crosslens eval --rerank`: a model that helps is recommended, and none that does not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from indexer.errors import NoReranker
from indexer.evaluation.gain import LEAST_PAIRS, Gain, gains
from indexer.evaluation.measure import Measured, Ranked, gain_of, metrics_of, one_a_file
from indexer.items import Kind, Location, Record, now
from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import Hit, open_store
from search_api.cli.eval import evaluate
from tests.rerankers import make_text_reranker
from tests.search_api.compositions import COMPOSITIONS, as_file, drawn, held_out, make_matcher, words


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, colours: Path, encoder: Encoder) -> Path:
    """A data folder with a picture of each composition, drawn as none was for training."""
    home = tmp_path_factory.mktemp("compositions")
    chance = np.random.default_rng(99)
    (home / "photos").mkdir()
    for composition in COMPOSITIONS:
        (home / "photos" / f"{words(composition)}.png").write_bytes(as_file(drawn(composition, chance)))
    settings = Settings(data=home / "data", model=str(colours))
    with open_store(settings) as store:
        made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        assert ingest([str(home / "photos")], collection=made, encoder=encoder, settings=settings).failed == 0
    return home


@pytest.fixture
def home(filled: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CROSSLENS_DATA", str(filled / "data"))
    monkeypatch.setenv("CROSSLENS_MODEL", str(colours))
    yield filled


def run(home: Path, model: Path | None, pairs: list[dict[str, Any]], *options: str) -> Result:
    (home / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs))
    environment = {"CROSSLENS_RERANKER": str(model)} if model is not None else {}
    return CliRunner().invoke(evaluate, [str(home / "pairs.jsonl"), "--rerank", *options], env=environment)


def photo(composition: Any) -> str:
    return f"photos/{words(composition)}.png"


def measured(home: Path, model: Path, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    done = run(home, model, pairs, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["reranking"]["top"] == 50
    (direction,) = answer["reranking"]["directions"]
    assert direction == "text_to_image"
    found: dict[str, Any] = answer["reranking"]["directions"][direction]
    assert found["before"] == {name: answer["directions"][direction][name] for name in found["before"]}
    return found


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, trained on what is not held out."""
    return make_matcher(tmp_path_factory.mktemp("matcher"))


@pytest.fixture
def pairs() -> list[dict[str, Any]]:
    """Compositions that no training saw."""
    return [{"query": words(each), "relevant": [photo(each)]} for each in held_out()]


def test_a_model_that_puts_parts_together_finds_compositions_it_never_saw(
    home: Path, matcher: Path, pairs: list[dict[str, Any]]
) -> None:
    found = measured(home, matcher, pairs)
    assert found["pairs"] == len(pairs) >= LEAST_PAIRS
    assert found["before"]["recall@1"]["high"] < 0.4  # colours alone leave it among nine or more
    assert found["after"]["recall@1"]["value"] > 0.8
    # Whatever is among the fifty that the embedding finds comes first.
    assert found["after"]["recall@1"] == found["after"]["recall@10"]
    assert found["gain"]["recall@1"]["low"] > 0.4
    assert found["recommended"] is True
    assert found["verdict"].startswith("recommended: R@1 changes by +0.")
    table = run(home, matcher, pairs)
    assert table.exit_code == 0
    assert "reranked: recommended" in " ".join(table.output.split())


def test_noise_is_not_recommended(home: Path, tmp_path: Path, pairs: list[dict[str, Any]]) -> None:
    # What the embedding finds: the pictures of these two colours, any of which is right.
    of_two = [
        {"query": words(each), "relevant": [photo(other) for other in COMPOSITIONS if colours(other) == colours(each)]}
        for each in COMPOSITIONS[::3]
    ]
    noise = make_matcher(tmp_path, noise=True)
    worse = measured(home, noise, of_two)
    assert worse["before"]["recall@1"]["value"] > 0.7
    assert worse["gain"]["recall@1"]["high"] < 0
    assert worse["recommended"] is False
    assert worse["verdict"].startswith("not recommended: R@1 changes by -")
    assert worse["verdict"].endswith("it makes answers worse")
    assert measured(home, noise, pairs)["recommended"] is False
    table = run(home, noise, of_two)
    assert table.exit_code == 0
    assert "not recommended" in " ".join(table.output.split())


def colours(composition: Any) -> set[str]:
    return {colour for colour, _ in composition}


def test_few_pairs_recommend_nothing(home: Path, matcher: Path, pairs: list[dict[str, Any]]) -> None:
    found = measured(home, matcher, pairs[:5])
    assert found["gain"]["recall@1"]["value"] > 0
    assert found["recommended"] is False
    assert "5 pairs are too few to tell" in found["verdict"]


def test_without_a_model_or_a_text_it_is_refused(home: Path, tmp_path: Path, pairs: list[dict[str, Any]]) -> None:
    done = run(home, None, pairs)
    assert isinstance(done.exception, NoReranker)
    assert "crosslens models export blip2-itm" in done.exception.remedy
    made = make_text_reranker(tmp_path)
    assert isinstance(run(home, made, pairs).exception, NoReranker)  # it compares texts with texts
    by_picture = [{"query": {"image": photo(COMPOSITIONS[0])}, "relevant": [photo(COMPOSITIONS[1])]}]
    assert "no pair's query is a text" in str(run(home, matcher, by_picture).exception)


def of_ranks(*ranks: int | None) -> Measured:
    return Measured("text_to_image", [Ranked(at, rank, []) for at, rank in enumerate(ranks)], metrics_of(list(ranks)))


def test_the_bootstrap_is_paired() -> None:
    # Each query rises by the same: however different the queries, there is no doubt about that.
    before: list[int | None] = [1, 2, 3, 50, None] * 20
    gained = gain_of(before, before)
    assert all((each.value, each.low, each.high) == (0, 0, 0) for each in gained.values())
    gained = gain_of([2] * 40, [1] * 40)
    assert (gained["recall@1"].value, gained["recall@1"].low) == (1, 1)
    assert gained["recall@5"].value == 0
    assert gained["mrr"].value == pytest.approx(0.5)
    gained = gain_of([1, 2] * 50, [2, 1] * 50)
    assert gained["recall@1"].value == 0
    assert gained["recall@1"].low < 0 < gained["recall@1"].high


@pytest.mark.parametrize(
    ("before", "after", "recommended", "why"),
    [
        ([2] * 40, [1] * 40, True, "recommended: R@1 changes by +1.000 (+1.000 to +1.000)"),
        ([1] * 40, [2] * 40, False, "it makes answers worse"),
        ([1, 2] * 20, [1, 2] * 20, False, "no gain"),
        ([2] * 40, [1] + [2] * 39, False, "which may be chance"),
        ([2] * (LEAST_PAIRS - 1), [1] * (LEAST_PAIRS - 1), False, "too few to tell"),
        ([2] * LEAST_PAIRS, [1] * LEAST_PAIRS, True, "recommended"),
    ],
)
def test_what_is_recommended(before: list[int], after: list[int], recommended: bool, why: str) -> None:
    (gain,) = gains([of_ranks(*before)], [of_ranks(*after)])
    assert isinstance(gain, Gain)
    assert gain.is_recommended is recommended
    assert why in gain.verdict
    assert gain.verdict.startswith("recommended" if recommended else "not recommended")
    assert gain.as_dict()["recommended"] is recommended


def test_directions_that_were_not_reranked_are_left_out() -> None:
    other = Measured("image_to_image", [Ranked(0, 1, [])], metrics_of([1]))
    assert [each.direction for each in gains([of_ranks(1), other], [of_ranks(1)])] == ["text_to_image"]


def test_of_a_video_the_best_frame_counts_once() -> None:
    def hit(name: str, parent: str | None = None) -> Hit:
        locations = [Location(source=name)]
        record = Record(
            kind=Kind.VIDEO, sha256="0" * 64, locations=locations, bytes=1, media_type="video/mp4", parent=parent,
            added_at=now(),
        )  # fmt: skip
        return Hit(name, record, {}, 0.5)

    found = [hit("a2", "a"), hit("b"), hit("a", "a"), hit("c1", "c"), hit("a3", "a")]
    assert [each.id for each in one_a_file(found)] == ["a2", "b", "c1"]
