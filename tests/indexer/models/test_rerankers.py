"""Rerank bundles: found beside encoders, run in batches that change nothing, believed where the golden scores say so."""

import io
import json
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from indexer.cli import main
from indexer.errors import BundleNotFound, GoldenMismatch, InvalidBundle, ModelError, NoFeatures, NoReranker
from indexer.models.bundle import find_bundle, list_bundles, published_files
from indexer.models.manifest import write_manifest
from indexer.models.rerank import graphs as rerank_graphs
from indexer.models.rerank.bundle import find_rerank_bundle, list_rerank_bundles, load_rerank_bundle
from indexer.models.rerank.golden import check_golden_pairs
from indexer.models.rerank.loading import load_reranker, load_text_reranker
from indexer.models.rerank.reranker import Features, Reranker, TextReranker
from indexer.models.sessions import Graph
from indexer.settings import Settings
from tests.bundles import make_bundle
from tests.rerankers import DEPTH, QUERIES, TOKENS, WIDTH, halves, make_reranker, make_text_reranker

PAIRS = [("red", "blue"), ("blue", "red"), ("green", "green"), ("white", "black"), ("yellow", "purple")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker(tmp_path_factory.mktemp("rerankers"))


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_reranker(tmp_path_factory.mktemp("rerankers"))


@pytest.fixture
def reranker(bundle: Path) -> Reranker:
    return Reranker(load_rerank_bundle(bundle))


@pytest.fixture
def texts(cross: Path) -> TextReranker:
    return TextReranker(load_rerank_bundle(cross))


def images(count: int) -> list[Image.Image]:
    return [Image.open(io.BytesIO(halves(*PAIRS[at % len(PAIRS)], mark=at))) for at in range(count)]


def republish(home: Path, **golden: np.ndarray) -> None:
    """Write other golden scores, or whatever else was changed, into a bundle as its makers would."""
    if golden:
        np.savez(home / "golden.npz", **golden)  # type: ignore[arg-type]
    manifest = load_rerank_bundle(home).manifest
    write_manifest(manifest.model_copy(update={"files": published_files(home)}), home)  # type: ignore[arg-type]


def test_a_pair_scores_by_which_colour_is_where(reranker: Reranker) -> None:
    features = reranker.features(images(3))
    left, right = reranker.scores("red left", features), reranker.scores("red right", features)
    assert left.score.argmax() == 0
    assert right.score.argmax() == 1
    assert left.contrastive is not None
    assert np.allclose(left.contrastive[0], left.contrastive[1], atol=1e-3)  # which the embedding alone goes by
    assert np.array_equal(left.score, left.matching + left.contrastive)
    assert {each.dtype for each in (left.matching, left.contrastive, left.score)} == {np.dtype(np.float32)}
    assert not left.truncated


def test_the_score_weighs_the_cosine_as_the_manifest_says(tmp_path: Path) -> None:
    reranker = Reranker(load_rerank_bundle(make_reranker(tmp_path, weight=0.25)))
    scores = reranker.scores("red left", reranker.features(images(5)))
    assert scores.contrastive is not None
    assert np.allclose(scores.score, scores.matching + 0.25 * scores.contrastive)


def test_features_are_half_as_wide_and_of_the_promised_shapes(reranker: Reranker) -> None:
    (features,) = reranker.features(images(1))
    assert (features.features.shape, features.queries.shape) == ((TOKENS, WIDTH), (QUERIES, DEPTH))
    assert features.features.dtype == features.queries.dtype == np.float16
    assert features.nbytes == 2 * (TOKENS * WIDTH + QUERIES * DEPTH)
    assert features.features.base is None  # nothing of the batch is kept alive by it
    assert np.allclose(np.linalg.norm(features.queries.astype(np.float32), axis=-1), 1, atol=1e-3)


def test_no_score_hangs_on_its_batch(reranker: Reranker, runs: list[dict[str, Any]]) -> None:
    features = reranker.features(images(19))
    together = reranker.scores("a photo of red left", features)
    assert [len(feed["rows"]) for feed in runs if "rows" in feed] == [8, 8, 3]
    assert {feed["input_ids"].shape for feed in runs if "rows" in feed} == {(1, 7)}  # the text is read once
    assert all(not feed["rows"].any() for feed in runs if "rows" in feed)
    alone = [reranker.scores("a photo of red left", [each]).score[0] for each in features]
    assert np.allclose(together.score, alone, atol=1e-6)
    (one,) = reranker.features(images(19)[7:8])
    assert np.array_equal(one.features, features[7].features)


def test_nothing_in_gives_nothing_out(reranker: Reranker, texts: TextReranker) -> None:
    assert reranker.features([]) == []
    assert reranker.scores("red", []).score.shape == texts.scores("red", []).score.shape == (0,)


def test_a_text_that_is_too_long_is_cut_and_said(reranker: Reranker) -> None:
    features = reranker.features(images(2))
    fits, cut = "a " * 8 + "red left", "a " * 9 + "red left"
    assert not reranker.scores(fits, features).truncated
    assert reranker.scores(cut, features).truncated
    assert reranker.scores("red " * 100_000, features).truncated
    assert not np.allclose(reranker.scores(fits, features).score, reranker.scores(cut, features).score)


def test_graphs_open_when_first_used_and_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Noted(Graph):
        def __init__(self, path: Path, *rest: Any) -> None:
            opened.append(path.name)
            super().__init__(path, *rest)

    monkeypatch.setattr(rerank_graphs, "Graph", Noted)
    reranker = Reranker(load_rerank_bundle(bundle))
    kept = Features(np.zeros((TOKENS, WIDTH), np.float16), np.zeros((QUERIES, DEPTH), np.float16))
    with ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(lambda _: reranker.scores("red left", [kept]).score[0], range(40)))
    assert len(set(scores)) == 1
    assert opened == ["match.onnx"]  # the large one was not needed
    assert reranker.devices == {"match": "cpu"}
    reranker.warm_up()
    assert sorted(opened) == ["match.onnx", "vision.onnx"]


def test_many_threads_get_what_one_gets(reranker: Reranker) -> None:
    pictures = images(5)
    expected = reranker.scores("red left", reranker.features(pictures)).score

    def score(_: int) -> Any:
        return reranker.scores("red left", reranker.features(pictures)).score

    with ThreadPoolExecutor(8) as threads:
        assert all(np.array_equal(each, expected) for each in threads.map(score, range(24)))


@pytest.mark.parametrize("given", ["not finite", "too large", "another shape"])
def test_what_a_graph_should_not_give_is_refused(
    reranker: Reranker, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    features, queries = np.zeros((1, TOKENS, WIDTH), np.float32), np.zeros((1, QUERIES, DEPTH), np.float32)
    match given:
        case "not finite":
            queries[0, 0, 0] = np.nan
        case "too large":
            features[0, 0, 0] = 70_000
        case "another shape":
            features = features[:, 1:]
    reranker.warm_up()
    monkeypatch.setattr(Graph, "compute", lambda *_: [features, queries])
    with pytest.raises(ModelError) as caught:
        reranker.features(images(1))
    assert isinstance(caught.value, NoFeatures) == (given != "another shape")
    assert caught.value.remedy == "Run `crosslens models verify blip2-itm`."  # without the name, the encoder is checked


@pytest.mark.parametrize("given", [np.array([np.inf], np.float32), np.zeros((1, 2), np.float32)])
def test_scores_that_are_none_are_refused(reranker: Reranker, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    features = reranker.features(images(1))
    monkeypatch.setattr(Graph, "compute", lambda *_: [np.zeros(1, np.float32), given])
    with pytest.raises(ModelError, match="scores") as caught:
        reranker.scores("red", features)
    assert caught.value.remedy == "Run `crosslens models verify blip2-itm`."


def test_a_cross_encoder_counts_what_two_texts_have_in_common(texts: TextReranker) -> None:
    scores = texts.scores("a cat", ["a cat", "a dog and a car", "cat", ""])
    assert np.allclose(scores.score, [1.8, 0.5, 0.9, 0], atol=1e-5)
    assert np.array_equal(scores.score, scores.matching)
    assert scores.contrastive is None
    assert not scores.truncated


def test_texts_of_all_lengths_score_as_one_by_one(texts: TextReranker, runs: list[dict[str, Any]]) -> None:
    words = ["a", "cat", "and", "dog", "bird", "car"]
    passages = [" ".join(words[(at + step) % 6] for step in range(at % 10)) for at in range(21)]
    together = texts.scores("cat and dog", passages)
    assert [len(feed["input_ids"]) for feed in runs] == [8, 8, 5]
    assert len({feed["input_ids"].shape[1] for feed in runs}) == 3  # those of like length are together
    alone = [texts.scores("cat and dog", [passage]).score[0] for passage in passages]
    assert np.allclose(together.score, alone, atol=1e-6)


def test_of_a_pair_that_is_too_long_the_longer_text_is_cut(texts: TextReranker) -> None:
    cut = texts.scores("cat dog bird", ["a " * 50 + "cat", "cat"])
    assert cut.truncated
    assert np.allclose(cut.score, [-1.0, 0.9], atol=1e-5)  # ten words fit beside the query, which is whole
    assert texts.scores("cat", ["a" * 10_000]).truncated


def test_a_cross_encoder_may_do_without_token_types(tmp_path: Path) -> None:
    texts = TextReranker(load_rerank_bundle(make_text_reranker(tmp_path, token_types=False)))
    assert np.allclose(texts.scores("a cat", ["a cat", "dog"]).score, [1.8, -0.1], atol=1e-5)


def test_encoders_and_rerankers_lie_side_by_side_and_are_not_confused(settings: Settings) -> None:
    make_bundle(settings.models_folder)
    make_reranker(settings.models_folder)
    make_text_reranker(settings.models_folder)
    assert {each.manifest.name for each in list_bundles(settings)} == {"bridge", "colours"}
    assert {each.manifest.name for each in list_rerank_bundles(settings)} == {"blip2-itm", "cross-encoder"}
    assert find_rerank_bundle("blip2-itm", settings).folder == settings.models_folder / "blip2-itm"
    with pytest.raises(BundleNotFound, match="is a reranker"):
        find_bundle("blip2-itm", settings)
    with pytest.raises(BundleNotFound, match="is no reranker"):
        find_rerank_bundle("colours", settings)
    assert load_reranker(settings).name == "blip2-itm"
    assert load_text_reranker(settings).name == "cross-encoder"
    assert load_reranker(settings, str(settings.models_folder / "blip2-itm")).fingerprint


def test_without_a_bundle_the_error_names_the_command_that_gets_one(settings: Settings) -> None:
    with pytest.raises(NoReranker) as caught:
        load_reranker(settings)
    assert (caught.value.code, caught.value.status) == ("no_reranker", 409)
    assert "`crosslens models export blip2-itm`" in caught.value.remedy
    with pytest.raises(NoReranker) as caught:
        load_text_reranker(settings)
    assert "`crosslens models export cross-encoder`" in caught.value.remedy
    with pytest.raises(NoReranker) as caught:
        load_reranker(settings.model_copy(update={"reranker": "blip-itm-base"}))
    assert "`crosslens models export blip-itm-base`" in caught.value.remedy


def test_a_bundle_of_another_task_is_no_reranker(settings: Settings) -> None:
    make_reranker(settings.models_folder)
    make_text_reranker(settings.models_folder)
    for load, name, usual in (
        (load_reranker, "bridge", "blip2-itm"),
        (load_reranker, "cross-encoder", "blip2-itm"),
        (load_text_reranker, "blip2-itm", "cross-encoder"),
    ):
        with pytest.raises(NoReranker) as caught:
            load(settings, name)
        assert caught.value.remedy == f"Run `crosslens models export {usual}`."
    with pytest.raises(NoReranker) as caught:
        load_reranker(settings, "../elsewhere")
    assert caught.value.remedy.startswith("Name another")
    assert "`crosslens models export blip2-itm`" in caught.value.remedy


def test_a_file_that_was_changed_is_not_used(bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(bundle, own)
    with (own / "match.onnx").open("ab") as file:
        file.write(b"\0")
    reranker = Reranker(load_rerank_bundle(own))
    features = reranker.features(images(1))
    with pytest.raises(InvalidBundle, match="not the file that was published"):
        reranker.scores("red", features)


def test_a_graph_of_another_form_is_refused(bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(bundle, own)
    shutil.copy(own / "vision.onnx", own / "match.onnx")
    republish(own)
    reranker = Reranker(load_rerank_bundle(own))
    with pytest.raises(InvalidBundle, match=r"it should take .*rows.* and give matching, contrastive"):
        reranker.scores("red", reranker.features(images(1)))


def test_golden_scores_come_out_again(reranker: Reranker, texts: TextReranker) -> None:
    report = check_golden_pairs(reranker)
    assert set(report.matching) == set(report.contrastive) == {"red left", "a photo of blue right"}
    assert report.worst < 1e-5
    assert check_golden_pairs(texts).contrastive == {}
    assert list(check_golden_pairs(reranker, canary=True).matching) == ["red left"]


@pytest.mark.parametrize("which", ["matching", "contrastive"])
@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_other_golden_scores_are_a_mismatch(bundle: Path, tmp_path: Path, which: str, wrong: float) -> None:
    own = tmp_path / "own"
    shutil.copytree(bundle, own)
    with np.load(own / "golden.npz") as arrays:
        golden = dict(arrays)
    golden[which][1, 1] += wrong
    republish(own, **golden)
    found = f"{which} differs by .* for the golden text 'a photo of blue right'"
    with pytest.raises(GoldenMismatch, match=found) as caught:
        check_golden_pairs(Reranker(load_rerank_bundle(own)))
    assert "`crosslens models verify blip2-itm --json`" in caught.value.remedy


def lying() -> bytes:
    """An archive of arrays, one of which says that it is larger than any memory."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("matching.npy", array.getvalue())
        file.writestr("contrastive.npy", array.getvalue())
    return archive.getvalue()


@pytest.mark.parametrize(
    "broken", ["shape", "none", "listing", "picture", "no picture", "empty", "no archive", "cut", "lying"]
)
def test_broken_golden_files_are_said(bundle: Path, tmp_path: Path, broken: str) -> None:
    own = tmp_path / "own"
    shutil.copytree(bundle, own)
    match broken:
        case "shape":
            republish(own, matching=np.zeros((2, 2), "f4"), contrastive=np.zeros((2, 3), "f4"))
        case "none":
            republish(own, matching=np.zeros((2, 2), "f4"))
        case "listing":
            (own / "golden.json").write_text('{"images": 1, "texts": []}')
            republish(own)
        case "no picture":
            (own / "golden" / "sides.png").write_bytes(b"no picture")
            republish(own)
        case "empty" | "no archive" | "cut" | "lying":
            content = {"empty": b"", "no archive": b"PK\3\4 none", "cut": bytes(9), "lying": lying()}[broken]
            whole = (own / "golden.npz").read_bytes()
            (own / "golden.npz").write_bytes(whole[: len(whole) // 2] if broken == "cut" else content)
            republish(own)
        case "picture":
            (own / "golden.json").write_text('{"images": ["../../manifest.json", "sides.png"], "texts": ["a", "b"]}')
            republish(own)
    with pytest.raises(InvalidBundle):
        check_golden_pairs(Reranker(load_rerank_bundle(own)))


def test_the_wrong_kind_of_bundle_is_refused(bundle: Path, cross: Path) -> None:
    with pytest.raises(InvalidBundle):
        Reranker(load_rerank_bundle(cross))
    with pytest.raises(InvalidBundle):
        TextReranker(load_rerank_bundle(bundle))


def test_verify_checks_rerankers_too(settings: Settings) -> None:
    home = make_reranker(settings.models_folder)
    make_text_reranker(settings.models_folder)
    done = CliRunner().invoke(main, ["models", "verify", "blip2-itm", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["task"] == "rerank"
    assert document["difference"]["worst"] <= document["difference"]["allowed"]
    assert document["devices"] == {"vision": "cpu", "match": "cpu"}
    plain = CliRunner().invoke(main, ["models", "verify", "cross-encoder"])
    assert "Golden scores (2 texts; match on cpu)" in plain.output
    (home / "golden" / "sides.png").write_bytes(halves("blue", "red"))
    changed = CliRunner().invoke(main, ["models", "verify", "blip2-itm"])
    assert changed.exit_code != 0
    republish(home)
    other = CliRunner().invoke(main, ["models", "verify", "blip2-itm"])
    assert other.exit_code != 0
    assert "gives other scores here" in other.output
