"""The keys as a process knows them: how old they may be, and what happens when the store is away."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from indexer.errors import InvalidRequest, KeyInvalid, KeysUnavailable
from indexer.settings import Settings
from search_api.access.book import FRESH_SECONDS, USABLE_SECONDS, KeyBook, brought_key
from search_api.access.keys import Key, Role, new_key
from tests.search_api.access.conftest import START, Clock


@dataclass
class Shelf:
    """A store in memory, which counts and can be taken away."""

    keys: dict[str, Key] = field(default_factory=dict)
    away: bool = False
    reads: int = 0
    waits: Callable[[], None] = lambda: None
    """What passes until it says that it is away."""
    touched: list[datetime] = field(default_factory=list)

    def all(self) -> Mapping[str, Key]:
        self.reads += 1
        if self.away:
            self.waits()
            raise KeysUnavailable("away")
        return dict(self.keys)

    def touch(self, key_id: str, now: datetime) -> None:
        if self.away:
            raise KeysUnavailable("away")
        self.touched.append(now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def book(shelf: Shelf, clock: Clock) -> KeyBook:
    return KeyBook(shelf, now=clock, clock=clock.seconds)  # type: ignore[arg-type]


def put(shelf: Shelf, **options: timedelta) -> str:
    key, token = new_key("a", [Role.READ], now=START)
    if "expires" in options:
        key = key.model_copy(update={"expires": START + options["expires"]})
    shelf.keys[key.id] = key
    return str(token)


def test_the_store_is_asked_once_in_two_seconds(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    token = put(shelf)
    for _ in range(100):
        book.who(token)
        book.demanded()
    assert shelf.reads == 1
    clock.move(seconds=FRESH_SECONDS)
    book.who(token)
    assert shelf.reads == 2


def test_a_revoked_key_ends_within_two_seconds_and_here_at_once(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    token = put(shelf)
    key = book.who(token)
    shelf.keys[key.id] = key.revoke(START)
    clock.move(seconds=FRESH_SECONDS)
    with pytest.raises(KeyInvalid, match="revoked"):
        book.who(token)
    shelf.keys[key.id] = key
    book.changed()
    assert book.who(token) == key


def test_a_new_key_is_known_at_once_but_guesses_do_not_ask(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    put(shelf)
    book.demanded()
    clock.move(seconds=0.3)
    assert book.who(put(shelf))
    reads = shelf.reads
    for _ in range(50):
        with pytest.raises(KeyInvalid):
            book.who(str(new_key("x", [Role.READ], now=START)[1]))
    assert shelf.reads == reads


def test_a_key_ends_when_it_expires(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    token = put(shelf, expires=timedelta(days=90))
    assert book.who(token)
    clock.move(days=89, hours=23)
    assert book.who(token)
    clock.move(hours=1)
    with pytest.raises(KeyInvalid, match="expired"):
        book.who(token)


def test_a_wrong_secret_and_an_unknown_id_get_the_same_answer(book: KeyBook, shelf: Shelf) -> None:
    token = put(shelf)
    said = set()
    for wrong in (
        token[:-1] + ("a" if token[-1] != "a" else "b"),
        str(new_key("x", [Role.READ], now=START)[1]),
        "x",
        "",
    ):
        with pytest.raises(KeyInvalid) as caught:
            book.who(wrong)
        said.add(caught.value.message)
    assert len(said) == 1


def test_a_store_that_is_away_lets_nobody_in_after_five_seconds(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    token = put(shelf)
    book.who(token)
    shelf.away = True
    clock.move(seconds=USABLE_SECONDS - 0.1)
    assert book.who(token)
    clock.move(seconds=0.2)
    for ask in (lambda: book.who(token), book.demanded):
        with pytest.raises(KeysUnavailable):
            ask()
    shelf.away = False
    assert book.who(token)


def test_a_store_that_keeps_waiting_is_left_alone_for_as_long(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    shelf.away, shelf.waits = True, lambda: clock.move(seconds=2)
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            book.demanded()
    assert shelf.reads == 1
    clock.move(seconds=2)
    shelf.away = False
    assert not book.demanded()


def test_a_store_that_never_answered_lets_nobody_in(book: KeyBook, shelf: Shelf) -> None:
    shelf.away = True
    with pytest.raises(KeysUnavailable):
        book.demanded()


def test_keys_are_demanded_as_long_as_one_was_not_forgotten(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    assert not book.demanded()
    token = put(shelf, expires=timedelta(seconds=1))
    book.changed()
    assert book.demanded()
    clock.move(days=1)
    assert book.demanded()
    with pytest.raises(KeyInvalid):
        book.who(token)


def test_use_is_noted_once_a_minute_and_never_in_the_way(book: KeyBook, shelf: Shelf, clock: Clock) -> None:
    key = book.who(put(shelf))
    for _ in range(5):
        book.note_use(key)
    assert shelf.touched == [START]
    clock.move(minutes=1)
    shelf.away = True
    book.note_use(key)
    shelf.away = False
    clock.move(minutes=1)
    book.note_use(key)
    assert shelf.touched == [START, START + timedelta(minutes=2)]


def test_a_brought_key_is_demanded_and_needs_no_store(shelf: Shelf, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret" * 8 + "\n")
    brought = brought_key(Settings(admin_key_file=tmp_path / "secret"))
    book = KeyBook(shelf, brought=brought, now=clock, clock=clock.seconds)  # type: ignore[arg-type]
    shelf.away = True
    assert book.demanded()
    assert book.who("s3cret" * 8).may(Role.ADMIN)
    with pytest.raises(KeyInvalid):
        book.who("s3cret" * 7)
    assert brought_key(Settings()) is None
    for wrong in (
        {"admin_key": "x" * 40, "admin_key_file": tmp_path / "secret"},
        {"admin_key_file": tmp_path / "gone"},
        {"admin_key": "short"},
    ):
        with pytest.raises(InvalidRequest):
            brought_key(Settings.model_validate(wrong))
