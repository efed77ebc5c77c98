"""A rescan from columns gives the verdicts that judging item by item gives, and writes what changed alone."""

import hashlib
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from indexer.items import RECORD_KEY, Location, Record, now, to_payload
from indexer.media.originals import Originals
from indexer.moderation import dry_run as dry_module
from indexer.moderation import rescan as module
from indexer.moderation.dry_run import DryRun, dry_run
from indexer.moderation.facts import ACTIONS, FIELDS, IMAGE, ODD, PERSONS, THERE, Names, facts_of, hashed, key_of
from indexer.moderation.hash_lists import HashList
from indexer.moderation.judge import Judge
from indexer.moderation.judging import ItemJudge, Judged, judge_stored, matters
from indexer.moderation.policy import ACTIONS as POLICY_ACTIONS
from indexer.moderation.policy import Policy
from indexer.moderation.rescan import Share, rescan
from indexer.moderation.review.decisions import Reviews
from indexer.moderation.review.state import Decision, review_of
from indexer.moderation.stored import StoredPolicy
from indexer.moderation.trail import Trail
from indexer.settings import Settings
from indexer.store import Collection, Point, Store, open_store
from tests.indexer.moderation.spaces import DIMENSION, FINGERPRINT, MadeUp, direction, unit

ITEMS = 60
TEXTS = ("a cat", "a dog", "a soup", "a tree")
ENCODER: Any = MadeUp()
LISTED = np.stack([np.frombuffer(hashlib.sha256(bytes([each])).digest(), np.uint8) for each in range(0, 12, 3)])


def item_id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))


def policy_of(*categories: tuple[str, str, float, str], name: str = "made-up") -> Policy:
    """Categories of a name, an action, a threshold, and a kind of detectors."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "prompts": [{"type": "prompts", "positive": ["a cat", "a dog"], "negative": ["a tree"], "template": "{}"}],
        "pictures": [{"type": "prompts", "positive": ["a soup"], "template": "{}", "items": ["image"]}],
        "linear": [
            {"type": "linear", "weights": (9 * direction("a dog")).tolist(), "bias": -2.0, "fingerprint": FINGERPRINT}
        ],
        "hash": [{"type": "hash", "list": "known"}],
        "all": [
            {"type": "prompts", "positive": ["a tree"], "template": "{}"},
            {"type": "hash", "list": "known", "kinds": ["pdq"], "required": True},
        ],
        "text": [{"type": "text", "words": ["listed"]}],
    }
    return Policy.model_validate(
        {
            "name": name,
            "categories": [
                {"name": each, "action": action, "threshold": line, "detectors": kinds[kind]}
                | ({"combine": "all"} if kind == "all" else {})
                for each, action, line, kind in categories
            ],
        }
    )


def opened(policy: Policy) -> ItemJudge:
    lists = {"known": HashList(LISTED, LISTED)} if policy.lists else {}
    return ItemJudge(StoredPolicy(policy, 1, "2026-01-01T00:00:00Z", "root"), Judge(policy, ENCODER, hash_lists=lists))


CATEGORIES = (
    ("cats", "flag", 0.5, "prompts"), ("soups", "block", 0.4, "pictures"), ("dogs", "quarantine", 0.6, "linear"),
)  # fmt: skip
FIRST = policy_of(*CATEGORIES)


def points(seed: int, judge: ItemJudge | None) -> list[Point]:
    """Pictures and texts, some of which are parts of files, judged if there is a judge."""
    chance = np.random.default_rng(seed)
    made = []
    for number in range(ITEMS):
        text = TEXTS[int(chance.integers(len(TEXTS)))]
        vector = unit(direction(text) + chance.normal(size=DIMENSION) * 0.25)
        digest = hashlib.sha256(bytes([number])).hexdigest()
        is_text = chance.random() < 0.3
        record = Record(
            kind="text" if is_text else "image", sha256=digest, locations=[Location(source=f"/{number}")], bytes=1,
            media_type="image/png", pdq=None if is_text or chance.random() < 0.2 else digest, added_at=now(),
            # Videos of three frames, and pictures with captions: the first is no part of itself.
            parent=item_id(number - number % 3) if number < 30 and (number % 3 or number < 15) else None,
        )  # fmt: skip
        if judge is not None and chance.random() < 0.9:
            (verdict,) = judge.verdicts([record], [{}], vector[None])
            record = record.model_copy(update={"verdict": verdict})
        withheld = True if chance.random() < 0.1 else None
        record = record.model_copy(update={"withheld": withheld})
        made.append(Point(item_id(number), vector, to_payload(record, {"tag": "listed" if number % 7 == 0 else "no"})))
    return made


class Place:
    """Collections with the same items, and what judging them takes."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.originals = Originals.of(settings)
        self.trail = Trail(settings.data, "media")
        self.made = 0

    def collection(self, some: list[Point]) -> Collection:
        self.made += 1
        self.store.create(f"media{self.made}", "made-up", FINGERPRINT, DIMENSION)
        collection = self.store.get(f"media{self.made}")
        collection.upsert(some)
        return collection

    def rescan(self, collection: Collection, judge: ItemJudge, share: Share = module.WHOLE) -> Judged:
        done = Judged()
        for some in rescan(
            collection, judge, share, settings=self.settings, originals=self.originals, trail=self.trail
        ):
            done.add(some)
        return done

    def slowly(self, collection: Collection, judge: ItemJudge) -> Judged:
        ids = [each for some in collection.ids(100) for each in some]
        return judge_stored(collection, judge, ids, settings=self.settings, originals=self.originals, trail=self.trail)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    settings = Settings(data=tmp_path_factory.mktemp("rescans") / "data", workers=0)
    with open_store(settings) as store:
        made = Place(store, settings)
        yield made
        made.originals.close()


def state(collection: Collection) -> dict[str, Any]:
    """What is stored of each item, but for when it was judged."""
    return {
        item.id: (
            None if item.record.verdict is None else {**item.record.verdict, "at": None},
            bool(item.record.withheld),
            item.payload,
        )
        for item in collection.scan()
    }


def told(run: DryRun) -> Any:
    categories = {
        name: (each.fired, each.joined, each.left, each.reviewed, each.nearest) for name, each in run.categories.items()
    }
    counts = run.judged, run.changed, run.unscored, run.held_back, run.complete
    return counts, run.actions, run.reviewed, categories


def decided(place: Place, collection: Collection, seed: int, policy: Policy) -> None:
    """Some people's decisions."""
    chance = np.random.default_rng(seed)
    trail = Trail(place.settings.data, collection.name)
    for reviewers in (1, 2):
        reviews = Reviews(collection, trail, policy, reviewers=reviewers)  # type: ignore[arg-type]
        for decision in (
            Decision(what="approve"),
            Decision(what="reject"),
            Decision(what="recategorise", categories=("cats",)),
        ):
            chosen = [item_id(int(number)) for number in chance.choice(ITEMS, 2, replace=False)]
            open_ = [
                each
                for each in chosen
                if not review_of((collection.get(each) or SimpleNamespace()).record.verdict).agreed
            ]  # type: ignore[union-attr]
            reviews.decide(open_, decision, who=f"ann{reviewers}")


CATEGORY = st.tuples(
    st.sampled_from(["cats", "soups", "dogs", "trees"]),
    st.sampled_from(list(ACTIONS)),
    st.sampled_from([0.01, 0.3, 0.5, 0.9]),
    st.sampled_from(["prompts", "pictures", "linear", "hash", "all"]),
)
POLICIES = st.lists(CATEGORY, min_size=1, max_size=4, unique_by=lambda each: each[0]).map(lambda some: policy_of(*some))


@examples(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), policies=st.lists(POLICIES, min_size=1, max_size=3), judged=st.booleans())
def test_from_columns_or_item_by_item_is_the_same(
    place: Place, seed: int, policies: list[Policy], judged: bool
) -> None:
    some = points(seed, opened(FIRST) if judged else None)
    quick, slow = place.collection(some), place.collection(some)
    decided(place, quick, seed, FIRST)
    for each in quick.scan():  # the same decisions, by the same numbers
        slow.note({each.id: {"verdict": each.record.verdict}} if each.record.verdict else {})
    assert state(quick) == state(slow)
    for policy in policies:
        judge = opened(policy)
        with pytest.MonkeyPatch.context() as patch:
            quickly = told(dry_run(quick, judge, limit=1000))
            patch.setattr(dry_module, "in_columns", lambda _: False)
            assert told(dry_run(slow, judge, limit=1000)) == quickly
        before = state(quick)
        done, want = place.rescan(quick, judge), place.slowly(slow, judge)
        assert state(quick) == state(slow)
        assert (done.changed, done.unchanged) == (want.changed, want.unchanged)
        after = state(quick)
        assert done.changed == sum(before[each][0] != after[each][0] for each in before)
        # As when they are ingested, but for the policy that first found it so.
        items = list(quick.scan(with_vectors=True))
        vectors = np.stack([item.vector for item in items if item.vector is not None])
        fresh = judge.verdicts([item.record for item in items], [item.payload for item in items], vectors)
        assert not any(matters(item.record.verdict, each) for item, each in zip(items, fresh, strict=True))
        assert place.rescan(quick, judge).changed == 0


def test_what_did_not_change_is_not_even_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ", 16)
    judge = opened(FIRST)
    collection = place.collection(points(1, None))
    assert place.rescan(collection, judge) == Judged(ITEMS, 0)
    seen: list[str] = []

    def counted(_: Any, __: Any, ids: list[str], **___: Any) -> Judged:
        seen.extend(ids)
        return Judged()

    monkeypatch.setattr(module, "judge_stored", counted)
    assert place.rescan(collection, judge) == Judged(0, ITEMS)
    assert seen == []
    stricter = opened(policy_of(*CATEGORIES[:1], ("soups", "block", 0.999, "pictures"), *CATEGORIES[2:]))
    soups = {
        each.id
        for each in collection.scan()
        if 0.4 <= (each.record.verdict or {})["categories"].get("soups", {}).get("probability", 0) < 0.999
    }
    place.rescan(collection, stricter)
    assert set(seen) == soups
    assert 0 < len(soups) < ITEMS


def test_a_verdict_says_which_policy_found_it_first_unless_a_person_has_a_say(place: Place) -> None:
    collection = place.collection(points(2, None))
    first = opened(FIRST)
    place.rescan(collection, first)
    reviews = Reviews(collection, Trail(place.settings.data, collection.name), FIRST)
    reviews.decide([item_id(4)], Decision(what="approve"), who="ann")
    reviews.appeal(item_id(5), who="bob", note="why?")
    renamed = opened(policy_of(*CATEGORIES, name="renamed"))
    assert place.rescan(collection, renamed) == Judged(2, ITEMS - 2)
    assert place.slowly(collection, renamed) == Judged(0, ITEMS)
    versions = {each.id: (each.record.verdict or {})["version"] for each in collection.scan()}
    new = {item_id(4), item_id(5)}
    assert {each for each, version in versions.items() if version == renamed.stored.policy.version} == new
    assert {version for each, version in versions.items() if each not in new} == {FIRST.version}


@pytest.mark.parametrize("of", [1, 3, 16])
def test_shares_are_everything_once_and_hold_files_together(place: Place, of: int) -> None:
    some = points(3, None)
    collection = place.collection(some)
    judge = opened(FIRST)
    done = [place.rescan(collection, judge, Share(number, of)) for number in range(of)]
    assert sum(each.changed for each in done) == ITEMS
    assert sum(each.unchanged for each in done) == 0
    whole = place.collection(some)
    place.rescan(whole, judge)
    assert state(collection) == state(whole)
    texts = opened(policy_of(("cats", "flag", 0.5, "text")))  # not in columns: the same shares, by records
    again = [place.rescan(collection, texts, Share(number, of)) for number in range(of)]
    assert [each.changed + each.unchanged for each in again] == [each.changed for each in done]


def test_files_that_a_crash_left_apart_stand_together_again(place: Place) -> None:
    judge = opened(FIRST)
    collection = place.collection(points(4, None))
    place.rescan(collection, judge)
    want = state(collection)
    assert {withheld for _, withheld, _ in want.values()} == {True, False}
    collection.note({each: {"withheld": not withheld} for each, (_, withheld, _) in want.items() if in_file(each)})
    assert state(collection) != want
    assert place.rescan(collection, judge).changed == 0
    assert state(collection) == want


def in_file(item: str) -> bool:
    return item in {item_id(number) for number in range(30)}


def test_it_can_be_ended_and_begun_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 7)
    monkeypatch.setattr(module, "_VECTOR_BYTES", 1)
    monkeypatch.setattr(module, "READ", 16)
    judge = opened(FIRST)
    collection = place.collection(points(5, None))
    work = rescan(collection, judge, settings=place.settings, originals=place.originals, trail=place.trail)
    done = Judged()
    while done.changed < 20:
        done.add(next(work))
    work.close()
    rest = place.rescan(collection, judge)
    assert done.changed + rest.changed == ITEMS
    assert rest.unchanged == done.changed
    whole = place.collection(points(5, None))
    place.slowly(whole, judge)
    assert state(collection) == state(whole)


def test_what_is_written_meanwhile_is_not_judged_by_what_was(place: Place) -> None:
    judge = opened(FIRST)
    collection = place.collection(points(6, judge))
    place.rescan(collection, judge)
    before = collection.get(item_id(0))
    assert before is not None
    collection.note({before.id: {"verdict": {**(before.record.verdict or {}), "action": "blur"}}})
    collection.delete([item_id(40)])
    assert place.rescan(collection, judge) == Judged(1, ITEMS - 2)
    assert state(collection)[before.id][0] == {**(before.record.verdict or {}), "at": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "blur"}, {"reason": "not judged: for no reason"}, {"categories": {}}, {"version": 5}, {"by": 7},
        {"categories": {"cats": {"score": 0.1, "probability": 0.125, "fired": True}}},
    ],
)  # fmt: skip
def test_whatever_differs_is_judged_again(place: Place, changes: dict[str, Any]) -> None:
    judge = opened(FIRST)
    collection = place.collection(points(11, judge))
    place.rescan(collection, judge)
    want = state(collection)
    verdict = want[item_id(2)][0]
    collection.note({item_id(2): {"verdict": {**verdict, **changes}}})
    assert place.rescan(collection, judge).changed == (0 if changes.keys() == {"version"} else 1)
    assert {**state(collection)[item_id(2)][0], "version": FIRST.version} == verdict


def test_verdicts_that_rows_cannot_hold_are_read(place: Place) -> None:
    judge = opened(FIRST)
    collection = place.collection(points(7, judge))
    place.rescan(collection, judge)
    item = collection.get(item_id(1))
    assert item is not None
    wide = {f"c{number}": {"score": 9.0, "probability": 0.9, "fired": True} for number in range(70)}
    collection.note({item.id: {"verdict": {**(item.record.verdict or {}), "categories": wide}}})
    run = dry_run(
        collection, opened(policy_of(("c69", "block", 0.99, "linear"), ("c1", "block", 0.99, "linear"))), limit=ITEMS
    )
    assert [each.left for each in run.categories.values()] == [1, 1]
    collection.note({item_id(2): {"verdict": {"action": "flag", "by": "policy"}}})
    assert place.rescan(collection, judge).changed == 2


def test_the_first_by_their_ids_are_a_sample(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = opened(FIRST)
    collection = place.collection(points(8, judge))
    monkeypatch.setattr(dry_module, "READ", 16)
    for limit in (1, 20, ITEMS):
        quickly = told(dry_run(collection, judge, limit=limit, nearest=5))
        with monkeypatch.context() as patch:
            patch.setattr(dry_module, "open_columns", lambda *_: None)
            assert told(dry_run(collection, judge, limit=limit, nearest=5)) == quickly
        assert quickly[0][0] == limit
        most = dry_run(collection, judge, limit=limit, nearest=50).categories
        assert [each.nearest[:5] for each in most.values()] == [nearest for *_, nearest in quickly[3].values()]
        assert quickly[0][4] == (limit == ITEMS)


def test_without_columns_it_is_done_item_by_item(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = place.collection(points(9, None))
    monkeypatch.setattr(Collection, "in_columns", lambda *_, **__: None)
    assert place.rescan(collection, opened(FIRST)) == Judged(ITEMS, 0)
    held_back = ItemJudge(opened(FIRST).stored, None, trouble="no list")
    assert place.rescan(collection, held_back) == Judged(ITEMS, 0)
    assert {verdict["action"] for verdict, _, _ in state(collection).values()} == {"quarantine"}


def test_a_persons_verdict_that_comes_first_stays(place: Place) -> None:
    judge = opened(FIRST)
    collection = place.collection(points(10, judge))
    before = collection.get(item_id(3))
    assert before is not None
    reviews = Reviews(collection, Trail(place.settings.data, collection.name), FIRST)
    reviews.decide([before.id], Decision(what="reject"), who="ann")
    decided = collection.get(before.id)
    assert decided is not None
    collection.note({before.id: {"withheld": True}})
    record = before.record.model_copy(update={"frames": 3, "width": 7, "withheld": None, "pdq": None})
    collection.replace_record(before.id, record)  # of who read it before the decision
    after = collection.get(before.id)
    assert after is not None
    assert after.record == record.model_copy(update={"verdict": decided.record.verdict, "withheld": True})
    assert after.payload == before.payload
    collection.replace_record(before.id, record.model_copy(update={"verdict": None}))
    assert (collection.get(before.id) or before).record.verdict == decided.record.verdict
    by_bob = {**(decided.record.verdict or {}), "by": "person:bob"}
    collection.replace_record(before.id, record.model_copy(update={"verdict": by_bob}))
    assert (collection.get(before.id) or before).record.verdict == by_bob
    reviews.appeal(item_id(5), who="bob", note="why?")
    appealed = collection.get(item_id(5))
    assert appealed is not None
    verdict = {name: value for name, value in (appealed.record.verdict or {}).items() if name != "review"}
    collection.replace_record(appealed.id, appealed.record.model_copy(update={"verdict": verdict}))
    assert collection.get(appealed.id) == appealed
    other = collection.get(item_id(6))
    assert other is not None
    collection.replace_record(other.id, other.record.model_copy(update={"verdict": None, "withheld": False}))
    assert (collection.get(other.id) or other).record.verdict is None
    collection.replace_record(item_id(10_000), record)
    assert collection.get(item_id(10_000)) is None


def test_rows_know_the_words_of_policies() -> None:
    assert tuple(each.value for each in POLICY_ACTIONS) == ACTIONS
    assert [field.partition(".")[0] for field in FIELDS] == [RECORD_KEY] * len(FIELDS)
    assert {field.partition(".")[2] for field in FIELDS} <= Record.model_fields.keys()


FINDING = {"score": 1.0, "probability": 0.75, "fired": True}


def row_of(**changes: Any) -> Any:
    verdict: dict[str, Any] = {
        "action": "flag", "by": "policy", "version": "00ff" * 4, "policy": "p", "at": "x", "categories": {"cats": FINDING},
    }  # fmt: skip
    record: dict[str, Any] = {"kind": "image", "sha256": "0" * 64, "verdict": {**verdict, **changes}}
    return facts_of([b"1" * 16], [{"crosslens": record}], Names())[0]


@pytest.mark.parametrize(
    "change",
    [
        {"action": "shout"}, {"by": None, "version": "x"}, {"version": None}, {"categories": {"cats": {}}},
        {"categories": {"cats": {**FINDING, "probability": 2}}}, {"categories": {"cats": {**FINDING, "fired": 1}}},
        {"categories": {"dogs": FINDING, "cats": 5}}, {"reason": 7}, {"categories": [1]},
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_odd(change: dict[str, Any]) -> None:
    assert row_of()["bits"] == THERE | IMAGE
    row = row_of(**change)
    assert row["bits"] & ODD
    assert row["found"] == 0


def test_every_difference_is_seen() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"action": "block"}, {"reason": "why"}, {"categories": {}}, {"categories": {"dogs": FINDING}},
        {"categories": {"cats": {**FINDING, "probability": float(np.nextafter(np.float32(0.75), np.float32(1)))}}},
        {"categories": {"cats": {**FINDING, "fired": False}}}, {"categories": {"cats": FINDING, "dogs": FINDING}},
    ]  # fmt: skip
    seen = {tuple(row_of(**each)[name] for name in ("action", "reason", "found")) for each in changes}
    assert len(seen) == len(changes)
    assert row_of(by="person:x")["bits"] & PERSONS


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1, width=32), st.booleans()), unique_by=lambda e: e[0])
)
def test_a_row_and_a_judgement_hash_alike(findings: list[tuple[str, float, bool]]) -> None:
    categories = {
        name: {"score": 0.0, "probability": float(str(np.float32(p))), "fired": fired} for name, p, fired in findings
    }
    keys = np.array([key_of(name) for name in "abcdef"], dtype=np.uint64)
    probabilities = np.full((1, 6), np.nan, dtype=np.float32)
    fired = np.zeros((1, 6), dtype=bool)
    for name, p, is_fired in findings:
        probabilities[0, "abcdef".index(name)], fired[0, "abcdef".index(name)] = p, is_fired
    assert hashed(keys, probabilities, fired).sum(dtype=np.uint64) == row_of(categories=categories)["found"]
