"""`POST /v1/collections/{c}/duplicates`: groups of items that are the same, over the whole collection.

The first request begins the search and is answered with 202; so are those that come while it runs. Once it is over, its
groups are answered a page at a time, as they were then; `fresh` begins it anew. A search that was broken off, by
whatever, goes on where it was.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from pydantic.config import JsonDict, JsonValue

from indexer.duplicates.find import MOST_BITS
from indexer.errors import CrosslensError, InvalidRequest, TooBusy
from search_api.bodies import json_body, validated
from search_api.filters import no_texts
from search_api.request import WHOLE, Id
from search_api.services import services
from search_api.views import seen

if TYPE_CHECKING:
    from indexer.duplicates import By, Entry
    from indexer.settings import Settings
    from indexer.store.collection import Collection
    from indexer.store.points import Stored

blueprint = Blueprint("duplicates", __name__, url_prefix="/v1/collections/<name>/duplicates")

_BATCH = 256
_DONE = "done"
_log = structlog.get_logger("api")


def _threshold_of(by: str, *allowed: JsonValue) -> JsonDict:
    """What JSON Schema says of a threshold: unnamed, `by` is `picture`."""
    named: JsonDict = {} if by == "picture" else {"required": ["by"]}
    return {
        "if": {"properties": {"by": {"const": by}}, **named},
        "then": {"properties": {"threshold": {"anyOf": [*allowed, {"type": "null"}]}}},
    }


class DuplicatesRequest(BaseModel):
    """What counts as the same, and which page of groups."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "allOf": [
                _threshold_of("bytes"),
                _threshold_of("picture", {"type": "integer", "maximum": MOST_BITS}),
                _threshold_of("alike", {"type": "number", "maximum": 1}),
            ]
        },
    )

    by: Annotated[str, Field(pattern="^(bytes|picture|alike)$")] = "picture"
    """The same bytes; the same picture (PDQ); or vectors that are near each other."""
    threshold: Annotated[FiniteFloat, Field(ge=0, le=256)] | None = None
    """Bits that may differ for `picture` (31), the least cosine for `alike` (0.95)."""
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = 100
    after: Id | None = None
    """`next` of the page before."""
    fresh: bool = False
    """Search anew, for what has changed since."""

    def check_threshold(self) -> None:
        """Refuse a threshold that does not go with what counts as the same.

        Raises:
            InvalidRequest: it does not.
        """
        if self.threshold is None:
            return
        if self.by == "bytes":
            raise InvalidRequest("threshold: the same bytes have none.", field="threshold")
        if self.by == "alike" and self.threshold > 1:
            raise InvalidRequest("threshold: a cosine is at most 1.", field="threshold")
        if self.by == "picture" and (self.threshold > MOST_BITS or not self.threshold.is_integer()):
            raise InvalidRequest(f"threshold: a whole number of bits, at most {MOST_BITS}.", field="threshold")


class Search:
    """One search for duplicates at a time, in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.data / "duplicates"
        self._lock = threading.Lock()
        self._running: tuple[Path, threading.Thread] | None = None
        self._failed: dict[Path, CrosslensError] = {}
        self.progress = (0, 0)
        self.stop = threading.Event()

    def folder(self, collection: Collection, request: DuplicatesRequest) -> Path:
        """Where a search keeps what it found; another one for a collection that was made anew."""
        about = f"{collection.name} {collection.metadata['created']} {request.by} {request.threshold}"
        if collection.within is not None:
            about += " of what may be shown"
        return self._home / hashlib.sha256(about.encode()).hexdigest()[:32]

    def over(self, folder: Path) -> bool:
        """Whether the search is over and its groups can be read; raises what it failed with."""
        if (error := self._failed.pop(folder, None)) is not None:
            raise error
        return (folder / _DONE).exists()

    def begin(self, collection: Collection, request: DuplicatesRequest, *, fresh: bool) -> None:
        """See that the search runs.

        Raises:
            TooBusy: another one does.
        """
        folder = self.folder(collection, request)
        with self._lock:
            if self._running is not None and self._running[1].is_alive():
                if self._running[0] != folder:
                    raise TooBusy("Another search for duplicates is under way.", retry_after=5)
                return
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            self.progress = (0, 0)
            thread = threading.Thread(
                target=self._run, args=(collection, request, folder), name="duplicates", daemon=True
            )
            self._running = folder, thread
            thread.start()

    def _run(self, collection: Collection, request: DuplicatesRequest, folder: Path) -> None:
        from indexer.duplicates import By, find_duplicates  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        by = By(request.by)

        def note(done: int, total: int) -> None:
            self.progress = done, total

        try:
            found = find_duplicates(
                _entries(collection, by), by=by, folder=folder, threshold=request.threshold,
                neighbours=lambda ids: _neighbours(collection, ids), progress=note, stop=self.stop,
            )  # fmt: skip
        except CrosslensError as error:
            _log.warning("search for duplicates failed", collection=collection.name, code=error.code)
            self._failed[folder] = error
        else:
            if found is not None:
                (folder / _DONE).write_text(datetime.now(UTC).isoformat())


@blueprint.post("")
def duplicates(name: str) -> tuple[Response, int]:
    """A page of groups, or how far the search is."""
    request = validated(DuplicatesRequest, json_body(default={}))
    request.check_threshold()
    collection = seen(name)
    search = services().duplicates
    folder = search.folder(collection, request)
    if request.fresh or not search.over(folder):
        search.begin(collection, request, fresh=request.fresh)
        done, total = search.progress
        return jsonify({"state": "running", "done": done, "total": total, "groups": [], "next": None}), 202
    return jsonify(_page(collection, request, folder)), 200


def _page(collection: Collection, request: DuplicatesRequest, folder: Path) -> dict[str, Any]:
    from itertools import islice  # noqa: PLC0415

    from indexer.duplicates import Duplicates  # noqa: PLC0415

    found = Duplicates(folder)
    groups = list(islice(found.groups(after=request.after), request.limit + 1))
    page = groups[: request.limit]
    listed = [[(group.representative, 0.0), *group.members] for group in page]
    stored = collection.get_many([item_id for members in listed for item_id, _ in members])
    # What was removed since is left out, and what may not be shown any more; so are groups of which one is left.
    there = [[(stored[item_id], distance) for item_id, distance in members if item_id in stored] for members in listed]

    def told(item: Stored) -> dict[str, Any]:
        record = item.record
        return {"id": record.name or item.id, "source": record.locations[0].source, "payload": item.payload}

    return {
        "state": "done",
        "as_of": (folder / _DONE).read_text(),
        "by": request.by,
        "exact": found.exact,
        "compared": found.compared,
        "left_out": found.left_out,
        "groups_count": found.groups_count,
        "groups": [
            {
                **told(members[0][0]),
                "members": [{**told(member), "distance": round(distance, 6)} for member, distance in members[1:]],
            }
            for members in there
            if len(members) > 1
        ],
        "next": page[-1].representative if len(groups) > request.limit else None,
    }


def _entries(collection: Collection, by: By) -> Iterator[list[Entry]]:
    from indexer.duplicates import By, Entry  # noqa: PLC0415
    from indexer.flow import batched  # noqa: PLC0415

    with_vectors = by is By.ALIKE
    among = None if by is By.BYTES else no_texts()
    for batch in batched(collection.scan(among, batch=_BATCH, with_vectors=with_vectors), _BATCH):
        yield [_entry(Entry, item) for item in batch if _stands_for_itself(item)]


def _entry(make: type[Entry], item: Stored) -> Entry:
    record = item.record
    return make(
        item.id, (record.width or 0) * (record.height or 0), record.added_at, sha256=record.sha256, pdq=record.pdq,
        pdq_quality=None if record.pdq is None else 100, vector=item.vector,
    )  # fmt: skip


def _stands_for_itself(item: Stored) -> bool:
    """Whether it is no caption, and no frame or page but a file's first."""
    return item.record.parent in {None, item.id}


def _neighbours(collection: Collection, ids: Sequence[str]) -> list[list[tuple[str, float]]]:
    from indexer.store.questions import Query  # noqa: PLC0415

    vectors = collection.vectors(ids)
    there = [item_id for item_id in ids if item_id in vectors]
    answers = collection.search_many(
        [Query(vectors[item_id], 20, no_texts(), exclude_ids=[item_id]) for item_id in there]
    )
    found = {item_id: [(hit.id, hit.score) for hit in hits] for item_id, hits in zip(there, answers, strict=True)}
    return [found.get(item_id, []) for item_id in ids]
