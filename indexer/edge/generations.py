"""One collection on disk: the current generation answers and takes writes while a child builds the next beside it.

    <collection>/collection.json   name, vector, metadata, payload indexes, and the number of the current generation
    <collection>/3/                the current generation: an Edge shard, write-ahead log on
    <collection>/4/                the next, while it is built
    <collection>/journal           writes since the copy was taken, to be replayed into the next
    <collection>/columns/          a copy of what judging reads (`columns`)

The engine holds Python's lock while it optimizes, so that is done in another process, on a copy. A crash at any point
leaves the current generation whole: what `collection.json` does not point to is removed at the next start.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as edge
import structlog

from indexer.edge.columns import Columns
from indexer.edge.files import sync_files, sync_folder, write_atomically
from indexer.edge.operations import Operation, engine_operation
from indexer.edge.wire import Refused, distance_of

_log = structlog.get_logger("index")

_RETRY_SECONDS = 30.0
"""After a build that died; doubled with each that does in a row."""
_FLUSH_SECONDS = 5.0
"""Between two writes of the segments; what came since is in the write-ahead log, and read from there after a crash."""

_QUIET_SECONDS = 5.0
"""Without a write, after which what the last build did not see is built in: until then every search scans it."""
_COLUMNS = "columns"
_SCANNED_QUICKLY = 2_000
"""Points that are scanned in no time: for those no build is worth its work."""

Answer = TypeVar("Answer")


class EdgeCollection:
    """A collection of the embedded index. Thread-safe; writes are acknowledged when their log is on disk."""

    def __init__(self, folder: Path, *, optimize_after: int) -> None:
        """Open the collection in `folder`, and remove what a crash may have left there."""
        self.folder = folder
        self._optimize_after = optimize_after
        self._description: dict[str, Any] = json.loads((folder / "collection.json").read_bytes())
        for leftover in folder.iterdir():
            if leftover.is_dir() and leftover.name not in (str(self._description["generation"]), _COLUMNS):
                shutil.rmtree(leftover)
        (folder / "journal").unlink(missing_ok=True)
        self._shard = edge.EdgeShard.load(str(self._generation_folder))
        self._use = threading.Lock()
        self._write = threading.Lock()
        self.columns = Columns(folder / _COLUMNS, self.size, self.read, self._write)
        self._journal: Any = None
        self._builder: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._not_before = 0.0
        self._closed = False
        self._flushed = self._written = time.monotonic()
        self._unsettled = True
        """Whether there may be something to build in, once it is quiet."""

    @classmethod
    def create(
        cls, folder: Path, *, size: int, distance: str, metadata: dict[str, Any], optimize_after: int
    ) -> EdgeCollection:
        """Make an empty collection; it is there once `collection.json` is."""
        if folder.exists():  # a crash came between making the folder and describing it
            shutil.rmtree(folder)
        (folder / "1").mkdir(parents=True)
        vector = edge.EdgeVectorParams(size=size, distance=distance_of(distance))
        shard = edge.EdgeShard.create(str(folder / "1"), edge.EdgeConfig(vectors=vector, wal_enabled=True))
        shard.flush()
        shard.close()
        description = {"size": size, "distance": distance, "metadata": metadata, "indexes": {}, "generation": 1}
        write_atomically(folder / "collection.json", description)
        sync_folder(folder.parent)
        return cls(folder, optimize_after=optimize_after)

    @property
    def size(self) -> int:
        """The length of a vector."""
        return int(self._description["size"])

    @property
    def description(self) -> dict[str, Any]:
        """Vector size, distance, metadata, payload indexes and the current generation's number."""
        return self._description

    def read(self, work: Callable[[edge.EdgeShard], Answer]) -> Answer:
        """Ask the current generation.

        Raises:
            Refused: the engine cannot answer that, such as a facet of a field without a payload index.
        """
        with self._use:
            try:
                return work(self._shard)
            except Exception as error:  # the binding raises nothing more particular
                if type(error) is not Exception:
                    raise
                raise Refused(str(error), 500 if str(error).startswith("Service") else 400) from error

    def write(self, operations: list[Operation]) -> None:
        """Apply writes in order; they are on disk when this returns.

        Raises:
            Refused: one is not well formed; none was applied then.
        """
        ready = [(operation, engine_operation(operation, self.size)) for operation in operations]
        with self._write, self.columns.following(operations):
            for operation, update in ready:
                if update is not None:
                    self._apply(self._shard, update)
                    self._note_index(operation)
                if self._journal is not None:  # at once: what the engine took must not be missing after a swap
                    self._journal.write(json.dumps(operation).encode() + b"\n")
            if self._journal is not None:
                self._journal.flush()
            self._make_durable()
            self._written, self._unsettled = time.monotonic(), True
        self._build_if_due()

    def _make_durable(self) -> None:
        # The log is two files; the segments have ten for each payload index, and waiting for all of them would make
        # small writes as slow as there are indexes.
        if time.monotonic() - self._flushed < _FLUSH_SECONDS:
            sync_files(self._generation_folder / "wal")
        else:
            with self._use:
                self._shard.flush()
            self._flushed = time.monotonic()

    def _apply(self, shard: edge.EdgeShard, update: edge.UpdateOperation) -> None:
        with self._use:
            try:
                shard.update(update)
            except Exception as error:  # the binding raises nothing more particular
                raise Refused(f"The engine refuses the write: {error}.") from error

    def _note_index(self, operation: Operation) -> None:
        indexes = dict(self._description["indexes"])
        if body := operation.get("create_index"):
            indexes[body["field_name"]] = body["field_schema"]
        elif body := operation.get("delete_index"):
            indexes.pop(body["field_name"], None)
        if indexes != self._description["indexes"]:
            self._describe(indexes=indexes)

    def annotate(self, metadata: dict[str, Any]) -> None:
        """Merge keys into the metadata; those that are None go. It is on disk when this returns."""
        with self._write:
            merged = {**self._description["metadata"], **metadata}
            self._describe(metadata={key: value for key, value in merged.items() if value is not None})

    def _describe(self, **changes: Any) -> None:
        description = {**self._description, **changes}
        write_atomically(self.folder / "collection.json", description)
        self._description = description

    @property
    def _generation_folder(self) -> Path:
        return self.folder / str(self._description["generation"])

    def _build_if_due(self) -> None:
        # A fifth of the collection at least, so that what is copied in all stays in proportion to what is there.
        count, waiting = self._waiting()
        if waiting > max(self._optimize_after, count // 5):
            self.build()

    def build_if_quiet(self) -> None:
        """Build in what the last build did not see, once nobody has written for a while."""
        quiet_since = max(self._written + _QUIET_SECONDS, self._not_before)
        if not self._unsettled or self._builder is not None or time.monotonic() < quiet_since:
            return
        self._unsettled = False
        with suppress(Refused):  # it was removed just now
            count, waiting = self._waiting()
            if count > self._optimize_after and waiting > _SCANNED_QUICKLY:
                self.build()

    def _waiting(self) -> tuple[int, int]:
        """How many points there are, and how many of them a build would bring into the graph; none while none may."""
        if self._builder is not None or time.monotonic() < self._not_before:
            return 0, 0
        info = self.read(lambda shard: shard.info())
        return info.points_count, info.points_count - info.indexed_vectors_count

    def build(self) -> threading.Thread | None:
        """Begin to build the next generation, unless one is being built; gives the thread to wait for, if any."""
        with self._write:
            if self._builder is None and not self._closed:
                self._builder = threading.Thread(target=self._build, name=f"build {self.folder.name}", daemon=True)
                self._builder.start()
            return self._builder

    def build_all(self) -> None:
        """Build, and wait until everything that is there now is in the graph."""
        underway = self._builder
        if underway is not None:  # it may have begun before the last writes
            underway.join()
        if (builder := self.build()) is not None:
            builder.join()

    def _build(self) -> None:
        started = time.monotonic()
        number = self._description["generation"] + 1
        following = self.folder / str(number)
        try:
            self._copy(following)
            if not self._optimize(following):
                raise RuntimeError("the optimizing child died")
            self._swap(following, number)
        except Exception as error:  # noqa: BLE001  whatever it was, the current generation is whole and goes on
            self._deaths += 1
            self._unsettled = True
            self._not_before = time.monotonic() + _RETRY_SECONDS * 2 ** min(self._deaths - 1, 6)
            _log.warning("build abandoned", collection=self.folder.name, reason=str(error), deaths=self._deaths)
            if self._description["generation"] != number:  # else it is the current one already
                shutil.rmtree(following, ignore_errors=True)
        else:
            self._deaths = 0
            seconds = round(time.monotonic() - started, 2)
            _log.info("generation swapped", collection=self.folder.name, number=number, seconds=seconds)
        finally:
            with self._write:
                if self._journal is not None:
                    self._journal.close()
                    self._journal = None
                (self.folder / "journal").unlink(missing_ok=True)
                self._builder = None

    def _copy(self, following: Path) -> None:
        """Copy the current generation; writes wait, answers do not. From here on, writes are journaled too."""
        with self._write:
            with self._use:
                self._shard.flush()
            shutil.rmtree(following, ignore_errors=True)
            shutil.copytree(self._generation_folder, following)
            self._journal = (self.folder / "journal").open("wb")

    def _optimize(self, following: Path) -> bool:
        """Run the child on the copy; whether it succeeded."""
        command = [
            sys.executable,
            "-m",
            "indexer.edge.build",
            str(following),
            str(self.size),
            self._description["distance"],
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:  # noqa: S603  our own command line
            self._child = child
            code = child.wait()
            self._child = None
        return code == 0 and not self._closed

    def _swap(self, following: Path, number: int) -> None:
        """Load the next generation, bring it up to date, and point to it."""
        shard = edge.EdgeShard.load(str(following))
        with (self.folder / "journal").open("rb") as journal:
            with self._write:
                written = self._journal.tell()
            self._replay(shard, journal, written)
            with self._write:
                self._replay(shard, journal, self._journal.tell())  # the few that came during the first
                shard.flush()
                self._describe(generation=number)
                with self._use:
                    before, self._shard = self._shard, shard
        before.close()
        shutil.rmtree(self.folder / str(number - 1))

    def _replay(self, shard: edge.EdgeShard, journal: Any, until: int) -> None:
        """Apply the journal's next operations, up to a place where one ends."""
        while journal.tell() < until:
            update = engine_operation(json.loads(journal.readline()), self.size)
            if update is not None:
                shard.update(update)

    def close(self) -> None:
        """End a build, write out what there is, and let go of the folder."""
        self._closed = True
        builder, child = self._builder, self._child
        if child is not None:
            child.kill()
        if builder is not None:
            builder.join()
        with self._write:
            self.columns.close()
            with self._use:
                self._shard.flush()
                self._shard.close()
