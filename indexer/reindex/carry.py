"""One collection's items into another model's space: passes that find what differs, and bring it over.

    read and compare (one thread) -> decode (threads) -> embed (batches, threads) -> store (one thread)

A pass goes through both collections in the order of their ids and takes the target's own content as its state: so one
that was killed goes on where it ended, and a further pass brings what was added, changed and removed meanwhile. Items
keep ids, records and payloads; what is embedded is the original, proven by its hash, at the very frame or page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.errors import CrosslensError, MediaStoreUnavailable, ModelError, VectorIndexError
from indexer.flow import batched, map_ahead, prefetch
from indexer.items import Kind, Record, to_payload
from indexer.media.decode import decode
from indexer.media.frames import Limits, frame_at
from indexer.media.originals import Originals
from indexer.models.devices import cpu_count
from indexer.models.encoder import Encoder
from indexer.models.preprocess import decode_target
from indexer.report import Failure
from indexer.settings import Settings
from indexer.store.collection import Collection, Point, Stored

if TYPE_CHECKING:
    from PIL import Image

    Vectors = NDArray[np.float32]

_PAGE = 256
"""Items that are read and compared at a time."""


@dataclass
class Carried:
    """What one pass did."""

    compared: int = 0
    """Items of the source that were looked at."""
    embedded: int = 0
    rewritten: int = 0
    """Items whose record or payload alone had changed."""
    removed: int = 0
    """Items that the source has no more."""
    interrupted: bool = False

    @property
    def changes(self) -> int:
        """Writes to the target."""
        return self.embedded + self.rewritten + self.removed


@dataclass
class _Work:
    """An item on its way, with its picture or input once it has them, or the error that ended it."""

    item: Stored
    image: Image.Image | None = None
    pixels: Vectors | None = None
    error: CrosslensError | None = None


class Carrier:
    """Makes `target` hold what `source` holds. `failures` are the items that it cannot, by id.

    `keep` are ids that the target may hold although the source does not; None has nothing removed from it.
    """

    def __init__(
        self,
        source: Collection,
        target: Collection,
        encoder: Encoder,
        settings: Settings,
        originals: Originals,
        *,
        keep: frozenset[str] | None = frozenset(),
    ) -> None:
        self.failures: dict[str, Failure] = {}
        self._tried: dict[str, tuple[object, ...]] = {}
        """What the failed ones were then."""
        self._source = source
        self._target = target
        self._encoder = encoder
        self._settings = settings
        self._originals = originals
        self._keep = keep
        self._limits = Limits.of(settings)
        recipe = encoder.manifest.pixels
        self._side = decode_target(recipe) if recipe is not None else None

    def carry(
        self, *, progress: Callable[[Carried], None] | None = None, stop: threading.Event | None = None
    ) -> Carried:
        """One pass. What fails is noted in `failures` and not tried again until its content changes.

        `progress` is called after every batch; setting `stop` ends reading, and what is in flight is still stored.

        Raises:
            IndexUnavailable, MediaStoreUnavailable: one of them went away; the same again goes on.
        """
        done = Carried()
        stop = stop or threading.Event()
        for stored in self._stages(done, stop):
            done.embedded += stored
            if progress is not None:
                progress(done)
        if not stop.is_set():
            self._remove_gone(done)
        done.interrupted = stop.is_set()
        return done

    def _stages(self, done: Carried, stop: threading.Event) -> Generator[int, None, None]:
        size, threads = self._settings.batch_size, self._settings.threads or cpu_count()
        with (
            ThreadPoolExecutor(threads, "decode") as decoders,
            ThreadPoolExecutor(threads, "embed") as encoders,
            ThreadPoolExecutor(1, "store") as writer,
        ):
            found = prefetch(self._differing(done, stop), ahead=size)
            prepared = map_ahead(decoders, self._prepare, found, ahead=2 * size)
            embedded = map_ahead(encoders, self._embed, batched(prepared, size), ahead=threads + 1)
            yield from map_ahead(writer, self._store, embedded, ahead=2)

    def _differing(self, done: Carried, stop: threading.Event) -> Iterator[_Work]:
        """What has to be embedded; what only has to be rewritten is, here."""
        files: set[str] = set()
        for page in batched(self._source.scan(batch=_PAGE), _PAGE):
            there = self._target.get_many([item.id for item in page])
            changed: list[Stored] = []
            for item in page:
                before = there.get(item.id)
                if before is not None and same_content(before.record, item.record):
                    self._forgive(item.id)
                    if before != item:
                        changed.append(item)
                elif self._tried.get(item.id) == _content(item.record):
                    continue
                elif item.record.parent is not None and item.record.kind is not Kind.TEXT:
                    if item.record.parent not in files:
                        files.add(item.record.parent)
                        yield from self._pictures(item.record.parent, item)
                else:
                    yield _Work(item)
            if changed:
                self._target.overwrite(changed)
            done.rewritten += len(changed)
            done.compared += len(page)
            if stop.is_set():
                return

    def _pictures(self, parent: str, item: Stored) -> Iterator[_Work]:
        """The frames or pages of one file that the target lacks; its original is opened once for all of them."""
        parts = [part for part in self._source.parts(parent) if part.record.kind is not Kind.TEXT] or [item]
        there = self._target.get_many([part.id for part in parts])
        lacking = [
            part
            for part in parts
            if part.id not in there or not same_content(there[part.id].record, part.record)
        ]  # fmt: skip
        given = 0
        try:
            with self._originals.open(item.record) as content:
                for part in lacking:
                    try:
                        image = frame_at(
                            content, seconds=part.record.seconds, page=part.record.page,
                            media_type=part.record.media_type, limits=self._limits, target=self._side,
                        )  # fmt: skip
                    except CrosslensError as error:
                        yield _Work(part, error=error)
                    else:
                        yield _Work(part, image)
                    given += 1
        except (MediaStoreUnavailable, VectorIndexError):
            raise
        except CrosslensError as error:
            for part in lacking[given:]:
                yield _Work(part, error=error)

    def _prepare(self, work: _Work) -> _Work:
        """Read and decode a picture and make it the encoder's input; a text is ready as it is."""
        record = work.item.record
        if work.error is not None or record.kind is Kind.TEXT:
            return work
        try:
            if work.image is not None:
                work.pixels = self._encoder.prepare(work.image)
            else:
                target = decode_target(self._encoder.pixels)
                data = self._originals.read(record)
                decoded = decode(data, target=target, max_pixels=self._settings.max_pixels)
                work.pixels = self._encoder.prepare(decoded)
        except MediaStoreUnavailable:
            raise
        except CrosslensError as error:
            work.error = error
        finally:
            work.image = None
        return work

    def _embed(self, batch: list[_Work]) -> list[tuple[_Work, Vectors | None]]:
        vectors: dict[int, Vectors] = {}
        good = [work for work in batch if work.error is None]
        self._embed_some([work for work in good if work.pixels is not None], vectors)
        self._embed_some([work for work in good if work.pixels is None], vectors)
        return [(work, vectors.get(id(work))) for work in batch]

    def _embed_some(self, some: list[_Work], vectors: dict[int, Vectors]) -> None:
        """Embed pictures, or texts; halving what fails until the item that fails alone is found."""
        if not some:
            return
        try:
            pixels = [work.pixels for work in some if work.pixels is not None]
            if pixels:
                found = self._encoder.encode_pixels(np.stack(pixels))
            else:
                found = self._encoder.encode_texts([work.item.record.text or "" for work in some]).vectors
        except ModelError as error:
            if len(some) == 1:
                some[0].error = error
                return
            middle = len(some) // 2
            self._embed_some(some[:middle], vectors)
            self._embed_some(some[middle:], vectors)
        else:
            vectors.update((id(work), vector) for work, vector in zip(some, found, strict=True))

    def _store(self, batch: list[tuple[_Work, Vectors | None]]) -> int:
        points = [
            Point(work.item.id, vector, to_payload(work.item.record, work.item.payload))
            for work, vector in batch
            if vector is not None
        ]
        self._target.upsert(points)
        for work, vector in batch:
            if vector is None:
                error = work.error or ModelError("The encoder gave no vector.")
                self.failures[work.item.id] = Failure(work.item.record.locations[0].source, error)
                self._tried[work.item.id] = _content(work.item.record)
        return len(points)

    def _remove_gone(self, done: Carried) -> None:
        """Remove from the target what the source has no more, and what failed but has another content now."""
        for ids in self._target.ids(_PAGE * 4) if self._keep is not None else ():
            unwanted = sorted(set(ids) - self._source.present(ids) - (self._keep or frozenset()))
            self._target.delete(unwanted)
            done.removed += len(unwanted)
        for some in batched(list(self.failures), _PAGE * 4):
            for each in set(some) - self._source.present(some):
                self._forgive(each)
            stale = sorted(self._target.present(some))
            self._target.delete(stale)
            done.removed += len(stale)

    def _forgive(self, item_id: str) -> None:
        self.failures.pop(item_id, None)
        self._tried.pop(item_id, None)


def same_content(one: Record, other: Record) -> bool:
    """Whether two records are of what gives the same vector."""
    return _content(one) == _content(other)


def _content(record: Record) -> tuple[object, ...]:
    text = record.text if record.kind is Kind.TEXT else None
    return record.kind, record.sha256, record.seconds, record.page, text
