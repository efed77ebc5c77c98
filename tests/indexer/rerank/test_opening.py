"""Originals opened beside each other: what is slow holds up nobody else, and nothing is opened in vain."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from indexer.items import Kind, Location, Record, now
from indexer.rerank.opening import AHEAD, OPENERS, ROOM, Openings, Wanted
from tests.waiting import until


class Opener:
    """Opens by a rule of the test; a name that begins with "slow" only once it may."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.may = threading.Event()

    def __call__(self, record: Record) -> Any:
        self.opened.append(record.sha256)
        if record.sha256.startswith("slow"):
            assert self.may.wait(60)
        if record.sha256.startswith("gone"):
            return None
        if record.sha256.startswith("broken"):
            raise ZeroDivisionError(record.sha256)
        return np.full(3, len(self.opened), np.float32)


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def openings(opener: Opener) -> Iterator[Openings]:
    openings = Openings(opener)
    yield openings
    opener.may.set()
    openings.close()


def record(name: str, source: str = "/photos/a.png") -> Record:
    return Record(
        kind=Kind.IMAGE, sha256=name, locations=[Location(source=source)], bytes=1, media_type="image/png",
        added_at=now(),
    )  # fmt: skip


def add(wanted: Wanted, *names: str, source: str = "/photos/a.png") -> None:
    for name in names:
        wanted.add(name, record(name, source))


def all_of(wanted: Wanted, most: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while some := wanted.next(most, 60):
        assert len(some) <= most
        found |= some
    return found


def test_all_that_is_wanted_comes_and_what_cannot_be_had_is_said(openings: Openings) -> None:
    names = [f"{number}" for number in range(3 * AHEAD)]
    with Wanted(openings) as wanted, structlog.testing.capture_logs() as logs:
        add(wanted, *names, "gone", "broken")
        found = all_of(wanted, most=4)
    assert set(found) == {*names, "gone", "broken"}
    assert [name for name, pixels in found.items() if pixels is None] == ["gone", "broken"]
    assert [entry["sha256"] for entry in logs] == ["broken"]
    with Wanted(openings) as wanted:
        assert wanted.next(1, 60) == {}


def test_the_best_of_those_that_came_are_first(openings: Openings, opener: Opener) -> None:
    with Wanted(openings) as wanted:
        add(wanted, "slow", *"abcde")
        until(lambda: sum(future.done() for future in wanted._asked[False].values()) == 5)
        assert list(wanted.next(2, 0)) == ["a", "b"]
        opener.may.set()
        until(lambda: all(future.done() for future in wanted._asked[False].values()))
        assert list(wanted.next(2, 0)) == ["slow", "c"]


@pytest.mark.parametrize("source", ["https://example.org/a.png", "s3://bucket/a.png"])
def test_hosts_that_hang_keep_no_file_waiting(openings: Openings, opener: Opener, source: str) -> None:
    with Wanted(openings) as wanted:
        add(wanted, *(f"slow-{number}" for number in range(3 * OPENERS)), source=source)
        until(lambda: len(opener.opened) == OPENERS)
        add(wanted, "file")
        assert list(wanted.next(1, 60)) == ["file"]
        with Wanted(openings) as others:
            add(others, "another")
            assert list(others.next(1, 60)) == ["another"]


def test_what_is_not_waited_for_any_more_is_not_begun(openings: Openings, opener: Opener) -> None:
    slow = [f"slow-{number}" for number in range(OPENERS)]
    with Wanted(openings) as wanted:
        add(wanted, *slow)
        until(lambda: len(opener.opened) == OPENERS)
        with Wanted(openings) as others:
            add(others, "wanted", "alone")
            add(wanted, "wanted")
            assert others.next(1, 0) == {}
        opener.may.set()
        assert set(all_of(wanted)) == {*slow, "wanted"}
    assert "alone" not in opener.opened
    with Wanted(openings) as wanted:
        add(wanted, "alone")
        assert set(all_of(wanted)) == {"alone"}


def test_what_came_too_late_is_there_for_the_next_who_asks(openings: Openings, opener: Opener) -> None:
    with Wanted(openings) as wanted:
        add(wanted, "slow", "quick")
        assert list(wanted.next(1, 60)) == ["quick"]
        assert wanted.next(1, 0) == {}
    with Wanted(openings) as wanted:
        add(wanted, "slow")
        opener.may.set()
        assert wanted.next(1, 60)["slow"] is not None  # on its way already
    with Wanted(openings) as wanted:
        add(wanted, "slow", "quick")
        assert list(wanted.next(2, 0)) == ["slow", "quick"]
    assert opener.opened.count("slow") == opener.opened.count("quick") == 1
    openings.forget("quick")
    with Wanted(openings) as wanted:
        add(wanted, "quick")
        assert set(all_of(wanted)) == {"quick"}
    assert opener.opened.count("quick") == 2


def test_only_so_many_pictures_are_kept_and_opened_ahead(openings: Openings, opener: Opener) -> None:
    names = [f"{number}" for number in range(3 * ROOM)]
    with Wanted(openings) as wanted:
        add(wanted, *names)
        until(lambda: len(opener.opened) == AHEAD)
        until(lambda: not openings._under_way)
        assert len(opener.opened) == AHEAD
        assert set(all_of(wanted)) == set(names)
    assert len(openings._kept) == ROOM


def test_after_it_is_closed_nothing_begins_and_nothing_is_kept(opener: Opener) -> None:
    before = set(threading.enumerate())
    openings = Openings(opener)
    with Wanted(openings) as wanted, structlog.testing.capture_logs() as logs:
        add(wanted, *(f"slow-{number}" for number in range(AHEAD)))
        until(lambda: len(opener.opened) == OPENERS)
        openings.close()
        opener.may.set()
        until(lambda: not set(threading.enumerate()) - before)
    assert len(opener.opened) == OPENERS
    assert not openings._kept
    assert logs == []


HANGING = """
import threading
from indexer.rerank.opening import Openings, Wanted
from tests.indexer.rerank.test_opening import add
begun = threading.Event()
openings = Openings(lambda record: begun.set() or threading.Event().wait())
with Wanted(openings) as wanted:
    add(wanted, "a", source="https://example.org/a.png")
    assert begun.wait(60)
openings.close()
print("done")
"""


def test_a_process_ends_though_an_original_does_not_come() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "done\n"
    assert done.stderr == ""


def test_what_a_search_leaves_is_not_taken_from_another(openings: Openings, opener: Opener) -> None:
    """A future that came, was forgotten and asked for again is another one."""
    with Wanted(openings) as wanted:
        add(wanted, "a")
        until(lambda: not openings._under_way)
        openings.forget("a")
        slow = [f"slow-{number}" for number in range(OPENERS)]
        with Wanted(openings) as others:
            add(others, *slow)
            until(lambda: len(opener.opened) == OPENERS + 1)
            add(others, "a")
            wanted.__exit__()
            opener.may.set()
            assert set(all_of(others)) == {*slow, "a"}
