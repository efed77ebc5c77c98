"""What has to be embedded: sources in, the index asked, everything known left out before a byte is decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from indexer.errors import MediaError
from indexer.flow import batched
from indexer.items import Kind, Location, Record, content_id, now, point_id, sha256_hex
from indexer.media.contents import Contents
from indexer.media.discover import Candidate
from indexer.report import Failure, Report
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.store.collection import Collection, Stored

_GROUP = 64
"""Sources per question to the index."""
_GROUP_BYTES = 64 * 2**20
"""Bytes read before a group is handed on in parts; one file more may be read."""


@dataclass
class Task:
    """An item that has to be embedded."""

    id: str
    record: Record
    payload: dict[str, Any]
    data: bytes | None
    """An image's bytes; None for a text."""
    details: dict[str, Any] = field(default_factory=dict)
    """What decoding tells of an image: media_type, width, height."""
    replaces: list[tuple[str, str]] = field(default_factory=list)
    """Items whose content was at one of these locations before, and that location."""

    def described(self, record: Record) -> Record:
        """The record with what decoding told."""
        return record.model_copy(update=self.details)


class Planner:
    """Turns candidates into tasks. One thread plans; `settle` and `forget` are for another.

    The same bytes twice in one run are one task with two locations, as long as the task has not been written; after
    that the index knows them.
    """

    def __init__(self, collection: Collection, report: Report, settings: Settings) -> None:
        self._collection = collection
        self._report = report
        self._settings = settings
        self._lock = threading.RLock()
        self._pending: dict[str, Task] = {}
        self._begun: set[str] = set()
        """Sources of this part of a job, which are few."""

    def plan(self, found: Iterable[Candidate | Failure]) -> Iterator[Task]:
        """The tasks for what was found; what is known is counted as skipped, what cannot be read as failed."""
        with Contents(self._settings) as contents:
            for group in batched(found, _GROUP):
                candidates = []
                for each in group:
                    if isinstance(each, Failure):
                        self._report.failures.append(each)
                    else:
                        candidates.append(each)
                yield from self._plan_group(candidates, contents)

    def settle(self, written: list[tuple[Task, Record]]) -> list[Task]:
        """Say what was written, each task with the record that was; gives those that gained a location meanwhile.

        As long as it gives any, write those again. Once it gives none, later sources of the content are looked up in
        the index, where they are.
        """
        with self._lock:
            late = [task for task, record in written if task.record is not record]
            if not late:
                self.forget([task for task, _ in written])
            return late

    def forget(self, tasks: list[Task]) -> None:
        """Let later sources of these tasks' content be planned anew."""
        with self._lock:
            for task in tasks:
                self._pending.pop(task.id, None)

    def _plan_group(self, group: list[Candidate], contents: Contents) -> Iterator[Task]:
        seen = self._collection.by_sources([each.source for each in group if each.text is None])
        fresh = self._changed(group, seen)
        tasks: list[Task] = []
        unplanned = 0
        for candidate, content in contents.read(fresh):
            if isinstance(content, MediaError):
                self._report.failures.append(Failure(candidate.source, content))
                continue
            task = self._task(candidate, content)
            before = seen.get(candidate.source)
            if before is not None and before[0] != task.id:
                task.replaces.append((before[0], candidate.source))
            tasks.append(task)
            unplanned += len(content)
            if unplanned >= _GROUP_BYTES:
                yield from self._leave_out_known(tasks)
                tasks, unplanned = [], 0
        yield from self._leave_out_known(tasks)

    def _changed(self, group: list[Candidate], seen: dict[str, tuple[str, Record]]) -> list[Candidate]:
        """The candidates that have to be read: not the file that was indexed from there, or more is said of it.

        The others are counted.
        """
        same = [each for each in group if each.source in seen and _location(each) in seen[each.source][1].locations]
        with_payload = [seen[each.source][0] for each in same if each.payload]
        stored = self._collection.get_many(list(dict.fromkeys(with_payload)))

        def is_known(candidate: Candidate) -> bool:
            item_id = seen[candidate.source][0]
            if candidate.id is not None and point_id(self._collection.name, candidate.id) != item_id:
                return False
            if not candidate.payload:
                return True
            item = stored.get(item_id)
            return item is not None and {**item.payload, **candidate.payload} == item.payload

        known = {id(each): each for each in same if is_known(each)}
        for each in known.values():
            self._count_known(seen[each.source][1], each.source)
        return [each for each in group if id(each) not in known]

    def _task(self, candidate: Candidate, content: bytes) -> Task:
        """A candidate's hash and identity; an image's type and size come with decoding."""
        sha256 = sha256_hex(content)
        collection = self._collection.name
        item_id = content_id(collection, sha256) if candidate.id is None else point_id(collection, candidate.id)
        record = Record(
            kind=Kind.IMAGE if candidate.text is None else Kind.TEXT,
            sha256=sha256,
            locations=[_location(candidate)],
            bytes=len(content),
            media_type="text/plain" if candidate.text is not None else "application/octet-stream",
            text=candidate.text,
            name=candidate.id if candidate.id not in {None, item_id} else None,
            added_at=now(),
            job=self._report.part,
        )
        return Task(item_id, record, candidate.payload, content if candidate.text is None else None)

    def _leave_out_known(self, tasks: list[Task]) -> Iterator[Task]:
        fresh = [task for task in tasks if not self._joins_pending(task)]
        stored = self._collection.get_many([task.id for task in fresh])
        begun: set[str] = set()
        for task in fresh:
            if self._joins_pending(task):  # its twin is earlier in this very group
                continue
            # A twin that is no longer pending may have been written after the index was asked.
            known = self._collection.get(task.id) if task.id in begun else stored.get(task.id)
            if known is not None and known.record.sha256 == task.record.sha256:
                stored[task.id] = self._note_known(task, known)
                continue
            with self._lock:
                self._pending[task.id] = task
            begun.add(task.id)
            if self._report.part is not None:
                self._begun.add(task.record.locations[0].source)
            yield task

    def _joins_pending(self, task: Task) -> bool:
        with self._lock:
            pending = self._pending.get(task.id)
            if pending is None or pending.record.sha256 != task.record.sha256:
                return False
            pending.record = _with_locations(pending.record, task.record.locations)
            pending.replaces += task.replaces
            pending.payload = {**pending.payload, **task.payload}
        self._report.skipped += 1
        return True

    def _count_known(self, record: Record, source: str) -> None:
        """Count what the index holds already: as indexed, if an earlier delivery of this very part put it there."""
        part = self._report.part
        if part is not None and record.job == part and record.locations[0].source == source not in self._begun:
            self._begun.add(source)
            self._report.indexed += 1
        else:
            self._report.skipped += 1

    def _note_known(self, task: Task, known: Stored) -> Stored:
        """Bring a known item's locations and payload up to date; nothing is decoded or embedded."""
        record = _with_locations(known.record, task.record.locations)
        payload = {**known.payload, **task.payload}
        if record != known.record:
            self._collection.replace_record(task.id, record)
        if payload != known.payload:
            self._collection.set_payload(task.id, payload)
            self._report.indexed += 1
        else:
            self._count_known(known.record, task.record.locations[0].source)
        drop_locations(self._collection, task.replaces)
        return type(known)(known.id, record, payload)


def drop_locations(collection: Collection, replaced: list[tuple[str, str]]) -> None:
    """Take locations from items whose content is no longer there; an item without any is removed."""
    for item_id, source in replaced:
        stored = collection.get(item_id)
        if stored is None:
            continue
        left = [location for location in stored.record.locations if location.source != source]
        if left:
            collection.replace_record(item_id, stored.record.model_copy(update={"locations": left}))
        else:
            collection.delete([item_id])


def _location(candidate: Candidate) -> Location:
    return Location(source=candidate.source, size=candidate.size, mtime_ns=candidate.mtime_ns)


def _with_locations(record: Record, more: list[Location]) -> Record:
    """The record with these locations too; one of the same source is brought up to date in its place."""
    locations = {location.source: location for location in [*record.locations, *more]}
    return record.model_copy(update={"locations": list(locations.values())})
