"""A policy at work: an item's verdict is its own, actions and votes are as written, and what is missing fails closed."""

import json
import math
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.classify.scoring import OTHERS, scale_of
from indexer.errors import (
    ClassifierNotFound,
    HashListNotFound,
    InvalidRequest,
    InvalidVector,
    ModelMismatch,
    PolicyInvalid,
)
from indexer.items import Kind, Location, Record, now
from indexer.media.decode import decode
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.moderation.classifiers.manifest import find_classifier
from indexer.moderation.directions import BLOCK, Directions
from indexer.moderation.hash_lists import HashList
from indexer.moderation.judge import Judge, Judgement
from indexer.moderation.policy import Action, Policy
from indexer.moderation.starting import joined, starting_policy
from indexer.moderation.subjects import Subjects
from indexer.moderation.verdicts import Verdict
from tests.indexer.moderation.spaces import DIMENSION, FINGERPRINT, MadeUp, direction, unit

ROOT = Path(__file__).resolve().parents[3]
FOOD = {"type": "prompts", "positive": ["food", "a cake"], "negative": ["a flower"], "template": "none"}
CARS = {"type": "linear", "weights": (8 * direction("a car")).tolist(), "bias": -4.0, "fingerprint": FINGERPRINT}
WORDS = {"type": "text", "words": ["truck"], "fields": ["caption"]}
NSFW = {"type": "classifier", "model": "open-nsfw", "labels": ["nsfw"]}
LISTED = {"type": "hash", "list": "known"}
MANIFEST = find_classifier("open-nsfw")[0]


def category(name: str, *detectors: dict[str, Any], action: str = "flag", **more: Any) -> dict[str, Any]:
    return {"name": name, "action": action, "detectors": list(detectors), **more}


def judge_of(
    *categories: dict[str, Any], style: str = "calibrated", hashes: HashList | None = None, **more: Any
) -> Judge:
    policy = Policy.model_validate({"name": "try", "categories": categories})
    lists = {"known": hashes or HashList()}
    return Judge(policy, MadeUp(style), hash_lists=lists, classifiers={"open-nsfw": MANIFEST}, **more)


def pictures(vectors: Any, **more: Any) -> Subjects:
    return Subjects(images=np.ones(len(vectors), dtype=bool), vectors=np.asarray(vectors, dtype=np.float32), **more)


EVERYTHING = (
    category("food", FOOD, action="block", threshold=0.3),
    category("cars", CARS, action="quarantine", threshold=0.4),
    category("either", FOOD, CARS, WORDS, action="blur", threshold=0.35, combine="vote(2)"),
    category("both", {**FOOD, "items": ["image"]}, CARS, combine="all", threshold=0.2),
    category("listed", LISTED, action="block"),
    category("nude", NSFW, action="quarantine", threshold=0.7),
)


def everything(rng: np.random.Generator, count: int) -> Subjects:
    """Items of all sorts, near the lines; some without a vector, a score or a text."""
    directions = np.stack([direction(text) for text in ("food", "a cake", "a car", "a flower", *OTHERS[:4])])
    mixed = unit(
        rng.standard_normal((count, len(directions))) @ directions + 0.2 * rng.standard_normal((count, DIMENSION))
    )
    mixed[rng.random(count) < 0.1] = np.nan
    mixed[rng.random(count) < 0.05] *= 3
    scores = rng.random((count, 2), dtype=np.float32)
    scores[rng.random(count) < 0.2] = np.nan
    return Subjects(
        images=rng.random(count) < 0.6,
        vectors=mixed,
        sha256=rng.integers(0, 2, (count, 32), dtype=np.uint8),
        pdq=rng.integers(0, 256, (count, 32), dtype=np.uint8),
        has_pdq=rng.random(count) < 0.5,
        texts={"caption": [[None, "a truck", "a lorry"][each] for each in rng.integers(0, 3, count)]},
        scores={"open-nsfw": scores},
    )


def same(one: Judgement, other: Judgement) -> bool:
    columns = ("actions", "probabilities", "fired", "undecided", "missing")
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in columns)


def reordered(subjects: Subjects, order: np.ndarray) -> Subjects:
    assert subjects.vectors is not None
    assert subjects.sha256 is not None
    assert subjects.pdq is not None
    assert subjects.has_pdq is not None
    return Subjects(
        images=subjects.images[order],
        vectors=subjects.vectors[order],
        sha256=subjects.sha256[order],
        pdq=subjects.pdq[order],
        has_pdq=subjects.has_pdq[order],
        texts={name: [column[row] for row in order] for name, column in subjects.texts.items()},
        scores={name: column[order] for name, column in subjects.scores.items()},
    )


def rows_of(judgement: Judgement, order: Any) -> Judgement:
    return Judgement(
        judgement.policy,
        judgement.actions[order],
        judgement.probabilities[order],
        judgement.fired[order],
        judgement.undecided[order],
        judgement.missing[order],
        judgement.needs,
    )


@pytest.mark.parametrize("style", ["calibrated", "clip", "background"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
def test_the_others_in_a_batch_change_nothing(style: str, seed: int, count: int) -> None:
    judge = judge_of(*EVERYTHING, style=style, hashes=HashList(sha256=np.zeros((1, 32), np.uint8)))
    rng = np.random.default_rng(seed)
    subjects = everything(rng, count)
    whole = judge.judge(subjects)
    order = rng.permutation(count)
    assert same(judge.judge(reordered(subjects, order)), rows_of(whole, order))
    for row in range(count):
        assert same(judge.judge(subjects.rows(slice(row, row + 1))), rows_of(whole, slice(row, row + 1)))


def test_nor_do_blocks_and_cores() -> None:
    rng = np.random.default_rng(5)
    count = 2 * BLOCK + 77
    subjects = everything(rng, count)
    judgements = [judge_of(*EVERYTHING, threads=threads).judge(subjects) for threads in (1, 2, 5)]
    assert same(judgements[0], judgements[1])
    assert same(judgements[0], judgements[2])
    order = rng.permutation(count)
    assert same(judge_of(*EVERYTHING).judge(reordered(subjects, order)), rows_of(judgements[0], order))
    assert len(np.unique(judgements[0].actions)) >= 4


def test_a_judge_serves_several_threads_and_leaves_blas_as_it_was() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def limits() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    judge, subjects = judge_of(*EVERYTHING, threads=2), everything(np.random.default_rng(1), 2 * BLOCK)
    expected: Judgement = judge.judge(subjects)
    got: list[Judgement] = []
    with threadpool_limits(3, user_api="blas"):
        before = limits()
        judge.judge(subjects)
        assert limits() == before
    threads = [threading.Thread(target=lambda: got.append(judge.judge(subjects))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [same(each, expected) for each in got] == [True] * 4


@given(st.integers(0, 2**32), st.integers(2, 700))
@settings(max_examples=30, deadline=None)
def test_cosines_are_exact_in_any_order(seed: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = unit(rng.standard_normal((5, dimension))), unit(rng.standard_normal((70, dimension)))
    theirs[0] = ours[0]  # the longest sums
    directions = Directions(dimension)
    directions.add(ours[:2] * 1000)  # of any length
    directions.add(ours[2:])
    cosines, usable = directions.cosines(theirs)
    assert usable.all()
    assert np.abs(cosines[:, :70] - ours @ theirs.T).max() < 1e-3
    turned = rng.permutation(dimension)
    other = Directions(dimension)
    other.add(ours[:, turned])
    again, _ = other.cosines(np.ascontiguousarray(theirs[:, turned]))
    assert (again == cosines).all()


def test_prompts_are_a_margin_of_ensembles() -> None:
    judge = judge_of(category("food", FOOD))
    vectors = unit(
        np.stack(
            [direction("food"), direction("food") + direction("a cake"), direction("food") + direction("a flower")]
        )
    )
    got = judge.judge(pictures(vectors)).probabilities[:, 0]

    def odds(text: str) -> np.ndarray:
        return np.exp(20 * (vectors @ direction(text)) - 8)

    positive = odds("food") + odds("a cake")
    np.testing.assert_allclose(got, positive / (1 + odds("a flower") + positive), rtol=0.02)
    assert got[0] > 0.99 > got[2]
    assert got[2] < judge_of(category("food", {**FOOD, "negative": []})).judge(pictures(vectors)).probabilities[2, 0]


@pytest.mark.parametrize("style", ["clip", "background"])
def test_prompts_without_a_calibration_are_against_other_things(style: str) -> None:
    encoder = MadeUp(style)
    vectors = unit(np.stack([direction("food") + 0.2 * direction("x"), direction("y"), direction(OTHERS[3])]))
    got = judge_of(category("food", {**FOOD, "negative": []}), style=style).judge(pictures(vectors)).probabilities[:, 0]
    scale = scale_of("image", encoder.manifest, len(OTHERS))
    others = np.stack([direction(text) for text in OTHERS])
    logits = scale.logits(vectors @ np.stack([direction("food"), direction("a cake")]).T, vectors @ others.T)
    total = np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(got, total / (1 + total), atol=0.03)
    assert got[0] > 0.9
    assert got[1:].max() < 0.3


def test_texts_have_a_scale_of_their_own_and_may_be_left_out() -> None:
    vectors = unit(np.stack([direction("food")] * 2))
    subjects = Subjects(images=np.array([True, False]), vectors=vectors)
    found = judge_of(category("food", FOOD), category("seen", {**FOOD, "items": ["image"]}, action="block")).judge(
        subjects
    )
    assert found.probabilities[0, 0] == found.probabilities[0, 1]
    assert 0 < found.probabilities[1, 0] != found.probabilities[0, 0]
    assert np.isnan(found.probabilities[1, 1])
    assert found.action(1) is Action.FLAG
    assert not found.missing.any()


def test_a_linear_head_is_a_logistic() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((50, DIMENSION)))
    got = judge_of(category("cars", CARS)).judge(pictures(vectors)).probabilities[:, 0]
    logits = vectors @ np.array(CARS["weights"]) - 4
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logits)), rtol=0.01)


def test_the_strictest_of_what_fired_is_done() -> None:
    judge = judge_of(
        *(category(f"of-{action}", {"type": "text", "words": [action]}, action=action) for action in Action)
    )
    texts = ["allow", "allow flag", "blur flag", "block allow quarantine", "quarantine", "nothing", ""]
    found = judge.judge(Subjects(images=np.zeros(7, dtype=bool), texts={"text": texts}))
    assert [str(found.action(row)) for row in range(7)] == [
        "allow",
        "flag",
        "blur",
        "block",
        "quarantine",
        "allow",
        "allow",
    ]
    assert found.fired[3].tolist() == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("combine", "fired"),
    [
        ("any", [1, 1, 1, 1, 0, 1]),
        ("vote(2)", [1, 1, 0, 0, 0, 0]),
        ("all", [1, 0, 0, 0, 0, 0]),
        ("vote(3)", [1, 0, 0, 0, 0, 0]),
    ],
)
def test_detectors_vote(combine: str, fired: list[int]) -> None:
    rules = [{"type": "text", "words": ["yes"], "fields": [name]} for name in "abc"]
    judge = judge_of(category("agreed", *rules, combine=combine))
    texts = {
        "a": ["yes", "yes", "yes", "no", "no", "yes"],
        "b": ["yes", "yes", "no", None, "no", None],
        "c": ["yes", "no", "no", "yes", "no", None],
    }
    found = judge.judge(Subjects(images=np.zeros(6, dtype=bool), texts=texts))
    assert found.fired[:, 0].astype(int).tolist() == fired
    # Where fewer apply than have to agree, the category does not apply.
    assert np.isnan(found.probabilities[5, 0]) == (combine != "any")


def test_what_cannot_be_judged_is_held_back() -> None:
    judge = judge_of(category("nude", NSFW, FOOD, action="block", threshold=0.9), category("mild", NSFW, threshold=0.9))
    vectors = np.stack([direction("y"), direction("y"), direction("food"), np.full(DIMENSION, np.nan), direction("y")])
    scores = np.array([[0.9, 0.1], [np.nan, np.nan], [np.nan, np.nan], [0.9, 0.1], [0.05, 0.95]], np.float32)
    found = judge.judge(pictures(vectors, scores={"open-nsfw": scores}))
    assert [str(found.action(row)) for row in range(5)] == ["allow", "quarantine", "block", "quarantine", "block"]
    reasons = [found.verdict(row).reason for row in range(5)]
    assert reasons[1] == "not judged: nude, for want of a score of open-nsfw"
    assert reasons[3] == "not judged: nude, for want of a vector"
    assert [reasons[0], reasons[2], reasons[4]] == [None] * 3  # it fired without
    nothing = judge.judge(Subjects(images=np.array([True, False])))
    assert [str(nothing.action(row)) for row in range(2)] == ["quarantine", "quarantine"]
    assert nothing.verdict(0).reason == "not judged: nude, for want of a score of open-nsfw and a vector"
    assert nothing.verdict(1).reason == "not judged: nude, for want of a vector"


def test_what_is_missing_holds_back_only_where_it_could_decide() -> None:
    def actions(**more: Any) -> list[str]:
        judge = judge_of(
            category("nude", {**NSFW, **more.pop("nsfw", {})}, FOOD, action="block", threshold=0.9, **more)
        )
        found = judge.judge(pictures(np.stack([direction("y"), direction("food")])))
        return [str(found.action(row)) for row in range(2)]

    assert actions(combine="any") == ["quarantine", "block"]
    assert actions(combine="all") == ["allow", "quarantine"]  # both would have to say so, and one does not
    assert actions(nsfw={"required": False}) == ["allow", "block"]
    text = judge_of(category("nude", NSFW, action="block")).judge(Subjects(images=np.array([False])))
    assert text.action(0) is Action.ALLOW  # it does not apply to texts


def test_a_vector_that_is_none_is_missing_and_another_dimension_an_error() -> None:
    judge = judge_of(category("cars", CARS, action="quarantine"))
    odd = np.stack([np.zeros(DIMENSION), np.full(DIMENSION, np.inf), 2 * direction("y"), np.full(DIMENSION, 1e38)])
    with np.errstate(all="raise"):
        found = judge.judge(pictures(odd))
    assert found.missing.all()
    assert {found.action(row) for row in range(4)} == {Action.QUARANTINE}
    with pytest.raises(InvalidVector):
        judge.judge(pictures(np.ones((2, DIMENSION + 1))))
    with pytest.raises(InvalidRequest):
        Subjects(images=np.ones(2, dtype=bool), vectors=np.ones((3, DIMENSION), np.float32))
    with pytest.raises(InvalidRequest):
        judge_of(category("nude", NSFW)).judge(pictures(odd, scores={"open-nsfw": np.zeros((4, 3), np.float32)}))


def test_a_judge_opens_only_with_all_that_its_policy_names() -> None:
    def opened(detector: dict[str, Any], encoder: Any = None, **more: Any) -> Judge:
        return Judge(Policy.model_validate({"name": "x", "categories": [category("x", detector)]}), encoder, **more)

    for detector in (FOOD, CARS):
        with pytest.raises(PolicyInvalid):
            opened(detector)
    with pytest.raises(ModelMismatch):
        opened({**CARS, "fingerprint": "f" * 16}, MadeUp())
    with pytest.raises(InvalidVector):
        opened({**CARS, "weights": [1.0, 2.0]}, MadeUp())
    with pytest.raises(HashListNotFound):
        opened(LISTED)
    with pytest.raises(ClassifierNotFound):
        opened(NSFW)
    with pytest.raises(PolicyInvalid, match="no label 'lewd'"):
        opened({**NSFW, "labels": ["lewd"]}, classifiers={"open-nsfw": MANIFEST})


def test_the_stamp_names_all_that_decides() -> None:
    stamp = judge_of(*EVERYTHING).stamp
    assert judge_of(*EVERYTHING).stamp == stamp
    others = {
        judge_of(*EVERYTHING[1:]).stamp,
        judge_of(*EVERYTHING, hashes=HashList(sha256=np.ones((1, 32), np.uint8))).stamp,
        stamp,
    }
    assert len(others) == 3


def test_a_verdict_goes_into_a_payload_and_comes_back() -> None:
    judge = judge_of(*EVERYTHING)
    found = judge.judge(everything(np.random.default_rng(3), 60))
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for row in range(60):
        verdict = found.verdict(row, at)
        stored = json.loads(json.dumps(verdict.to_payload(), allow_nan=False))
        assert Verdict.from_payload(stored) == verdict
        assert (stored["policy"], stored["version"], stored["by"]) == ("try", judge.policy.version, "policy")
        assert stored["at"].startswith("2026-01-02T03:04:05")
        for index, each in enumerate(judge.policy.categories):
            if np.isnan(found.probabilities[row, index]):
                assert each.name not in stored["categories"]
                continue
            finding = verdict.categories[each.name]
            assert np.float32(finding.probability) == found.probabilities[row, index]
            assert finding.fired == (each.name in verdict.fired) == (finding.probability >= np.float32(each.threshold))
            if 0.001 < finding.probability < 0.999:
                assert math.isclose(1 / (1 + math.exp(-finding.score)), finding.probability, rel_tol=0.01)


def test_items_become_columns() -> None:
    record = Record(
        kind=Kind.PAGE,
        sha256="ab" * 32,
        pdq="cd" * 32,
        locations=[Location(source="x")],
        bytes=1,
        media_type="image/png",
        text="of the page",
        added_at=now(),
    )
    plain = record.model_copy(update={"kind": Kind.TEXT, "pdq": None, "text": None})
    payload = {"caption": "a truck", "a": {"b": ["x", 3, "y"]}, "text": "the caller's"}
    subjects = Subjects.of_items([record, plain], [payload, payload], None, fields=["text", "caption", "a.b", "c.d"])
    assert subjects.images.tolist() == [True, False]
    assert subjects.has_pdq is not None
    assert subjects.has_pdq.tolist() == [True, False]
    assert subjects.sha256 is not None
    assert subjects.sha256.tobytes() == bytes.fromhex("ab" * 64)
    assert subjects.texts == {
        "text": ["of the page", "the caller's"],
        "caption": ["a truck"] * 2,
        "a.b": ["x\ny"] * 2,
        "c.d": [None] * 2,
    }
    with pytest.raises(InvalidRequest):
        Subjects.of_items([record.model_copy(update={"sha256": "xyz"})], [{}], None)


@pytest.fixture(scope="module")
def bridge() -> Encoder:
    return Encoder(load_bundle(ROOT / "indexer/models/builtin/bridge"))


def test_the_neutral_policy_knows_photos_with_the_bundle_that_ships(bridge: Encoder) -> None:
    names = ["cat.jpg", "coffee.webp", "rocket.jpg", "galaxies.jpg", "gravel.jpg"]
    images = [decode((ROOT / "examples/media" / name).read_bytes(), max_pixels=10**8) for name in names]
    found = Judge(starting_policy("neutral"), bridge).judge(pictures(bridge.encode_images(images)))
    assert [found.verdict(row).fired for row in range(5)] == [("animals",), ("food",), ("vehicles",), (), ()]
    assert [str(found.action(row)) for row in range(5)] == ["block", "quarantine", "blur", "allow", "allow"]


def test_the_whole_house_judges_a_neutral_photo_mildly(bridge: Encoder) -> None:
    policy = joined(
        "house", ["adult", "violence", "weapons", "drugs", "self-harm", "child-safety", "faces", "personal-data"]
    )
    judge = Judge(policy, bridge, hash_lists={"child-safety": HashList()}, classifiers={"open-nsfw": MANIFEST})
    image = decode((ROOT / "examples/media/cat.jpg").read_bytes(), max_pixels=10**8)
    found = judge.judge(
        pictures(
            bridge.encode_images([image]),
            sha256=np.ones((1, 32), np.uint8),
            pdq=np.ones((1, 32), np.uint8),
            has_pdq=np.array([True]),
            texts={"caption": ["Pay to DE89 3704 0044 0532 0130 00, please"]},
            scores={"open-nsfw": np.array([[0.99, 0.01]], np.float32)},
        )
    )
    assert found.verdict(0).fired == ("personal-numbers",)
    assert found.action(0) is Action.FLAG


@pytest.mark.parametrize("style", ["calibrated", "clip"])
def test_all_verdicts_at_once_are_those_one_by_one(style: str) -> None:
    judge = judge_of(*EVERYTHING, style=style, hashes=HashList(sha256=np.zeros((1, 32), np.uint8)))
    judgement = judge.judge(everything(np.random.default_rng(5), 300))
    at = datetime(2027, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
    assert judgement.payloads(at) == [judgement.verdict(row, at).to_payload() for row in range(len(judgement))]
    assert any("reason" in verdict for verdict in judgement.payloads(at))
