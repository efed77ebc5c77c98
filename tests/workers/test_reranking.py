"""Reranking through the queue: a real Valkey, a real worker; away, killed, late and lied to, searches keep their order."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

import hypothesis
import pytest
import redis
import structlog
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from indexer.cli import main
from indexer.errors import EncoderFailed, NoReranker, RerankerAway, UsageError
from indexer.items import Kind, Location, Modality, Record, now
from indexer.media.originals import Originals
from indexer.rerank.comparing import Batch, Comparer, Match, Text
from indexer.rerank.features import feature_key
from indexer.rerank.rerankers import Rerankers
from indexer.rerank.walk import InTurn, Walk
from indexer.settings import Settings
from indexer.store.points import Stored
from tests.rerankers import item, make_reranker, make_text_reranker, twelve_pictures
from tests.waiting import until
from tests.workers.conftest import Cluster
from workers.broker import redis_url
from workers.children import children
from workers.meters import RERANK, RERANK_QUEUE, Meters
from workers.rerank import line as line_module
from workers.rerank.elsewhere import WorkerRerankers
from workers.rerank.line import Line
from workers.rerank.messages import (
    HURRIED_MS,
    MOST_BYTES,
    MOST_ITEMS,
    MOST_WAITING,
    QUEUES,
    WORKERS,
    Answer,
    Item,
    Model,
    Present,
    Request,
    answers_key,
    finished,
    queue,
    request_key,
    written,
)
from workers.rerank.worker import AT_ONCE, HURRIED, RerankWorker

TEXTS = [Text("red left", 1.0), Text("blue right", 0.5)]
LONG = 60.0
FIRST: Match = Match(0.5, 0.25, 0.75)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Stored]:
    """Twelve pictures on disk, as an index would give them; the last one's file is gone."""
    items = twelve_pictures(tmp_path)
    (tmp_path / "11.png").unlink()
    return items


def some(count: int) -> list[Stored]:
    return [item(f"{number:064x}", f"/photos/{number}.png") for number in range(count)]


def installed(settings: Settings, *, texts: bool = False) -> Settings:
    settings.models_folder.mkdir(parents=True, exist_ok=True)
    make_reranker(settings.models_folder)
    if texts:
        make_text_reranker(settings.models_folder)
    return settings


@contextmanager
def elsewhere(settings: Settings, **options: Any) -> Iterator[WorkerRerankers]:
    """The API's side."""
    rerankers = WorkerRerankers(
        settings, line=Line(settings, **options), **{k: options[k] for k in options if k == "clock"}
    )
    try:
        yield rerankers
    finally:
        rerankers.close()


def ready(rerankers: WorkerRerankers, modality: Modality = "image") -> None:
    """Wait for a worker whose model is open."""

    def is_open() -> bool:
        try:
            return rerankers.is_open(modality, 1.0)
        except (RerankerAway, NoReranker):
            return False

    until(is_open)


def client(settings: Settings) -> Any:
    return redis.Redis.from_url(redis_url(settings))


class Clock:
    """A time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Judge:
    """Compares at once, by a rule of the test; what it does beside that is the test's."""

    max_batch = 4
    is_gpu = False
    devices: ClassVar[dict[str, str]] = {}
    name = "judge"

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.batches: list[int] = []
        self.meanwhile = meanwhile

    @property
    def model(self) -> Any:
        return self

    def compare(self, texts: Sequence[Text], items: Sequence[Stored], walk: Walk) -> Iterator[Batch]:
        for at in range(0, len(items), self.max_batch):
            count = len(items[at : at + self.max_batch])
            if (ran := walk.run(partial(self.score, count))) is None:
                return
            yield Batch(dict.fromkeys(range(at, at + count), FIRST), seconds=ran.seconds)

    def score(self, count: int) -> None:
        self.batches.append(count)
        self.meanwhile()


class Installed:
    """A worker's rerankers, of the test."""

    def __init__(self, image: Comparer, *, opened: bool = True) -> None:
        self.image = image
        self.opened = opened

    def of(self, modality: Modality) -> Comparer:
        if modality == "text":
            raise NoReranker("None for texts.")
        return self.image

    def is_open(self, modality: Modality, seconds: float | None) -> bool:
        return self.opened

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def working(settings: Settings, judge: Judge, **options: Any) -> Iterator[RerankWorker]:
    """A worker in this process that has said that it is there, and takes what the test has it take."""
    worker = RerankWorker(settings, rerankers=Installed(judge), **options)  # type: ignore[arg-type]
    worker.beat()
    try:
        yield worker
    finally:
        worker.close()


def push(
    settings: Settings, count: int = 1, ms: int = 60_000, life: int | None = None, to: Modality = "image",
    **changed: Any,
) -> str:  # fmt: skip
    """A request in the queue, as the API writes it but for what is changed; the name of its answers."""
    reply, request_id = secrets.token_hex(16), secrets.token_hex(16)
    document = json.loads(finished(written(request_id, reply, to, TEXTS, some(count))[0], ms)) | changed
    client(settings).set(request_key(request_id), json.dumps(document), px=life or ms)
    client(settings).rpush(queue(to, ms), request_id)
    return reply


def answers(settings: Settings, reply: str) -> list[Answer]:
    return [Answer.model_validate_json(each) for each in client(settings).lrange(answers_key(reply), 0, -1)]


# Both ends


def test_a_worker_gives_the_scores_that_the_server_itself_would(cluster: Cluster, pictures: list[Stored]) -> None:
    settings = installed(cluster.settings, texts=True)
    texts = [item("0" * 64, text=text) for text in ("a cat", "a dog and a bird", "red " * 20)]
    process = cluster.start_worker("rerank")
    own = Rerankers(settings, lambda: Originals.of(settings))
    with elsewhere(settings) as rerankers:
        for modality, items, queries in (("image", pictures, TEXTS), ("text", texts, [Text("a red cat", 2.0)])):
            walk = Walk(LONG)
            expected = list(own.of(modality).compare(queries, items, walk))  # type: ignore[arg-type]
            ready(rerankers, modality)  # type: ignore[arg-type]
            found = rerankers.of(modality).compare_list(queries, items, LONG)  # type: ignore[arg-type]
            assert found.found == {place: match for each in expected for place, match in each.found.items()}
            assert (found.count, found.hindered) == (len(items), "")
            assert len(found.found) == len(items)
            assert found.truncated == any(each.truncated for each in expected)
        assert found.truncated
        assert rerankers.names() == {"image": "blip2-itm", "text": "cross-encoder"}
        rerankers.check()
        # What was seen is kept by the worker, in its data folder.
        assert len([path for path in settings.rerank_folder.rglob("*") if path.is_file()]) == len(pictures) - 1
        until(lambda: {RERANK, RERANK_QUEUE} <= Meters(client(settings)).read()[0].keys())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert client(settings).zcard(WORKERS) == 0
        assert cluster.jobs.workers() == {}
    own.close()


def test_nobody_there_is_known_at_once_and_nothing_is_sent(cluster: Cluster) -> None:
    settings = cluster.settings
    with elsewhere(settings) as rerankers:
        handle = rerankers.of("image")  # no error: what it is asked says so
        with pytest.raises(RerankerAway, match="No worker that reranks is there"):
            rerankers.is_open("image", LONG)
        with pytest.raises(RerankerAway, match="No worker"):
            handle.compare_list(TEXTS, some(3), LONG)
        assert rerankers.names() == {"image": None, "text": None}
        with pytest.raises(RerankerAway):
            rerankers.check()
        assert client(settings).llen(queue("image", 60_000)) == 0


def test_a_queue_that_is_away_is_known_at_once(settings: Settings) -> None:
    with elsewhere(settings) as rerankers:
        with pytest.raises(RerankerAway, match="does not answer"):
            rerankers.is_open("image", LONG)
        with pytest.raises(RerankerAway, match="does not answer"):
            rerankers.of("image").compare_list(TEXTS, some(3), LONG)


class Patience:
    """An inbox in which the time passes that is waited, and no other."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.queue: SimpleQueue[Any] = SimpleQueue()

    def put(self, item: Any) -> None:
        self.queue.put(item)

    def get(self, block: bool, timeout: float) -> Any:
        self.clock.now += timeout
        raise Empty


def test_without_an_answer_a_search_waits_until_its_deadline_and_no_longer(cluster: Cluster) -> None:
    clock = Clock()
    with working(cluster.settings, Judge()), elsewhere(
        cluster.settings, clock=clock, inbox=lambda: Patience(clock)
    ) as rerankers:  # fmt: skip
        ready(rerankers)
        began = clock.now
        compared = rerankers.of("image").compare_list(TEXTS, some(9), 0.3)
        assert clock.now == pytest.approx(began + 0.3)
        assert (compared.found, compared.hindered) == ({}, "")


def test_a_redis_that_stands_still_holds_no_search_up(cluster: Cluster) -> None:
    assert cluster.broker is not None
    clock = Clock()
    with working(cluster.settings, Judge()), elsewhere(
        cluster.settings, clock=clock, inbox=lambda: Patience(clock)
    ) as rerankers:  # fmt: skip
        ready(rerankers)
        cluster.broker.send_signal(signal.SIGSTOP)
        try:
            assert rerankers.of("image").compare_list(TEXTS, some(9), 0.3).found == {}
            clock.now += line_module._STALE_SECONDS  # then it is known
            with pytest.raises(RerankerAway, match="does not answer"):
                rerankers.of("image").compare_list(TEXTS, some(9), LONG)
        finally:
            cluster.broker.send_signal(signal.SIGCONT)


SLOW = """
import sys, time
from pathlib import Path
from indexer.settings import Settings
from tests.workers.test_reranking import Installed, Judge
from workers.rerank.worker import RerankWorker
judge = Judge(lambda: len(judge.batches) > 2 and (Path(sys.argv[1]).touch(), time.sleep(600)))
RerankWorker(Settings(), rerankers=Installed(judge)).run()
"""


def test_what_a_worker_gave_before_it_was_killed_counts_and_the_next_one_takes_over(
    cluster: Cluster, tmp_path: Path, pictures: list[Stored]
) -> None:
    settings = installed(cluster.settings)
    stuck = tmp_path / "stuck"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(stuck)])
    cluster.processes.append(process)

    class Killing(SimpleQueue[Any]):
        """Once two batches are taken out, the worker is killed in its third, and it is waited until that is known."""

        taken = 0

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if self.taken == 2:
                until(stuck.exists)
                process.kill()
                process.wait()
                until(lambda: gone(rerankers))
                raise Empty
            self.taken += 1
            return super().get(block, 60)

    with elsewhere(settings, inbox=Killing) as rerankers:
        ready(rerankers)
        compared = rerankers.of("image").compare_list(TEXTS, pictures, LONG)
        assert compared.found == dict.fromkeys(range(8), FIRST)
        assert (compared.count, compared.hindered) == (12, "No worker that reranks is there.")
        with pytest.raises(RerankerAway):
            rerankers.is_open("image", LONG)
    cluster.start_worker("rerank")
    with elsewhere(settings) as rerankers:
        ready(rerankers)
        assert rerankers.of("image").compare_list(TEXTS, pictures, LONG).scored == 11


def gone(rerankers: WorkerRerankers) -> bool:
    try:
        return not rerankers._line.workers()
    except RerankerAway:
        return True


def test_a_model_that_fails_is_an_error_and_what_it_gave_before_counts(cluster: Cluster) -> None:
    def fail() -> None:
        if len(judge.batches) > 1:
            raise EncoderFailed("The session is lost.")

    judge = Judge(fail)
    with working(cluster.settings, judge) as worker, elsewhere(cluster.settings) as rerankers:
        ready(rerankers)
        with answering(worker):
            compared = rerankers.of("image").compare_list(TEXTS, some(9), LONG)
            assert compared.scored == 4
            assert "A worker that reranks failed: encoder_failed" in compared.hindered
        with answering(worker), pytest.raises(EncoderFailed, match="encoder_failed"):
            rerankers.of("image").compare_list(TEXTS, some(9), LONG)


@contextmanager
def answering(worker: RerankWorker) -> Iterator[None]:
    """One request is answered beside."""
    thread = threading.Thread(target=lambda: until(lambda: worker.take(0.1)))
    thread.start()
    yield
    thread.join()


# The worker


def test_a_walk_ends_within_what_the_request_has_left(cluster: Cluster) -> None:
    clock = Clock()

    def tick() -> None:
        clock.now += 0.1

    judge = Judge(tick)
    with working(cluster.settings, judge, clock=clock) as worker:
        reply = push(cluster.settings, count=40, ms=60_000, life=60_000)
        until(lambda: worker.take(1))
        assert judge.batches == [4] * 10
        reply = push(cluster.settings, count=40, ms=350, life=60_000)
        judge.batches.clear()
        until(lambda: worker.take(1))
        # Three of a tenth of a second; a fourth would be late.
        assert judge.batches == [4] * 3
        found = answers(cluster.settings, reply)
        assert [(list(each.found), each.over) for each in found] == [
            ([0, 1, 2, 3], False), ([4, 5, 6, 7], False), ([8, 9, 10, 11], False), ([], True),
        ]  # fmt: skip
        assert found[0].matches() == dict.fromkeys(range(4), FIRST)
        assert 0 < client(cluster.settings).ttl(answers_key(reply)) <= 60


def test_what_a_request_waited_in_the_queue_is_taken_off(cluster: Cluster) -> None:
    """It said 60 seconds, and Redis has it for 10 more: it waited 50, whatever this machine's clock says."""
    clock = Clock()

    def tick() -> None:
        clock.now += 3.0

    judge = Judge(tick)
    with working(cluster.settings, judge, clock=clock) as worker:
        push(cluster.settings, count=40, ms=60_000, life=10_000)
        until(lambda: worker.take(1))
        assert judge.batches == [4] * 3
        worker.beat()
        waited = Meters(client(cluster.settings)).read()[0][RERANK_QUEUE].seconds
        assert waited.sum == pytest.approx(50, abs=5)


def test_a_flood_of_expired_requests_is_dropped_unscored(cluster: Cluster) -> None:
    judge = Judge()
    redis_ = client(cluster.settings)
    with working(cluster.settings, judge) as worker:
        replies = [push(cluster.settings, count=8, ms=1) for _ in range(300)]
        until(lambda: not list(redis_.scan_iter(match=request_key("*"), count=1000)))
        last = push(cluster.settings, count=8)
        until(lambda: worker.take(1))
        assert judge.batches == [4, 4]
        assert not redis_.exists(*map(answers_key, replies))
        assert list(answers(cluster.settings, last)[-1].found) == [4, 5, 6, 7]


class Both(Installed):
    """The same model for pictures and texts."""

    def of(self, modality: Modality) -> Comparer:
        return self.image


def test_texts_do_not_wait_until_no_pictures_do(cluster: Cluster) -> None:
    settings, judge = cluster.settings, Judge()
    worker = RerankWorker(settings, rerankers=Both(judge))  # type: ignore[arg-type]
    worker.beat()
    pictures_ = [push(settings, ms=1000, life=60_000) for _ in range(6)]
    text = push(settings, ms=1000, life=60_000, to="text")
    patient = push(settings, to="text")
    for _ in range(4):
        until(lambda: worker.take(1))
    assert answers(settings, text)
    assert answers(settings, patient)
    assert sum(bool(answers(settings, each)) for each in pictures_) == 2
    worker.close()


def test_some_of_a_workers_threads_are_kept_for_those_in_a_hurry(cluster: Cluster) -> None:
    settings = cluster.settings
    goes_on = threading.Event()
    judge = Judge(lambda: goes_on.wait(60))
    turns = InTurn(2 * AT_ONCE)
    worker = RerankWorker(settings, rerankers=Installed(judge), turns=turns)  # type: ignore[arg-type]
    with structlog.testing.capture_logs():
        thread = threading.Thread(target=worker.run)
        thread.start()
        for _ in range(AT_ONCE):
            push(settings)
        until(lambda: len(judge.batches) == AT_ONCE - HURRIED)
        quick = push(settings, ms=HURRIED_MS, life=60_000)
        until(lambda: len(judge.batches) == AT_ONCE - HURRIED + 1)
        assert client(settings).llen(queue("image", 60_000)) == HURRIED
        goes_on.set()
        until(lambda: answers(settings, quick))
        worker.stopping.set()
        thread.join(60)


def test_a_request_in_a_queue_that_is_not_its_own_is_dropped(cluster: Cluster) -> None:
    judge = Judge()
    with working(cluster.settings, judge) as worker:
        request_id = secrets.token_hex(16)
        message = finished(written(request_id, "0" * 32, "image", TEXTS, some(1))[0], 60_000)
        client(cluster.settings).set(request_key(request_id), message, px=60_000)
        client(cluster.settings).rpush(queue("image", HURRIED_MS), request_id)
        assert not worker.take(1)
        push(cluster.settings)
        until(lambda: worker.take(1))
        assert judge.batches == [1]


def test_what_does_not_fit_in_a_request_is_no_matter_of_time(cluster: Cluster) -> None:
    long = [item(f"{number:064x}", text="é\\" * 20_000) for number in range(MOST_ITEMS)]
    worker = RerankWorker(cluster.settings, rerankers=Both(Judge()))  # type: ignore[arg-type]
    worker.beat()
    with elsewhere(cluster.settings) as rerankers:
        ready(rerankers, "text")
        with answering(worker):
            compared = rerankers.of("text").compare_list(TEXTS, long, LONG)
    worker.close()
    assert 0 < compared.scored < MOST_ITEMS
    assert compared.hindered == "More does not fit in a request to the workers."
    assert compared.truncated, "though the model read all that it was sent"


def test_a_text_that_is_cut_for_the_way_is_said_to_be(cluster: Cluster) -> None:
    worker = RerankWorker(cluster.settings, rerankers=Both(Judge()))  # type: ignore[arg-type]
    worker.beat()
    with elsewhere(cluster.settings) as rerankers:
        ready(rerankers, "text")
        for length, cut in ((16_384, False), (16_385, True)):
            with answering(worker):
                asked = [item("0" * 64, text="a cat"), item("1" * 64, text="a" * length)]
                compared = rerankers.of("text").compare_list(TEXTS, asked, LONG)
            assert (compared.scored, compared.truncated) == (2, cut)
    worker.close()


HOSTILE: list[Any] = [
    b"",
    b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    b"not json",
    b"[" * 100_000,
    b'{"id": 1e999}',
    b"null",
    b"x" * (3 * MOST_BYTES),
    {"id": "0" * 32},
    {"reply": "../../crosslens:jobs"},
    {"modality": "text"},
    {"modality": "sound"},
    {"texts": []},
    {"texts": [{"text": "a", "weight": -1}]},
    {"texts": [{"text": "a" * 10_001, "weight": 1}]},
    {"texts": [{"text": "a", "weight": 1}] * 65},
    {"items": []},
    {"items": [Item.of(some(1)[0].record).model_dump(mode="json")] * (MOST_ITEMS + 1)},
    {"items": [{"kind": "image", "sha256": "../" * 20 + "0000"}]},
    {"items": [{"kind": "image", "sha256": "0" * 64, "locations": [{"source": "/etc/passwd"}] * 33}]},
    {"items": [{"kind": "page", "sha256": "0" * 64, "page": 10**30}]},
    {"items": [{"kind": "video", "sha256": "0" * 64, "seconds": -1}]},
    {"ms": 0},
    {"ms": 10**9},
    {"more": 1},
]


def test_hostile_messages_are_dropped_and_kill_nobody(cluster: Cluster, pictures: list[Stored]) -> None:
    settings = installed(cluster.settings)
    redis_ = client(settings)
    process = cluster.start_worker("rerank")
    with elsewhere(settings) as rerankers:
        ready(rerankers)
        for element in ("", "crosslens:jobs", "0" * 31, "g" * 32, b"\xff" * 32, "0" * 100_000):
            redis_.rpush(queue("image", 60_000), element)
        replies = []
        for message in HOSTILE:
            if isinstance(message, dict):
                replies.append(push(settings, life=60_000, **message))
                continue
            request_id = secrets.token_hex(16)
            redis_.set(request_key(request_id), message, px=60_000)
            redis_.rpush(queue("image", 60_000), request_id)
        wrong_type = secrets.token_hex(16)
        redis_.rpush(request_key(wrong_type), "a list")
        redis_.pexpire(request_key(wrong_type), 60_000)
        redis_.rpush(queue("image", 60_000), wrong_type)
        # A flood of answers, and lies about who is there.
        reply = rerankers._line._reply
        for answer in ("", "{", '{"id": 7}', Answer(id="0" * 32).model_dump_json(), "x" * (2 * MOST_BYTES)):
            redis_.rpush(answers_key(reply), answer)
        for member in ("", "nobody", '{"name": "x", "image": {"name": "y", "state": "sleeping"}, "text": null}'):
            redis_.zadd(WORKERS, {member: 2**40})
        assert rerankers.of("image").compare_list(TEXTS, pictures, LONG).scored == 11
        until(lambda: not any(redis_.llen(each) for each in QUEUES))
        assert rerankers.of("image").compare_list(TEXTS, pictures, LONG).scored == 11
        assert process.poll() is None
        assert not redis_.exists(*map(answers_key, replies))
        assert rerankers.names() == {"image": "blip2-itm", "text": None}


def test_answers_that_do_not_fit_the_question_end_it(cluster: Cluster) -> None:
    settings = cluster.settings
    first = {"0": [1, 1, 1]}
    lies: list[Any] = [[{"9": [1, 1, 1]}], [{str(at): [1, 1, 1] for at in range(10)}], [{}], [first, first]]

    class Lying(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return Answer.model_validate_json(json.dumps({"id": "0" * 32, "found": told.pop(0)}))

    with working(settings, Judge()), elsewhere(settings, inbox=Lying) as rerankers:
        ready(rerankers)
        for lie in lies:
            told = list(lie)
            compared = rerankers.of("image").compare_list(TEXTS, some(9), LONG)
            assert (compared.scored, told) == (len(lie) - 1, [])


def test_a_queue_that_is_full_takes_no_more(cluster: Cluster) -> None:
    with working(cluster.settings, Judge()), elsewhere(cluster.settings) as rerankers:
        ready(rerankers)
        client(cluster.settings).rpush(queue("image", 60_000), *["0" * 32] * MOST_WAITING)
        with pytest.raises(RerankerAway, match="too much to do"):
            rerankers.of("image").compare_list(TEXTS, some(3), LONG)
        assert client(cluster.settings).llen(queue("image", 60_000)) == MOST_WAITING


def test_models_that_are_missing_being_opened_or_broken_are_told_apart(cluster: Cluster) -> None:
    settings = cluster.settings

    def there(image: Model | None) -> None:
        member = Present(name="w", image=image, text=None).model_dump_json()
        client(settings).delete(WORKERS)
        client(settings).zadd(WORKERS, {member: 2**40})

    def said() -> Any:
        try:
            return rerankers.is_open("image", LONG)
        except (RerankerAway, NoReranker, EncoderFailed) as error:
            return type(error)

    with elsewhere(settings) as rerankers:
        there(None)
        until(lambda: said() is NoReranker)
        with pytest.raises(NoReranker) as caught:
            rerankers.of("image")
        assert "crosslens models export blip2-itm" in str(caught.value.remedy)
        there(Model(name="blip2-itm", state="opening"))
        until(lambda: said() is False)
        with pytest.raises(RerankerAway):
            rerankers.check()
        there(Model(name="blip2-itm", state="failed"))
        until(lambda: said() is EncoderFailed)
        there(Model(name="blip2-itm", state="open"))
        until(lambda: said() is True)


def test_a_worker_says_what_it_has_and_takes_nothing_else(cluster: Cluster) -> None:
    settings = cluster.settings

    def said() -> list[Present]:
        return [Present.model_validate_json(each) for each in client(settings).zrange(WORKERS, 0, -1)]

    rerankers = Rerankers(settings, lambda: Originals.of(settings))
    worker = RerankWorker(settings, rerankers=rerankers)
    worker.beat()
    assert [(each.image, each.text) for each in said()] == [(None, None)]
    broken = installed(settings).models_folder / "blip2-itm" / "match.onnx"
    content = broken.read_bytes()
    broken.write_bytes(b"broken")

    def state() -> str | None:
        worker.beat()
        image = worker._models["image"]
        return None if image is None else image.state

    until(lambda: state() == "failed")
    assert [each.image and each.image.state for each in said()] == ["failed"]
    broken.write_bytes(content)
    worker._not_before.clear()
    until(lambda: state() == "open")
    assert len(said()) == 1
    assert 0 < client(settings).ttl(WORKERS) <= 5
    push(settings)
    until(lambda: worker.take(1))
    worker.close()
    assert said() == []


# Messages

records = st.builds(
    Record,
    kind=st.sampled_from(Kind),
    sha256=st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}"),
    locations=st.lists(
        st.builds(Location, source=st.text(max_size=50), size=st.none() | st.integers(0, 2**40)), max_size=40
    ),
    bytes=st.just(1),
    media_type=st.just("image/png"),
    text=st.none() | st.text(max_size=50),
    parent=st.none() | st.uuids().map(str),
    seconds=st.none() | st.floats(0, 1e6),
    page=st.none() | st.integers(1, 10_000),
    added_at=st.just(now()),
)


@hypothesis.settings(max_examples=50)
@given(st.lists(records, min_size=1, max_size=5), st.text(min_size=1, max_size=50), st.floats(1e-6, 1e6))
def test_a_request_says_all_that_is_needed(given_: list[Record], text: str, weight: float) -> None:
    request_id, reply, own = secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16)
    items = [Stored("", record, {"note": own}) for record in given_]
    begun, count = written(request_id, reply, "image", [Text(text, weight)], items)
    request = Request.model_validate_json(finished(begun, 300))
    assert own not in begun
    assert (request.id, request.reply, request.ms, count) == (request_id, reply, 300, len(items))
    assert [(each.text, each.weight) for each in request.texts] == [(text, weight)]
    for record, back in zip(given_, [each.stored().record for each in request.items], strict=True):
        assert feature_key(back) == feature_key(record)
        assert back.kind is record.kind
        if record.kind is Kind.TEXT:
            assert (back.text or "") == (record.text or "")
        else:
            assert back.locations == record.locations[:32]
            assert (back.seconds, back.page, back.parent) == (record.seconds, record.page, record.parent)


def test_what_json_cannot_carry_costs_the_others_nothing() -> None:
    items = [item("0" * 64, "/photos/\udcff.png"), item("1" * 64, text="a \udcff cat"), item("2" * 64, "/photos/2.png")]
    begun, count = written("0" * 32, "1" * 32, "image", TEXTS, items)
    found = Request.model_validate_json(finished(begun, 300)).items
    assert count == 3
    assert [[place.source for place in each.locations] for each in found] == [[], [], ["/photos/2.png"]]
    assert found[1].text == "a ? cat"


def test_a_request_is_never_too_long_to_be_taken() -> None:
    items = [item("0" * 64, text="é\\" * 20_000) for _ in range(MOST_ITEMS)]
    begun, count = written("0" * 32, "1" * 32, "text", TEXTS, items)
    assert 0 < count < MOST_ITEMS
    assert 0.9 * MOST_BYTES < len(finished(begun, 60_000).encode()) <= MOST_BYTES
    assert len(Request.model_validate_json(finished(begun, 60_000)).items) == count


# How it is started


def test_serve_has_a_reranker_of_its_own_beside_a_queue_of_its_own(settings: Settings) -> None:
    def names(**changed: Any) -> list[str]:
        return [child.name for child in children(settings.model_copy(update=changed))]

    assert "reranker-1" not in names()
    assert names(rerank_in="worker")[-1] == "reranker-1"
    assert "reranker-1" not in names(rerank_in="worker", redis_url="redis://127.0.0.1:1")
    assert names(rerank_in="worker", redis_url="redis://127.0.0.1:1", workers=0) == []
    assert names(workers=0) == []
    with pytest.raises(UsageError, match="needs a queue"):
        names(rerank_in="worker", workers=0)


def test_a_worker_that_reranks_needs_a_queue_and_no_index(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("workers.supervisor.Supervisor.run", lambda self: started.append(self.children) or 0)
    run = CliRunner().invoke
    assert "CROSSLENS_REDIS_URL" in run(main, ["worker", "--rerank"]).output
    monkeypatch.setenv("CROSSLENS_REDIS_URL", "redis://127.0.0.1:1")
    assert "CROSSLENS_QDRANT_URL" in run(main, ["worker"]).output
    assert started == []
    assert run(main, ["worker", "--rerank", "--processes", "2"]).exit_code == 0
    ((first, second),) = started
    assert (first.name, second.name) == ("reranker-1", "reranker-2")  # type: ignore[attr-defined]
    assert first.command[-2:] == ["--queues", "rerank"]  # type: ignore[attr-defined]
    assert os.fspath(settings.data.absolute()) in first.command  # type: ignore[attr-defined]
