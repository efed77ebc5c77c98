"""Reranking in searches: the order, the pages, the deadline, and what is said of it."""

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import EncoderFailed, InvalidBundle, InvalidRequest, ModelError, NoReranker, UnknownRecipe
from indexer.items import Kind, Location, Modality, Record, now, point_id, to_payload
from indexer.models.encoder import Encoder
from indexer.rerank.comparing import Batch, Compared, Comparer, Elsewhere, Match, Text
from indexer.rerank.walk import InTurn, Walk
from indexer.settings import Settings
from indexer.store import Collection, Stored, open_store
from indexer.store.collection import Point
from search_api.engine import SearchEngine
from search_api.pages import MemoryShelf, Pages
from search_api.request import MOST_DEADLINE, SearchRequest
from search_api.reranking import Reranking
from search_api.results import SearchAnswer
from tests.rerankers import halves

COUNT = 30
TEXTS = ("red and blue", "blue", "a cat")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, colours: Path, encoder: Encoder) -> Iterator[Collection]:
    """Pictures and texts whose cosines with a query are all different, and say nothing of their names."""
    settings = Settings(data=tmp_path_factory.mktemp("reranking") / "data", model=str(colours))
    query = encoder.encode_texts(["red and blue"]).vectors[0]
    aside = np.zeros_like(query)
    aside[1], aside[4] = 0.6, 0.8
    order = np.random.default_rng(0).permutation(COUNT)
    photos = [f"{number:02}-{'red-blue' if number % 2 else 'blue-red'}" for number in range(COUNT)]
    points = []
    for far, name in enumerate([*(photos[number] for number in order), *TEXTS]):
        vector = query + 0.05 * (1 + far) * aside
        record = Record(
            kind=Kind.TEXT if name in TEXTS else Kind.IMAGE,
            sha256=f"{far:064x}",
            locations=[Location(source=f"/photos/{name}.png")],
            bytes=1,
            media_type="image/png",
            text=name if name in TEXTS else None,
            added_at=now(),
            name=f"text-{TEXTS.index(name)}" if name in TEXTS else None,
        )
        item_id = point_id("media", record.name or name)
        points.append(Point(item_id, (vector / np.linalg.norm(vector)).astype(np.float32), to_payload(record, {})))
    with open_store(settings) as store:
        made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        made.upsert(points)
        yield made


class Clock:
    """A time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Judge:
    """Compares by a rule of the test: what the file's name or the text says; each batch takes its time."""

    max_batch = 8
    is_gpu = False
    devices: ClassVar[dict[str, str]] = {}

    def __init__(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        self.clock = clock or Clock()
        self.seconds = seconds
        self.batches: list[list[str]] = []
        self.texts: list[tuple[str, float]] = []
        self.gone: set[str] = set()
        self.slow: set[str] = set()
        """Those that do not come in time."""
        self.fails = False

    @property
    def model(self) -> Any:
        return self

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk) -> Iterator[Batch]:
        self.texts = [(each.text, each.weight) for each in texts]
        names = [item.record.text or Path(item.record.locations[0].source).stem for item in items]
        for at in range(0, len(names), self.max_batch):
            some = names[at : at + self.max_batch]
            if walk.run(partial(self.score, some)) is None:
                return
            matches = {place: None if name in self.gone else match(name) for place, name in enumerate(some, at)}
            yield Batch({place: each for place, each in matches.items() if names[place] not in self.slow})

    def score(self, names: list[str]) -> None:
        if self.fails:
            raise EncoderFailed("The session is lost.")
        self.clock.now += self.seconds
        self.batches.append(names)

    @property
    def seen(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


def match(name: str) -> Match:
    """The higher the number in a name, the better; a red left half is better than any number."""
    score = float(name[:2]) + 100 * name.endswith("red-blue") if name[:2].isdigit() else -len(name)
    return Match(score - 0.5, 0.5, score)


class Installed:
    """Rerankers of the test, by modality."""

    def __init__(self, **comparers: Comparer) -> None:
        self.comparers = comparers
        self.opened = True
        self.waited: list[float | None] = []

    def of(self, modality: Modality) -> Comparer:
        if modality not in self.comparers:
            raise NoReranker(f"There is none for {modality}.", remedy=f"Run `crosslens models export for-{modality}`.")
        return self.comparers[modality]

    def is_open(self, modality: Modality, seconds: float | None) -> bool:
        self.of(modality)
        self.waited.append(seconds)
        return self.opened


def engine_of(collection: Collection, encoder: Encoder, reranking: Reranking | None) -> SearchEngine:
    pages = Pages(MemoryShelf())
    return SearchEngine(encoder, collection, max_pixels=10**6, pages=pages, reranking=reranking)


def reranking(installed: Installed, clock: Clock | None = None, **options: Any) -> Reranking:
    return Reranking(installed, clock=clock or Clock(), **options)  # type: ignore[arg-type]


def ask(engine: SearchEngine, **request: Any) -> SearchAnswer:
    request = {"query": [{"text": "red and blue"}], "rerank": True, "kind": "image", **request}
    return engine.search(SearchRequest.parse({name: value for name, value in request.items() if value is not None}))


def names(answer: SearchAnswer) -> list[str]:
    return [each.record.text or Path(each.source).stem for each in answer.results]


def best_first(some: Sequence[str]) -> list[str]:
    return sorted(some, key=lambda name: -match(name).score)


def test_the_best_are_put_in_the_models_order_and_the_rest_stays_behind(
    collection: Collection, encoder: Encoder
) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    plain = ask(engine, rerank=None, limit=COUNT)
    assert plain.reranked is None
    assert "rerank" not in plain.stages
    assert "reranked" not in plain.as_dict()
    answer = ask(engine, limit=COUNT, rerank={"top": 12})
    before = names(plain)
    assert judge.batches == [before[:8], before[8:12]]
    assert names(answer) == best_first(before[:12]) + before[12:]
    assert answer.as_dict()["reranked"] == 12
    assert answer.stages.keys() == {"tokenize", "encode", "search", "rerank", "rank"}
    assert answer.warnings == []
    # The scores are still the embedding's.
    of_plain = {each.id: (each.score, each.relevance) for each in plain.results}
    assert {each.id: (each.score, each.relevance) for each in answer.results} == of_plain


def test_both_scores_and_the_place_before_are_explained(collection: Collection, encoder: Encoder) -> None:
    engine = engine_of(collection, encoder, reranking(Installed(image=Judge())))
    before = names(ask(engine, rerank=None, limit=COUNT))
    results = ask(engine, limit=COUNT, rerank={"top": 5}, explain=True).as_dict()["results"]
    for place, result in enumerate(results):
        name = Path(result["source"]).stem
        if place < 5:
            expected = match(name)
            assert result["rerank"] == {
                "matching": expected.matching,
                "contrastive": 0.5,
                "score": expected.score,
                "place_before": before.index(name) + 1,
            }
        else:
            assert "rerank" not in result
        assert result["explain"]
    assert all("rerank" not in each for each in ask(engine).as_dict()["results"])


@pytest.mark.parametrize("limit", [1, 4, 7])
@pytest.mark.parametrize("top", [3, 20])
def test_pages_walk_the_reranked_list_and_are_not_reranked_again(
    collection: Collection, encoder: Encoder, limit: int, top: int
) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    whole = ask(engine, limit=COUNT, rerank={"top": top})
    judge.batches.clear()
    answer = ask(engine, limit=limit, rerank={"top": top}, explain=True)
    pages = [answer]
    while answer.cursor is not None:
        answer = engine.search(SearchRequest.parse({"cursor": answer.cursor, "limit": limit}))
        pages.append(answer)
    assert [name for page in pages for name in names(page)] == names(whole)
    assert len(judge.seen) == top
    assert {page.reranked for page in pages} == {top}
    assert all("rerank" not in page.stages for page in pages[1:])
    explained = [each.rerank for page in pages for each in page.results]
    assert sorted(each["place_before"] for each in explained[:top] if each is not None) == list(range(1, top + 1))
    assert set(explained[top:]) == {None}


def test_pictures_and_texts_change_places_among_their_like(collection: Collection, encoder: Encoder) -> None:
    pictures, texts = Judge(), Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=pictures, text=texts)))
    before = ask(engine, rerank=None, kind=None, limit=COUNT)
    answer = ask(engine, kind=None, limit=COUNT, rerank={"top": 10})
    kinds = [each.record.kind for each in before.results]
    assert [each.record.kind for each in answer.results] == kinds
    assert (len(pictures.seen), len(texts.seen), answer.reranked) == (7, 3, 10)
    assert [name for name in names(answer) if name in TEXTS] == best_first(TEXTS)
    assert answer.warnings == []


def test_what_no_model_is_installed_for_keeps_its_order_which_is_said(collection: Collection, encoder: Encoder) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    before = ask(engine, rerank=None, kind=None, limit=COUNT)
    answer = ask(engine, kind=None, limit=COUNT)
    assert [name for name in names(answer) if name in TEXTS] == [name for name in names(before) if name in TEXTS]
    assert answer.reranked == COUNT
    (warning,) = answer.warnings
    assert warning.startswith("Texts keep their order")
    assert "`crosslens models export for-text`" in warning
    assert ask(engine).warnings == []  # nobody asked for texts
    with pytest.raises(NoReranker, match="text"):
        ask(engine, kind="text")
    with pytest.raises(NoReranker):
        ask(engine_of(collection, encoder, reranking(Installed())), kind=None)
    with pytest.raises(InvalidRequest, match="nothing is reranked here"):
        ask(engine_of(collection, encoder, None))


def test_terms_that_take_no_part_are_named(collection: Collection, encoder: Encoder) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    picture = {"image": halves("red", "blue")}
    queries: list[tuple[list[dict[str, Any]], int]] = [
        ([{"text": "red"}, {"text": "blue", "weight": 2}], 0),
        ([{"text": "red"}, {"text": "blue", "weight": -0.5}], 1),
        ([{"text": "red"}, picture, {"text": "green", "weight": -1}], 2),
    ]
    for query, others in queries:
        judge.batches.clear()
        (*warnings,) = ask(engine, query=query).warnings
        toward = [
            (term["text"], term.get("weight", 1)) for term in query if term.get("weight", 1) > 0 and "text" in term
        ]
        assert judge.texts == toward
        assert len(warnings) == (1 if others else 0)
        assert all(("another term" if others == 1 else f"{others} other terms") in each for each in warnings)
    judge.batches.clear()
    for alone in ([picture], [{"vector": [1.0] * encoder.dimension}]):
        answer = ask(engine, query=alone)
        assert answer.reranked == 0
        assert "no text that leads toward" in answer.warnings[0]
        assert names(answer) == names(ask(engine, query=alone, rerank=None))
    liked = ask(engine, query=[], like=["text-0"])
    assert "no text that leads toward" in liked.warnings[0]
    assert judge.seen == []


def test_the_templates_of_the_encoder_are_not_the_rerankers(collection: Collection, encoder: Encoder) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    ask(engine, query=[{"text": "red", "template": "a photo of {}"}])
    assert judge.texts == [("red", 1.0)]


@given(seconds=st.floats(0.01, 0.5), deadline=st.integers(1, 1000))
def test_time_that_is_up_leaves_the_rest_in_its_order(seconds: float, deadline: int) -> None:
    clock = Clock()
    judge = Judge(clock, seconds)
    items = [f"{number:02}-x" for number in range(60)]
    named: Any = [Named(name) for name in items]
    done = reranking(Installed(image=judge), clock).compare("image", [Text("x", 1.0)], named, deadline / 1000)
    assert clock.now - 100.0 <= deadline / 1000 + seconds + 1e-9  # one batch late at most
    reached = len(done.found)
    assert reached == min(60, 8 * len(judge.batches))
    placed = [items[place] for place in done.order]
    assert placed == items[:reached][::-1] + items[reached:]


class Crowd:
    """Others who use the model: a turn comes after a while, or not in time."""

    def __init__(self, clock: Clock, chance: np.random.Generator) -> None:
        self.clock, self.chance = clock, chance
        self.taken = 0

    def take(self, seconds: float) -> bool:
        wait = float(self.chance.exponential(0.1))
        self.clock.now += min(wait, seconds)
        self.taken += wait <= seconds
        return wait <= seconds

    def give_back(self) -> None:
        self.taken -= 1


def test_five_hundred_searches_in_a_crowd_are_late_by_no_more_than_a_batch() -> None:
    chance = np.random.default_rng(0)
    items: Any = [Named(f"{number:02}-x") for number in range(50)]
    cut_short = 0
    for _ in range(500):
        clock = Clock()
        crowd = Crowd(clock, chance)
        judge = Judge(clock, float(chance.uniform(0.005, 0.2)))
        deadline = float(chance.uniform(0.05, 0.5))
        done = reranking(Installed(image=judge), clock, turns=crowd).compare("image", [Text("x", 1.0)], items, deadline)
        assert clock.now - 100.0 <= deadline + judge.seconds + 1e-9
        assert crowd.taken == 0
        assert done.scored == min(50, 8 * len(judge.batches))
        cut_short += done.scored < 50
    assert 100 < cut_short < 500


class Named:
    """As much of an item as the judge looks at."""

    def __init__(self, name: str) -> None:
        self.record = type("Record", (), {"text": name})


def test_how_far_it_came_is_said(collection: Collection, encoder: Encoder) -> None:
    clock = Clock()
    engine = engine_of(collection, encoder, reranking(Installed(image=Judge(clock, 0.1)), clock))
    answer = ask(engine, rerank={"top": 25, "deadline_ms": 250}, limit=COUNT)
    assert answer.reranked == 16
    assert answer.warnings == ["Reranked 16 of 25 within 250 ms: the others keep their order."]
    before = names(ask(engine, rerank=None, limit=COUNT))
    assert names(answer) == best_first(before[:16]) + before[16:]


def test_texts_have_what_time_pictures_leave(collection: Collection, encoder: Encoder) -> None:
    clock = Clock()
    pictures, texts = Judge(clock, 0.1), Judge(clock, 0.1)
    engine = engine_of(collection, encoder, reranking(Installed(image=pictures, text=texts), clock))
    answer = ask(engine, kind=None, rerank={"top": 11, "deadline_ms": 90}, limit=COUNT)
    assert (len(pictures.seen), len(texts.seen)) == (8, 0)
    assert answer.warnings == ["Reranked 8 of 11 within 90 ms: the others keep their order."]


def test_who_gets_no_turn_in_time_keeps_the_order(collection: Collection, encoder: Encoder) -> None:
    judge = Judge()
    turns = InTurn()
    engine = engine_of(collection, encoder, Reranking(Installed(image=judge), turns=turns))  # type: ignore[arg-type]
    assert turns.take(0)
    answer = ask(engine, rerank={"deadline_ms": 1})
    assert (answer.reranked, judge.seen) == (0, [])
    assert names(answer) == names(ask(engine, rerank=None))
    assert answer.warnings == ["Reranked 0 of 30 within 1 ms: the others keep their order."]
    turns.give_back()
    assert ask(engine, rerank={"deadline_ms": 60_000}).reranked == COUNT
    assert turns.take(0)  # it was given back


def test_no_more_run_at_once_than_there_are_turns(collection: Collection, encoder: Encoder) -> None:
    at_work, most = 0, 0
    lock = threading.Lock()
    met = threading.Barrier(2)

    class Counted(Judge):
        def score(self, names: list[str]) -> None:
            nonlocal at_work, most
            with lock:
                at_work += 1
                most = max(most, at_work)
            met.wait(30)  # two are inside at the same time, or this test fails
            try:
                super().score(names)
            finally:
                with lock:
                    at_work -= 1

    installed = Installed(image=Counted())
    engine = engine_of(collection, encoder, Reranking(installed, turns=InTurn(2)))  # type: ignore[arg-type]
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(names(ask(engine, rerank={"top": 8, "deadline_ms": 30_000}))))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 2
    assert len(found) == 6
    assert all(each == found[0] for each in found)


def test_a_model_that_is_still_being_opened_is_not_waited_for_too_long(
    collection: Collection, encoder: Encoder
) -> None:
    installed = Installed(image=Judge())
    installed.opened = False
    engine = engine_of(collection, encoder, reranking(installed))
    answer = ask(engine, rerank={"deadline_ms": 200})
    assert installed.waited == [pytest.approx(0.2)]
    assert answer.reranked == 0
    assert "being opened" in answer.warnings[0]
    assert names(answer) == names(ask(engine, rerank=None))
    installed.opened = True
    installed.waited.clear()
    assert ask(engine_of(collection, encoder, reranking(installed, patient=True))).reranked == COUNT
    assert installed.waited == [None]


def test_a_model_that_fails_fails_no_search(collection: Collection, encoder: Encoder) -> None:
    judge = Judge()
    judge.fails = True
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    answer = ask(engine)
    assert answer.reranked == 0
    assert "does not run" in answer.warnings[0]
    assert "lost" not in answer.warnings[0]  # what is wrong inside is the log's
    assert names(answer) == names(ask(engine, rerank=None))


def test_pictures_that_are_gone_stand_behind_those_reranked(collection: Collection, encoder: Encoder) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    before = names(ask(engine, rerank=None, limit=COUNT))
    judge.gone = {before[0], before[4]}
    answer = ask(engine, rerank={"top": 6}, limit=COUNT)
    there = [name for name in before[:6] if name not in judge.gone]
    assert names(answer) == [*best_first(there), before[0], before[4], *before[6:]]
    assert answer.reranked == 4
    assert answer.warnings[0].startswith("2 pictures could not be looked at")


def test_what_did_not_come_in_time_keeps_its_place_and_is_not_called_gone(
    collection: Collection, encoder: Encoder
) -> None:
    judge = Judge()
    engine = engine_of(collection, encoder, reranking(Installed(image=judge)))
    before = names(ask(engine, rerank=None, limit=COUNT))
    judge.slow = set(before[:8]) - {before[5]}
    answer = ask(engine, rerank={"top": 8}, limit=COUNT, explain=True)
    assert names(answer) == before, "of one that was compared nothing is known but its own score"
    assert answer.reranked == 1
    assert answer.warnings == ["Reranked 1 of 8 within 300 ms: the others keep their order."]
    assert [place for place, each in enumerate(answer.results) if each.rerank] == [5]
    judge.slow, judge.gone = {before[0], before[3]}, {before[1]}
    answer = ask(engine, rerank={"top": 5}, limit=COUNT)
    first, second = best_first([before[2], before[4]])
    assert names(answer)[:5] == [before[0], first, second, before[3], before[1]]
    assert answer.warnings == [
        "1 picture could not be looked at (gone or damaged): behind those reranked.",
        "Reranked 2 of 5 within 300 ms: the others keep their order.",
    ]


class Hindered(Elsewhere):
    """A worker that fails in the middle."""

    def compare_list(self, texts: Sequence[Text], items: Sequence[Stored], seconds: float) -> Compared:
        scores = {at: match(Path(items[at].record.locations[0].source).stem) for at in range(3)}
        return Compared(len(items), scores, hindered="No worker that reranks is there.")


def test_what_else_than_the_time_was_short_is_said(collection: Collection, encoder: Encoder) -> None:
    engine = engine_of(collection, encoder, reranking(Installed(image=Hindered())))  # type: ignore[arg-type]
    answer = ask(engine, rerank={"top": 10}, limit=COUNT)
    assert answer.reranked == 3
    assert answer.warnings == [
        "Reranked 3 of 10 pictures, and the others keep their order: no worker that reranks is there."
    ]


class Broken(Installed):
    """What is not there is broken."""

    def __init__(self, error: ModelError, **comparers: Comparer) -> None:
        super().__init__(**comparers)
        self.error = error

    def of(self, modality: Modality) -> Comparer:
        if modality not in self.comparers:
            raise self.error
        return self.comparers[modality]


@pytest.mark.parametrize("error", [InvalidBundle("/srv/cross-encoder is cut off."), UnknownRecipe("No such recipe.")])
def test_a_broken_model_of_one_kind_hinders_not_the_other(
    collection: Collection, encoder: Encoder, error: ModelError
) -> None:
    engine = engine_of(collection, encoder, reranking(Broken(error, image=Judge())))
    answer = ask(engine, kind=None, limit=COUNT)
    assert answer.reranked == COUNT
    (warning,) = answer.warnings
    assert warning.startswith(f"Texts keep their order: the model that reranks them cannot be used ({error.code}).")
    assert error.remedy in warning
    assert "/srv" not in warning  # what is wrong inside is the log's
    assert ask(engine).warnings == []
    with pytest.raises(type(error)):
        ask(engine, kind="text")
    with pytest.raises(type(error)):  # rather than that the other is not installed
        reranking(Half(error)).check(None)


class Half(Broken):
    """One is missing, the other broken."""

    def of(self, modality: Modality) -> Comparer:
        if modality == "image":
            raise NoReranker("None.")
        raise self.error


def test_a_search_that_waits_for_slow_originals_keeps_nobody_from_reranking(
    collection: Collection, encoder: Encoder
) -> None:
    waits, goes_on = threading.Event(), threading.Event()

    class Waiting(Judge):
        def compare(self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk) -> Iterator[Batch]:
            waits.set()
            assert goes_on.wait(60)
            yield from super().compare(texts, items, walk)

    turns = InTurn()
    slow, quick = (
        engine_of(collection, encoder, Reranking(Installed(image=judge), turns=turns))  # type: ignore[arg-type]
        for judge in (Waiting(), Judge())
    )
    patient = {"deadline_ms": 60_000}
    thread = threading.Thread(target=ask, args=(slow,), kwargs={"rerank": patient})
    thread.start()
    assert waits.wait(60)
    assert ask(quick, rerank=patient).reranked == COUNT
    goes_on.set()
    thread.join(60)


def test_a_batch_of_searches_is_reranked_each_for_itself(collection: Collection, encoder: Encoder) -> None:
    clock = Clock()
    judge = Judge(clock, 0.01)
    engine = engine_of(collection, encoder, reranking(Installed(image=judge), clock))
    bodies: list[dict[str, Any]] = [
        {"query": [{"text": "red"}], "kind": "image", "rerank": {"top": 5}},
        {"query": [{"text": "red"}], "kind": "image"},
        {"query": [{"text": "blue"}], "kind": "image", "rerank": True},
    ]
    requests = [SearchRequest.parse(body) for body in bodies]
    answers = engine.search_many(requests)
    assert [answer.reranked for answer in answers] == [5, None, COUNT]
    assert ["rerank" in answer.stages for answer in answers] == [True, False, True]
    for request, answer in zip(requests, answers, strict=True):
        assert names(answer) == names(engine.search(request))


def test_the_searches_of_a_batch_have_no_more_time_than_one_may_have(
    collection: Collection, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    engine = engine_of(collection, encoder, reranking(Installed(image=Judge())))
    laps = iter(range(10))

    def note(self: Reranking, ranking: Any, asked: Any, *, most_ms: float) -> None:
        given.append(most_ms)
        next(laps)

    monkeypatch.setattr(Reranking, "rerank", note)
    body = {"query": [{"text": "red"}], "rerank": {"deadline_ms": MOST_DEADLINE}}
    engine.search_many([SearchRequest.parse(body)] * 3)
    assert given[0] == MOST_DEADLINE
    assert given[0] > given[1] > given[2]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"rerank": {"top": 0}}, "top"),
        ({"rerank": {"top": 201}}, "top"),
        ({"rerank": {"deadline_ms": 0}}, "deadline_ms"),
        ({"rerank": {"deadline_ms": 60_001}}, "deadline_ms"),
        ({"rerank": {"first": 3}}, "first"),
        ({"rerank": 3}, "rerank"),
        ({"rerank": None}, "rerank"),
        ({"rerank": True, "diversity": 0.5}, "diversity"),
        ({"rerank": True, "order_by": "year"}, "order_by"),
        ({"rerank": True, "query": []}, "rerank"),
        ({"rerank": True, "query": [], "cursor": "x"}, "rerank"),
    ],
)
def test_what_makes_no_sense_is_refused(body: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        SearchRequest.parse({"query": [{"text": "red"}], **body})
