"""Whose turn it is: a collection of a new model beside the current one, and which of them a name leads to.

Qdrant can neither rename a collection nor give one's name to an alias while it is there. So what a switch writes is a
signpost: in the old collection's metadata, the physical name of its successor. `Store.get` follows it, whichever name
or alias one comes by. One write of one value: there is no moment at which the name leads to nothing or to both, on the
embedded index and on a server alike, and data of before need not be moved. `finish` removes the old collection and
makes its name a true alias; in between `Store.get` finds the new one by its `items_of`.

    metadata of the new collection:  items_of   the name; item ids are made with it, so they stay as they are
                                     reindex    what is known of the move: {"from", "state", "items", "missing", ...}
                                     serves     true from the switch on
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import CollectionNotFound, CrosslensError, IndexUnavailable, InvalidRequest, ModelMismatch
from indexer.items import check_collection_name, now
from indexer.reindex.carry import Carried, Carrier
from indexer.report import Failure
from indexer.settings import Settings
from indexer.store.collection import ITEMS_OF, LOCKED_UNTIL, LOOK_SECONDS, SUCCESSOR, Collection
from indexer.store.store import SERVES, Store

if TYPE_CHECKING:
    from indexer.models.encoder import Encoder

MOVE = "reindex"
"""The key of the metadata that holds a move's state."""
_OWN = frozenset(
    {"name", "model", "fingerprint", "created", "calibration", ITEMS_OF, SUCCESSOR, LOCKED_UNTIL, SERVES, MOVE}
)
"""Metadata that is of one collection and one model; anything else, such as label sets, is carried over."""
GRACE_SECONDS = LOOK_SECONDS + 2.0
"""For which the lock is held before the last pass begins: a writer may have looked just before it was set."""
_LEASE_SECONDS = 30.0
"""After which the lock of one that was killed is none any more."""
_LAST_PASSES = 8


@dataclass
class Move:
    """A collection on its way to another model."""

    store: Store
    source: Collection
    """The current one."""
    target: Collection
    """The one that is to take its place."""

    @property
    def state(self) -> dict[str, Any]:
        """What is kept of it."""
        return dict(self.store.physical(self.target.physical).metadata.get(MOVE) or {})

    def note(self, **changes: Any) -> None:
        """Change what is kept of it."""
        self.store.note(self.target, MOVE, {**self.state, **changes, "updated": now().isoformat()})


def prepare(store: Store, name: str, encoder: Encoder) -> Move:
    """The current collection of a name, and one for the encoder's vectors: made, or there from the last time.

    Raises:
        CollectionNotFound: there is none of that name.
        InvalidRequest: the current one holds that model's vectors, or the new one's name is taken.
    """
    source = store.get(name)
    if source.fingerprint == encoder.fingerprint:
        raise InvalidRequest(
            f"The collection {source.name!r} holds vectors of {source.model!r} already.", remedy="Name another --model."
        )
    physical = check_collection_name(f"{source.name[:46]}__{encoder.fingerprint}")
    try:
        target = store.physical(physical)
    except CollectionNotFound:
        first = {"from": source.physical, "state": "filling", "started": now().isoformat()}
        store.create(
            physical,
            encoder.name,
            encoder.fingerprint,
            encoder.dimension,
            metadata={ITEMS_OF: source.name, MOVE: first},
            indexes=source.payload_indexes(),
        )
        target = store.physical(physical)
    if target.name != source.name or target.fingerprint != encoder.fingerprint:
        raise InvalidRequest(f"There is another collection {physical!r}.", remedy="Remove it first.")
    target.guarded = False  # where it was current once, others are kept from writing to it
    move = Move(store, source, target)
    move.note(**{"from": source.physical}, state="filling")
    return move


def find_move(store: Store, name: str) -> Move:
    """The one move of a name that is not over.

    Raises:
        CollectionNotFound: there is no collection of that name.
        InvalidRequest: there is no move, or more than one.
    """
    source = store.get(name)
    begun = [each for each in store.every() if each.name == source.name and _is_beside(each, source)]
    if len(begun) != 1:
        what = "no other model" if not begun else f"{len(begun)} other models"
        raise InvalidRequest(f"For {source.name!r} {what} is prepared.", remedy="Name one with --model.")
    begun[0].guarded = False
    return Move(store, source, begun[0])


def _is_beside(each: Collection, current: Collection) -> bool:
    return each.physical != current.physical and (each.metadata.get(MOVE) or {}).get("from") == current.physical


def inherit(move: Move) -> None:
    """Give the new collection what is kept with the current one: declared fields, label sets, but no calibration."""
    move.store.index(move.store.physical(move.target.physical), move.source.payload_indexes())
    here = move.store.physical(move.source.physical).metadata
    there = move.store.physical(move.target.physical).metadata
    for key in sorted({*here, *there} - _OWN):
        if here.get(key) != there.get(key):
            move.store.note(move.target, key, here.get(key))


def switch(move: Move, carrier: Carrier, *, allow_missing: float = 0.0) -> Carried:
    """Let the name lead to the new collection, which holds all that the old one holds; gives what the last passes did.

    Writers wait meanwhile, searches do not. `allow_missing` is the share of the items (0 to 1) that may be missing.

    Raises:
        InvalidRequest: more are missing; nothing was switched then.
        IndexUnavailable: the lock was lost, or the collection would not hold still.
    """
    check_missing(move, carrier.failures, allow_missing)
    with _locked(move.store, move.source) as held:
        done = _settle(carrier)
        check_missing(move, carrier.failures, allow_missing)
        inherit(move)
        move.note(state="switched", **{"from": move.source.physical}, switched=now().isoformat())
        move.store.note(move.target, SERVES, True)
        move.store.note(move.target, SUCCESSOR, None)
        held()
        move.store.note(move.source, SUCCESSOR, move.target.physical)
    return done


def _settle(carrier: Carrier) -> Carried:
    """Passes until one finds nothing to do."""
    done = Carried()
    for _ in range(_LAST_PASSES):
        last = carrier.carry()
        done.compared = last.compared
        done.embedded += last.embedded
        done.rewritten += last.rewritten
        done.removed += last.removed
        if last.changes == 0:
            return done
    raise IndexUnavailable("Something writes to the collection in spite of the lock.", remedy="Do the same again.")


def check_missing(move: Move, failures: Mapping[str, Failure], share: float) -> None:
    """See that no more are missing than may.

    Raises:
        InvalidRequest: there are.
    """
    count = move.source.count()
    if len(failures) > share * count:
        raise InvalidRequest(
            f"{len(failures)} of {count} items are not in the new collection; {share:.2%} may be missing.",
            remedy="Bring their originals back and do it again, or allow more with --allow-missing.",
        )


def previous(store: Store, name: str) -> Move:
    """The way back: from the current collection of a name to the one whose place it took.

    Raises:
        CollectionNotFound: there is no collection of that name.
        InvalidRequest: nothing was switched, or the old one is gone.
    """
    current = store.get(name)
    came_from = (current.metadata.get(MOVE) or {}).get("from")
    before = next((each for each in store.every() if each.physical == came_from), None)
    if before is None:
        raise InvalidRequest(
            f"There is nothing to go back to from {current.name!r}.", remedy="See `crosslens reindex --status`."
        )
    before.guarded = False
    return Move(store, current, before)


def roll_back(back: Move, carrier: Carrier, *, allow_missing: float = 0.0) -> Carried:
    """Let the name lead to the old collection again, with what was written since the switch.

    Raises:
        InvalidRequest: more of what was written since cannot be brought back than may be missing.
        IndexUnavailable: the lock was lost.
    """
    carrier.carry()  # what takes long, while others still write
    with _locked(back.store, back.source) as held:
        done = _settle(carrier)
        check_missing(back, carrier.failures, allow_missing)
        inherit(back)
        held()
        back.store.note(back.target, SUCCESSOR, None)
        back.store.note(back.source, SUCCESSOR, back.target.physical)
    back.store.note(back.source, SERVES, None)
    Move(back.store, back.target, back.source).note(state="rolled back")
    return done


def finish(store: Store, name: str) -> list[str]:
    """Remove what was replaced, and make its names aliases of what took its place; gives the physical names that went.

    The same again goes on where it was cut short.

    Raises:
        CollectionNotFound: there is no collection of that name.
    """
    current = store.get(name)
    retired = [each for each in store.every() if each.name == current.name and each.metadata.get(SUCCESSOR)]
    gone = {each.physical for each in retired}
    for alias, of in store.aliases().items():
        if of in gone:
            store.switch(alias, current.physical)
    for each in retired:
        store.drop(each)
    if current.name != current.physical and store.aliases().get(current.name) != current.physical:
        store.switch(current.name, current.physical)
    if MOVE in current.metadata and retired:
        store.note(current, MOVE, {**current.metadata[MOVE], "state": "finished", "updated": now().isoformat()})
    return sorted(gone)


def statuses(store: Store, name: str) -> list[dict[str, Any]]:
    """Every collection of a name: model, count, whether it is the current one, and what is kept of its move."""
    current = store.get(name)
    return [
        {
            "physical": each.physical,
            "model": each.model,
            "fingerprint": each.fingerprint,
            "count": each.count(),
            "current": each.physical == current.physical,
            "move": each.metadata.get(MOVE),
        }
        for each in store.every()
        if each.name == current.name
    ]


@contextmanager
def _locked(store: Store, collection: Collection) -> Iterator[Any]:
    """Keep others from writing, once those who looked before are through.

    Gives a function that raises `IndexUnavailable` unless the lock is surely still held.
    """
    ended = threading.Event()
    renewed = [0.0]

    def renew() -> None:
        store.note(collection, LOCKED_UNTIL, time.time() + _LEASE_SECONDS)
        renewed[0] = time.monotonic()

    def keep() -> None:
        while not ended.wait(_LEASE_SECONDS / 6):
            try:
                renew()
            except CrosslensError:
                continue  # `check` tells, should it stay so

    def check() -> None:
        if time.monotonic() - renewed[0] > _LEASE_SECONDS / 2:
            raise IndexUnavailable("The lock on the collection could not be kept.", remedy="Do the same again.")

    renew()
    keeper = threading.Thread(target=keep, name="lock", daemon=True)
    keeper.start()
    try:
        time.sleep(GRACE_SECONDS)
        yield check
    finally:
        ended.set()
        keeper.join()
        store.note(collection, LOCKED_UNTIL, None)


def failures_file(settings: Settings, target: Collection) -> Path:
    """Where the items are listed that could not be brought over."""
    return settings.data / "reindex" / f"{target.physical}.jsonl"


def write_failures(path: Path, failures: Mapping[str, Failure]) -> None:
    """List them, a JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_suffix(".new")
    lines = (json.dumps({"id": each, **failure.as_dict()}, ensure_ascii=False) for each, failure in failures.items())
    aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    aside.replace(path)


def read_failures(path: Path) -> list[dict[str, Any]]:
    """Those that are listed; none where there is no list."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_served(settings: Settings, target: Collection) -> None:
    """See that whoever serves will find the new model by its name.

    Raises:
        ModelMismatch: it is not installed here.
    """
    from indexer.models.encoder import load_encoder_of  # noqa: PLC0415  heavy

    try:
        load_encoder_of(settings, target.model, target.fingerprint)
    except ModelMismatch as error:
        raise ModelMismatch(
            f"{error.message} It could not be searched after a switch.",
            remedy="Install the bundle under its name (`crosslens models`), here and wherever the API and workers run.",
        ) from error
