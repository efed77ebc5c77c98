"""Decisions of people: what they put in force, what they leave alone, and that nothing is lost or done twice."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from indexer.errors import IndexUnavailable, InvalidRequest, ItemNotFound, ReviewConflict, TrailEntryNotFound
from indexer.moderation.review.decisions import MOST_ITEMS, Reviews
from indexer.moderation.review.state import Decision, noted, refreshed, review_of
from indexer.moderation.trail import Draft, Trail, What
from indexer.moderation.verdicts import Verdict
from indexer.store import Collection
from tests.indexer.moderation.review.items import (
    OTHER,
    POLICY,
    Clock,
    collection_in,
    item_id,
    judged,
    point,
    verdict_of,
    wipe,
)

APPROVE, WITHDRAW = Decision(what="approve"), Decision(what="withdraw")
REJECT = Decision(what="reject")
HOLD = Decision(what="reject", action="quarantine", categories=("dogs",))


def of(*categories: str) -> Decision:
    return Decision(what="recategorise", categories=categories)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with collection_in(tmp_path_factory.mktemp("decisions")) as collection:
        yield collection


@pytest.fixture
def items(index: Collection) -> Collection:
    """0 is fine, 1 flagged, 2 quarantined, 3 blocked, 4 held back as it was not judged, 5 has no verdict."""
    wipe(index)
    verdicts = [
        judged(cats=0.1, soup=0.2),
        judged(cats=0.7),
        judged(cats=0.6, dogs=0.9),
        judged(soup=0.99),
        judged(cats=0.9, reason="not judged: dogs, for want of a vector"),
        None,
    ]
    index.upsert([point(number, verdict) for number, verdict in enumerate(verdicts)])
    return index


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path, "media", clock=Clock())


@pytest.fixture
def reviews(items: Collection, trail: Trail) -> Reviews:
    return Reviews(items, trail, POLICY, clock=Clock())


@pytest.fixture
def pairs(items: Collection, trail: Trail) -> Reviews:
    return Reviews(items, trail, POLICY, reviewers=2, clock=Clock())


def action(collection: Collection, number: int) -> tuple[str, str]:
    verdict = verdict_of(collection, number)
    Verdict.from_payload(verdict)
    return verdict["action"], verdict["by"]


@pytest.mark.parametrize(
    ("decision", "wanted", "said"),
    [
        (APPROVE, "allow", ()),
        (REJECT, "block", None),
        (HOLD, "quarantine", ("dogs",)),
        (of("cats"), "flag", ("cats",)),
        (of("soup", "cats"), "block", ("cats", "soup")),
        (of(), "allow", ()),
    ],
)
def test_a_decision_is_in_force(
    items: Collection, reviews: Reviews, decision: Decision, wanted: str, said: tuple[str, ...] | None
) -> None:
    before = [verdict_of(items, number) for number in range(5)]
    entries = reviews.decide([item_id(number) for number in range(6)], decision, who="alice", note="why")
    for number, entry in enumerate(entries):
        verdict = verdict_of(items, number)
        assert action(items, number) == (wanted, "person:alice")
        assert review_of(verdict).categories == said
        assert review_of(verdict).number == entry.number == number + 1
        assert review_of(verdict).state is None
        assert (entry.who, entry.what, entry.item, entry.note) == ("alice", decision.what, item_id(number), "why")
        assert entry.after == noted(verdict)
        if number < 5:
            assert entry.before == noted(before[number])
            assert verdict["categories"] == before[number]["categories"], "what was found stays"


@pytest.mark.parametrize(
    "wrong",
    [
        {"what": "approve", "action": "block"},
        {"what": "approve", "categories": ["cats"]},
        {"what": "withdraw", "categories": []},
        {"what": "recategorise"},
        {"what": "recategorise", "categories": ["cats"], "action": "block"},
        {"what": "reject", "action": "allow"},
        {"what": "undo"},
        {"what": "reject", "colour": "red"},
    ],
)
def test_what_makes_no_sense_is_no_decision(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Decision.model_validate(wrong)


@pytest.mark.parametrize("decision", [of("cats", "cars"), Decision(what="reject", categories=("cars",))])
def test_categories_are_the_policys(reviews: Reviews, trail: Trail, decision: Decision) -> None:
    with pytest.raises(InvalidRequest, match="'cars'") as error:
        reviews.decide([item_id(0)], decision, who="alice")
    assert "cats, dogs, soup" in error.value.remedy
    assert list(trail.entries()) == []


def test_withdrawing_gives_the_policys_own_verdict(items: Collection, reviews: Reviews) -> None:
    before = [verdict_of(items, number)["action"] for number in range(5)]
    ids = [item_id(number) for number in range(6)]
    reviews.decide(ids, HOLD, who="alice")
    reviews.decide(ids[:3], of("cats"), who="alice")
    reviews.decide(ids, WITHDRAW, who="alice")
    assert [action(items, number) for number in range(5)] == [(each, "policy") for each in before]
    assert action(items, 5) == ("quarantine", "policy"), "nobody has judged it"
    assert verdict_of(items, 5)["reason"].startswith("not judged")
    with pytest.raises(ReviewConflict, match="nobody"):
        reviews.decide(ids, WITHDRAW, who="alice")


def test_after_a_rescan_a_decision_stands_and_withdrawn_follows_what_was_found_last(
    items: Collection, reviews: Reviews
) -> None:
    reviews.decide([item_id(1), item_id(3)], APPROVE, who="alice")
    for number, found in ((1, judged(soup=0.9)), (3, judged(soup=0.1))):
        stored = items.get(item_id(number))
        assert stored is not None
        verdict = refreshed(stored.record.verdict, found)
        items.replace_record(stored.id, stored.record.model_copy(update={"verdict": verdict}))
        assert action(items, number) == ("allow", "person:alice")
        assert verdict["categories"] == found.to_payload()["categories"]
    reviews.decide([item_id(1)], WITHDRAW, who="alice")
    reviews.undo([2], who="alice")
    assert action(items, 1) == ("block", "policy")
    assert action(items, 3) == ("allow", "policy"), "an undone decision too"


def test_withdrawn_when_another_policy_is_in_force_is_held_back_until_it_is_judged(
    items: Collection, reviews: Reviews, trail: Trail
) -> None:
    later = Reviews(items, trail, OTHER, clock=Clock())
    reviews.decide([item_id(0)], REJECT, who="alice")
    (entry,) = later.decide([item_id(0)], WITHDRAW, who="alice")
    assert action(items, 0) == ("quarantine", "policy")
    assert "policy has changed" in verdict_of(items, 0)["reason"]
    later.undo([entry.number], who="alice")
    assert action(items, 0) == ("block", "person:alice")
    assert "reason" not in verdict_of(items, 0)
    verdict = refreshed(verdict_of(items, 0), judged(OTHER, cats=0.1))
    assert verdict["version"] == OTHER.version and verdict["action"] == "block"


def test_another_persons_decision_is_not_overwritten_unseen(items: Collection, reviews: Reviews, trail: Trail) -> None:
    ids = [item_id(number) for number in range(4)]
    (made,) = reviews.decide([ids[2]], REJECT, who="alice")
    with pytest.raises(ReviewConflict, match="decided by alice") as error:
        reviews.decide(ids, APPROVE, who="bob")
    assert error.value.details == {"conflicts": [ids[2]]}
    assert action(items, 0) == ("allow", "policy") and len(list(trail.entries())) == 1, "all or none"
    with pytest.raises(ReviewConflict, match="changed since"):
        reviews.decide(ids, APPROVE, who="bob", seen={ids[2]: 0})
    with pytest.raises(ReviewConflict, match="changed since"):
        reviews.decide(ids[2:3], APPROVE, who="alice", seen={ids[2]: 0})
    reviews.decide(ids, APPROVE, who="bob", seen={ids[2]: made.number, ids[0]: 0})
    assert action(items, 2) == ("allow", "person:bob")
    reviews.decide(ids, REJECT, who="bob")
    assert action(items, 2) == ("block", "person:bob"), "one's own can be changed"


def test_of_two_at_once_one_is_told(items: Collection, trail: Trail) -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(6)

    def decide(who: str) -> None:
        reviews = Reviews(items, Trail(trail.folder.parent.parent, "media"), POLICY)
        gate.wait()
        try:
            reviews.decide([item_id(1), item_id(2)], APPROVE, who=who, seen={item_id(1): 0, item_id(2): 0})
            outcomes.append(who)
        except ReviewConflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=decide, args=(f"p{number}",)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert outcomes.count("conflict") == 5
    (winner,) = set(outcomes) - {"conflict"}
    assert action(items, 1) == action(items, 2) == ("allow", f"person:{winner}")
    assert len(list(trail.entries())) == 2


def test_items_that_are_not_there_and_too_many_are_refused(reviews: Reviews, trail: Trail) -> None:
    with pytest.raises(ItemNotFound) as error:
        reviews.decide([item_id(0), item_id(77)], APPROVE, who="alice")
    assert error.value.details == {"items": [item_id(77)]}
    with pytest.raises(InvalidRequest):
        reviews.decide([item_id(number) for number in range(MOST_ITEMS + 1)], APPROVE, who="alice")
    with pytest.raises(InvalidRequest):
        reviews.decide([item_id(0)], APPROVE, who="")
    assert list(trail.entries()) == []
    assert len(reviews.decide([item_id(0)] * 3, APPROVE, who="alice")) == 1


def test_undo_restores_what_was_before(items: Collection, reviews: Reviews) -> None:
    ids = [item_id(number) for number in range(5)]
    before = [noted(verdict_of(items, number)) for number in range(5)]
    first = reviews.decide(ids, REJECT, who="alice")
    between = [noted(verdict_of(items, number)) for number in range(5)]
    second = reviews.decide(ids, of("cats"), who="alice")
    undone = reviews.undo([entry.number for entry in second], who="bob", note="no")
    assert [noted(verdict_of(items, number)) for number in range(5)] == between
    assert [(each.what, each.undoes, each.who) for each in undone] == [("undo", n.number, "bob") for n in second]
    with pytest.raises(ReviewConflict, match="decided on again"):
        reviews.undo([first[0].number], who="alice")
    reviews.undo([entry.number for entry in undone], who="bob")
    assert action(items, 0) == ("flag", "person:alice"), "an undo can be undone"
    reviews.decide(ids, WITHDRAW, who="alice")
    (last,) = reviews.decide(ids[:1], REJECT, who="alice")
    reviews.undo([last.number], who="alice")
    after = [noted(verdict_of(items, number)) for number in range(5)]
    assert [{**each, "at": ""} for each in after] == [{**each, "at": ""} for each in before]


def test_undo_is_for_decisions_alone(reviews: Reviews, trail: Trail) -> None:
    trail.append([Draft("root", What.POLICY)])
    reviews.decide([item_id(0)], REJECT, who="alice")
    reviews.decide([item_id(0)], APPROVE, who="alice")
    with pytest.raises(InvalidRequest):
        reviews.undo([1], who="root")
    with pytest.raises(InvalidRequest):
        reviews.undo([2, 3], who="alice")
    with pytest.raises(TrailEntryNotFound):
        reviews.undo([9], who="alice")
    assert reviews.undo([], who="alice") == []


def test_an_appeal_stays_until_it_is_decided(items: Collection, reviews: Reviews) -> None:
    reviews.decide([item_id(0)], REJECT, who="alice")
    entry = reviews.appeal(item_id(0), who="visitor", note="it is a teapot")
    verdict = verdict_of(items, 0)
    assert (entry.what, entry.note, verdict["review"]["state"]) == ("appeal", "it is a teapot", "appeal")
    assert action(items, 0) == ("block", "person:alice"), "it changes nothing by itself"
    with pytest.raises(ReviewConflict, match="already"):
        reviews.appeal(item_id(0), who="visitor", note="please")
    with pytest.raises(ReviewConflict, match="changed since"):
        reviews.decide([item_id(0)], APPROVE, who="alice", seen={item_id(0): 1})
    reviews.decide([item_id(0)], APPROVE, who="alice", seen={item_id(0): entry.number})
    assert review_of(verdict_of(items, 0)).state is None
    assert reviews.appeal(item_id(0), who="visitor", note="again").number == 4


def state(collection: Collection, number: int) -> str | None:
    return review_of(verdict_of(collection, number)).state


def test_of_two_reviewers_the_second_equal_decision_counts(items: Collection, pairs: Reviews) -> None:
    pairs.decide([item_id(1)], of("dogs", "cats"), who="alice")
    assert action(items, 1) == ("flag", "policy") and state(items, 1) == "proposed"
    pairs.decide([item_id(1)], of("dogs", "cats"), who="alice")
    assert action(items, 1) == ("flag", "policy"), "the same person does not count twice"
    pairs.decide([item_id(1)], of("cats", "dogs"), who="bob")
    assert action(items, 1) == ("quarantine", "person:bob") and state(items, 1) is None
    assert review_of(verdict_of(items, 1)).agreed == ("alice", "bob")


def test_a_dispute_is_settled_by_a_third(items: Collection, pairs: Reviews) -> None:
    pairs.decide([item_id(1)], APPROVE, who="alice")
    pairs.decide([item_id(1)], REJECT, who="bob")
    assert action(items, 1) == ("flag", "policy") and state(items, 1) == "disputed"
    pairs.decide([item_id(1)], HOLD, who="carol")
    assert state(items, 1) == "disputed"
    pairs.decide([item_id(1)], REJECT, who="dan")
    assert action(items, 1) == ("block", "person:dan") and state(items, 1) is None
    assert review_of(verdict_of(items, 1)).agreed == ("bob", "dan")


def test_a_proposal_can_be_changed_and_taken_back(items: Collection, pairs: Reviews) -> None:
    pairs.decide([item_id(1)], APPROVE, who="alice")
    pairs.decide([item_id(1)], REJECT, who="bob")
    pairs.decide([item_id(1)], WITHDRAW, who="bob")
    assert state(items, 1) == "proposed"
    pairs.decide([item_id(1)], REJECT, who="alice")
    assert state(items, 1) == "proposed" and action(items, 1) == ("flag", "policy")
    pairs.decide([item_id(1)], REJECT, who="bob")
    assert action(items, 1) == ("block", "person:bob")


def test_what_two_decided_one_alone_does_not_take_back(items: Collection, pairs: Reviews) -> None:
    pairs.decide([item_id(0)], REJECT, who="alice")
    (made,) = pairs.decide([item_id(0)], REJECT, who="bob")
    pairs.decide([item_id(0)], WITHDRAW, who="alice")
    assert action(items, 0) == ("block", "person:bob") and state(items, 0) == "proposed"
    with pytest.raises(ReviewConflict, match="decided on again"):
        pairs.undo([made.number], who="bob")
    with pytest.raises(ReviewConflict, match="alone can undo"):
        pairs.undo([made.number + 1], who="bob")
    pairs.decide([item_id(0)], WITHDRAW, who="bob")
    assert action(items, 0) == ("allow", "policy") and state(items, 0) is None


def test_who_made_a_decision_the_second_can_take_their_half_back(items: Collection, pairs: Reviews) -> None:
    pairs.decide([item_id(0)], REJECT, who="alice")
    (made,) = pairs.decide([item_id(0)], REJECT, who="bob")
    pairs.undo([made.number], who="bob")
    assert action(items, 0) == ("allow", "policy") and state(items, 0) == "proposed"


def test_a_rescan_leaves_what_is_open(items: Collection, pairs: Reviews) -> None:
    pairs.decide([item_id(1)], REJECT, who="alice")
    pairs.appeal(item_id(1), who="visitor", note="")
    verdict = refreshed(verdict_of(items, 1), judged(cats=0.2))
    assert verdict["action"] == "allow" and verdict["review"] == verdict_of(items, 1)["review"]
    assert refreshed(None, judged(cats=0.2)) == judged(cats=0.2).to_payload()


@pytest.mark.parametrize("when", ["before the trail", "before the index", "in the index", "before it is over"])
def test_what_a_crash_left_half_done_is_ended_by_the_next(
    items: Collection, reviews: Reviews, trail: Trail, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    ids = [item_id(number) for number in range(6)]

    def crash(*_: object) -> None:
        raise IndexUnavailable("gone")

    def half(changes: dict[str, Any]) -> None:
        write(dict(list(changes.items())[:3]))
        crash()

    write = items.note
    with monkeypatch.context() as patch:
        match when:
            case "before the trail":
                patch.setattr(trail, "append", crash)
            case "before the index":
                patch.setattr(items, "note", crash)
            case "in the index":
                patch.setattr(items, "note", half)
            case _:
                patch.setattr(reviews, "_done", crash)
        with pytest.raises(IndexUnavailable):
            reviews.decide(ids, REJECT, who="alice")
    again = Reviews(items, trail, POLICY, clock=Clock())
    again.settle()
    written = when != "before the trail"
    for number in range(6 if written else 5):
        verdict = verdict_of(items, number)
        assert (verdict["by"] == "person:alice") == written
        if written:
            entry = trail.numbered([review_of(verdict).number])[0]
            assert (entry.item, entry.after) == (item_id(number), noted(verdict))
    assert not (trail.folder / "pending.json").exists()
    again.decide(ids, REJECT, who="alice")
    assert json.loads((trail.folder / "head.json").read_text())["number"] == (12 if written else 6)


def test_what_is_ended_later_undoes_no_rescan_in_between(
    items: Collection, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews.decide([item_id(1)], APPROVE, who="alice")
    with monkeypatch.context() as patch:
        patch.setattr(reviews, "_done", lambda: None)
        reviews.decide([item_id(1)], WITHDRAW, who="alice")
    stored = items.get(item_id(1))
    assert stored is not None
    verdict = refreshed(stored.record.verdict, judged(soup=0.9))
    items.replace_record(stored.id, stored.record.model_copy(update={"verdict": verdict}))
    reviews.settle()
    assert action(items, 1) == ("block", "policy")


def test_of_several_entries_that_did_not_get_to_the_index_the_last_counts(
    items: Collection, reviews: Reviews, trail: Trail
) -> None:
    before = items.get(item_id(1))
    assert before is not None
    reviews.decide([item_id(1)], REJECT, who="alice")
    reviews.decide([item_id(1)], APPROVE, who="alice")
    items.replace_record(before.id, before.record)
    (trail.folder / "pending.json").write_text('{"after": 0}')
    reviews.settle()
    assert action(items, 1) == ("allow", "person:alice")
