"""Whatever people decide, undo, withdraw and appeal, and whatever crashes: the trail, replayed, is what is stored."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from indexer.errors import IndexUnavailable, ReviewConflict
from indexer.moderation.review.decisions import Reviews
from indexer.moderation.review.state import Decision, noted, refreshed, review_of
from indexer.moderation.trail import Trail
from indexer.moderation.verdicts import Verdict
from indexer.store import Collection
from tests.indexer.moderation.review.items import POLICY, Clock, collection_in, item_id, judged, point, wipe

COUNT = 3
PEOPLE = st.sampled_from(["alice", "bob", "carol"])
ITEMS = st.sets(st.integers(0, COUNT - 1), min_size=1).map(sorted)
DECISIONS = st.sampled_from(
    [
        Decision(what="approve"),
        Decision(what="reject"),
        Decision(what="reject", action="quarantine"),
        Decision(what="recategorise", categories=("cats", "dogs")),
        Decision(what="recategorise", categories=()),
        Decision(what="withdraw"),
        Decision(what="withdraw"),
    ]
)
FOUND = st.sampled_from(
    [judged(cats=0.1), judged(cats=0.9), judged(soup=0.9, dogs=0.1), judged(cats=0.2, reason="not judged: dogs")]
)


class Replay(RuleBasedStateMachine):
    index: Collection

    @initialize(reviewers=st.sampled_from([1, 2]), found=st.tuples(*[FOUND] * (COUNT - 1)))
    def begin(self, reviewers: Any, found: tuple[Verdict, ...]) -> None:
        self.stack = ExitStack()
        self.data = Path(tempfile.mkdtemp(dir=self.folder))
        self.stack.callback(shutil.rmtree, self.data)
        wipe(self.index)
        self.index.upsert([point(number, verdict) for number, verdict in enumerate((*found, None))])
        self.reviewers = reviewers
        self.clock = Clock()
        self.trail = Trail(self.data, "media", clock=self.clock)
        # By item, what the trail must come to; rescans are no part of it, and are done to it here.
        self.known: dict[str, dict[str, Any]] = {
            item_id(n): noted(verdict.to_payload()) for n, verdict in enumerate(found)
        }
        self.judged: dict[str, int] = dict.fromkeys(map(item_id, range(COUNT)), 0)
        """By item, after how many entries it was judged last."""
        self.read = 0

    folder: Path

    @property
    def reviews(self) -> Reviews:
        return Reviews(self.index, self.trail, POLICY, reviewers=self.reviewers, clock=self.clock)

    def verdicts(self) -> dict[str, dict[str, Any]]:
        stored = self.index.get_many([item_id(number) for number in range(COUNT)])
        return {each: item.record.verdict for each, item in stored.items() if item.record.verdict is not None}

    @rule(items=ITEMS, decision=DECISIONS, who=PEOPLE, fresh=st.booleans())
    def decide(self, items: list[int], decision: Decision, who: str, fresh: bool) -> None:
        ids, before = [item_id(number) for number in items], self.verdicts()
        seen = {each: review_of(before.get(each)).number for each in ids} if fresh else None
        try:
            self.reviews.decide(ids, decision, who=who, seen=seen)
        except ReviewConflict:
            assert decision.what == "withdraw" or not fresh
            assert self.verdicts() == before
            return
        for each, verdict in self.verdicts().items():
            if each not in ids:
                assert verdict == before[each]
            elif self.reviewers == 1 and decision.what != "withdraw":
                assert verdict["by"] == f"person:{who}"
            elif verdict["by"] != before.get(each, {"by": "policy"})["by"] and decision.what != "withdraw":
                assert len(set(verdict["review"]["agreed"])) == 2

    @rule(who=PEOPLE, back=st.integers(1, 6))
    def undo(self, who: str, back: int) -> None:
        before, number = self.verdicts(), self.trail.head.number + 1 - back
        if number < 1:
            return
        (entry,) = self.trail.numbered([number])
        assert entry.item is not None
        latest = review_of(before[entry.item]).number == number
        try:
            self.reviews.undo([number], who=who)
        except ReviewConflict:
            assert not latest or (self.reviewers == 2 and entry.who != who)
            assert self.verdicts() == before
            return
        assert latest
        if self.judged[entry.item] < number:
            assert noted(self.verdicts()[entry.item]) == entry.before

    @rule(number=st.integers(0, COUNT - 1))
    def appeal(self, number: int) -> None:
        before = self.verdicts()
        try:
            self.reviews.appeal(item_id(number), who="visitor", note="please")
        except ReviewConflict:
            assert review_of(before[item_id(number)]).appeal

    @rule(number=st.integers(0, COUNT - 1), found=FOUND)
    def judge_again(self, number: int, found: Verdict) -> None:
        each = item_id(number)
        stored = self.index.get(each)
        assert stored is not None
        verdict = refreshed(stored.record.verdict, found.model_copy(update={"at": self.clock()}))
        self.index.replace_record(each, stored.record.model_copy(update={"verdict": verdict}))
        anew, known = noted(verdict), self.known.get(each, {"by": "policy", "review": {}})
        stays = ("action", "by", "at", "review") if known["by"] != "policy" else ("by", "review")
        self.known[each] = {**anew, **{name: known[name] for name in stays}}
        self.judged[each] = self.trail.head.number

    @rule(items=ITEMS, decision=DECISIONS, who=PEOPLE, half=st.booleans())
    def crash(self, items: list[int], decision: Decision, who: str, half: bool) -> None:
        """The index is gone in the middle of a decision."""
        ids = [item_id(number) for number in items]
        note = self.index.note

        def gone(changes: dict[str, Any]) -> None:
            if half:
                note(dict(list(changes.items())[:1]))
            raise IndexUnavailable("gone")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.index, "note", gone)
            with pytest.raises((IndexUnavailable, ReviewConflict)):
                self.reviews.decide(ids, decision, who=who)
        self.reviews.settle()

    @invariant()
    def the_trail_replayed_is_what_is_stored(self) -> None:
        if not hasattr(self, "trail"):
            return
        for entry in self.trail.entries(after=self.read):
            assert entry.item is not None and entry.after is not None
            if entry.item in self.known:
                assert entry.before == self.known[entry.item]
            self.known[entry.item] = entry.after
            self.read = entry.number
        assert {each: noted(verdict) for each, verdict in self.verdicts().items()} == self.known
        for verdict in self.verdicts().values():
            Verdict.from_payload(verdict)
        assert self.trail.check() is None

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    with collection_in(tmp_path_factory.mktemp("replay")) as collection:
        yield collection


def test_the_trail_replayed_is_what_is_stored(index: Collection, tmp_path: Path) -> None:
    machine = type("Machine", (Replay,), {"index": index, "folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
