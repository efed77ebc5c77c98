"""What has to be embedded: sources in, the index asked, everything known left out before a byte is decoded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.errors import CrosslensError, MediaError, Unreadable
from indexer.flow import batched
from indexer.items import Kind, Location, Record, content_id, now, point_id, sha256_hex
from indexer.media.contents import Contents
from indexer.media.discover import Candidate
from indexer.media.originals import UPLOAD, Originals
from indexer.media.payloads import CAPTION
from indexer.report import Failure, Report
from indexer.rerank.discarding import discard_unshown, keeps_features
from indexer.sequences import rewrite_parts, sequence_type, tasks_of
from indexer.settings import Settings
from indexer.store.fields import POLICY_KEY
from indexer.tasks import Task

if TYPE_CHECKING:
    from indexer.store.collection import Collection, Stored

_GROUP = 64
"""Sources per question to the index."""
_GROUP_BYTES = 64 * 2**20
"""Bytes read before a group is handed on in parts; one file more may be read."""


class Planner:
    """Turns candidates into tasks. One thread plans; `settle` and `fail` are for another.

    The same bytes twice in one run are one task with two locations, as long as the task has not been written; after
    that the index knows them.
    """

    def __init__(
        self, collection: Collection, report: Report, settings: Settings, *, target: int | None = None
    ) -> None:
        """`target` is the shortest side of a picture that the encoder uses: a PDF's pages are drawn no larger."""
        self._collection = collection
        self._report = report
        self._settings = settings
        self._target = target
        self._copies = Originals.of(settings) if settings.copy_originals else None
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
                for task, _ in written:
                    self._pending.pop(task.id, None)
            return late

    def fail(self, task: Task, error: CrosslensError) -> None:
        """Note a failure for every place where the content was found; twins were counted as skipped before."""
        with self._lock:
            self._pending.pop(task.id, None)
            self._report.skipped -= len(task.record.locations) - 1
            self._report.failures += [Failure(location.source, error) for location in task.record.locations]

    def _plan_group(self, group: list[Candidate], contents: Contents) -> Iterator[Task]:
        seen = self._collection.by_sources([each.source for each in group if each.text is None])
        fresh = self._changed(group, seen)
        tasks: list[Task] = []
        unplanned = 0
        for candidate, content in contents.read(fresh):
            if isinstance(content, MediaError):
                self._report.failures.append(Failure(candidate.source, content))
                continue
            try:
                task = self._task(candidate, content)
            except MediaError as error:
                self._report.failures.append(Failure(candidate.source, error))
                continue
            before = seen.get(candidate.source)
            if before is not None and before[0] != task.id:
                task.replaces.append((before[0], candidate.source))
            tasks.append(task)
            unplanned += task.held
            if unplanned >= _GROUP_BYTES:
                yield from self._leave_out_known(tasks)
                tasks, unplanned = [], 0
        yield from self._leave_out_known(tasks)

    def _changed(self, group: list[Candidate], seen: dict[str, tuple[str, Record]]) -> list[Candidate]:
        """The candidates that have to be read: not the file that was indexed from there, or more is said of it.

        The others are counted.
        """
        same = [each for each in group if each.source in seen and _is_from(seen[each.source][1], each)]
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

    def _task(self, candidate: Candidate, content: bytes | Path) -> Task:
        """A candidate's hash and identity; an image's type and size come with decoding.

        Raises:
            Unreadable: the file went away.
        """
        try:
            sha256, size = _hashed(content)
            media_type = None if candidate.text is not None else sequence_type(content, self._settings)
        except OSError as error:
            raise Unreadable(f"The file cannot be read: {error.strerror}.") from error
        collection = self._collection.name
        item_id = content_id(collection, sha256) if candidate.id is None else point_id(collection, candidate.id)
        record = Record(
            kind=Kind.IMAGE if candidate.text is None else Kind.TEXT,
            sha256=sha256,
            locations=[_location(candidate)],
            bytes=size,
            media_type="text/plain" if candidate.text is not None else media_type or "application/octet-stream",
            text=candidate.text,
            name=candidate.id if candidate.id not in {None, item_id} else None,
            parent=item_id if media_type is not None else None,
            added_at=now(),
            job=self._report.part,
        )
        return Task(item_id, record, candidate.payload, content if candidate.text is None else None)

    def _leave_out_known(self, tasks: list[Task]) -> Iterator[Task]:
        fresh = [task for task in tasks if not self._joins_pending(task)]
        stored = self._collection.get_many([task.id for task in fresh])
        new: list[Task] = []
        known: dict[str, Stored] = {}
        for task in fresh:
            if self._joins_pending(task):  # its twin is earlier in this very group
                continue
            before = known.get(task.id, stored.get(task.id))
            if before is not None and self._is_same(task, before):
                known[task.id] = self._note_known(task, before)
                continue
            if before is not None and before.record.sha256 == task.record.sha256:
                task.record = _with_locations(before.record, task.record.locations).model_copy(
                    update={"frames": None, "job": task.record.job}
                )
                task.payload = {**before.payload, **task.payload}
            with self._lock:
                self._pending[task.id] = task
            if self._report.part is not None:
                self._begun.add(task.record.locations[0].source)
            new.append(task)
        if changed := [item for item_id, item in known.items() if item != stored[item_id]]:
            self._write_known(changed)
        replaced = [each for task in fresh if task.id in known for each in task.replaces]
        drop_locations(self._collection, replaced, self._settings)
        for task in new:
            yield from self._pictures(task, stored.get(task.id))

    def _is_same(self, task: Task, before: Stored) -> bool:
        """Whether nothing is to be embedded again: all of the content is in, with the caption if that is an item."""
        if before.record.sha256 != task.record.sha256 or not before.record.whole:
            return False
        if self._collection.metadata.get(POLICY_KEY) and (
            before.record.verdict is None or {**before.payload, **task.payload} != before.payload
        ):
            return False  # it has to be judged, which is done on the way in
        caption = task.payload.get(CAPTION) if self._settings.caption_items else None
        return caption is None or caption == before.payload.get(CAPTION)

    def _pictures(self, task: Task, before: Stored | None) -> Iterator[Task]:
        """The task itself, or those of a file's frames or pages."""
        if before is not None and before.record.parent is not None and before.record.sha256 != task.record.sha256:
            self._collection.delete_parts(task.id)  # the caller's name for it named another file
        if task.record.parent is None:
            yield task
            return
        try:
            yield from tasks_of(
                task, self._collection.name, target=self._target, settings=self._settings, keep=self.keep
            )
        except MediaError as error:
            self.fail(task, error)

    def keep(self, task: Task) -> None:
        """Copy a file that could be read into the media store, if that is asked for; an upload is there.

        Raises:
            MediaGone: the file is not the one that was hashed any more.
            MediaStoreUnavailable: the store does not take it; nothing is indexed then.
        """
        if self._copies is not None and task.data and not task.record.locations[0].source.startswith(UPLOAD):
            self._copies.keep(task.data, task.record.sha256)

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
            with self._lock:
                self._report.skipped += 1

    def _note_known(self, task: Task, known: Stored) -> Stored:
        """A known item with this location and payload too, to be written; nothing is decoded or embedded."""
        payload = {**known.payload, **task.payload}
        if payload != known.payload:
            self._report.indexed += 1
        else:
            self._count_known(known.record, task.record.locations[0].source)
        return replace(known, record=_with_locations(known.record, task.record.locations), payload=payload)

    def _write_known(self, items: list[Stored]) -> None:
        self._collection.overwrite([item for item in items if item.record.parent is None])
        for item in items:
            if item.record.parent is not None:
                rewrite_parts(self._collection, item.id, item.record.locations, item.payload)


def drop_locations(collection: Collection, replaced: list[tuple[str, str]], settings: Settings) -> None:
    """Take locations from items whose content is no longer there; an item without any is removed."""
    removed: list[Record] = []
    for item_id, source in replaced:
        stored = collection.get(item_id)
        if stored is None:
            continue
        left = [location for location in stored.record.locations if location.source != source]
        match stored.record.parent, left:
            case None, []:
                removed.append(stored.record)
                collection.delete([item_id])
            case None, _:
                collection.overwrite([replace(stored, record=stored.record.model_copy(update={"locations": left}))])
            case file, []:
                if keeps_features(settings):
                    removed += [part.record for part in collection.parts(file)]
                collection.delete_parts(file)
            case file, _:
                rewrite_parts(collection, file, left)
    discard_unshown(collection, removed, settings)


def _hashed(content: bytes | Path) -> tuple[str, int]:
    """A content's sha256 and its length in bytes."""
    if isinstance(content, bytes):
        return sha256_hex(content), len(content)
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


def _location(candidate: Candidate) -> Location:
    return Location(source=candidate.source, size=candidate.size, mtime_ns=candidate.mtime_ns)


def _is_from(record: Record, candidate: Candidate) -> bool:
    """Whether an item is all that is to be had from a candidate, as it was when it was read."""
    return record.whole and _location(candidate) in record.locations


def _with_locations(record: Record, more: list[Location]) -> Record:
    """The record with these locations too; one of the same source is brought up to date in its place."""
    locations = {location.source: location for location in [*record.locations, *more]}
    return record.model_copy(update={"locations": list(locations.values())})
