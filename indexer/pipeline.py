"""From sources to the index: plan, decode, embed and store, overlapped and bounded in memory.

    discover -> plan (one thread) -> decode (threads) -> embed (batches, threads) -> store (one thread)

Pillow and ONNX Runtime release Python's lock while they work, so threads are enough. Everything in flight is bounded
in number and in bytes, so memory is the same for a thousand photos and for a million.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import structlog
from numpy.typing import NDArray

from indexer.errors import CrosslensError, MediaStoreUnavailable, ModelError
from indexer.flow import Budget, batched, map_ahead, prefetch
from indexer.items import Kind, Record, to_payload
from indexer.media.decode import Decoded, decode
from indexer.media.discover import Candidate, discover
from indexer.media.metadata import describe
from indexer.media.pdq import MIN_QUALITY, pdq
from indexer.models.devices import cpu_count
from indexer.models.encoder import Encoder
from indexer.models.preprocess import decode_target
from indexer.planning import Planner, drop_locations
from indexer.report import Failure, Report
from indexer.rerank.wanted import wants_features
from indexer.sequences import rewrite_parts
from indexer.settings import Settings
from indexer.store.collection import Collection, Point
from indexer.store.fields import POLICY_KEY
from indexer.tasks import Task, caption_task

if TYPE_CHECKING:
    from PIL import Image

    from indexer.moderation.judging import ItemJudge
    from indexer.rerank.ingest import FeaturesAtIngest, Seen

    Vectors = NDArray[np.float32]

_log = structlog.get_logger("ingest")

_BYTES_IN_FLIGHT = 256 * 2**20
"""Of undecoded files; a single larger one goes alone."""


@dataclass
class _Prepared:
    """A task whose content is ready for the encoder, or the error that ended it."""

    task: Task
    pixels: Vectors | None = None
    shown: dict[str, Vectors] = field(default_factory=dict)
    """What each image classifier of the policy has to see of it."""
    seen: Seen | None = None
    """What a reranker has to see of it."""
    error: CrosslensError | None = None


def ingest(
    sources: Sequence[str],
    *,
    collection: Collection,
    encoder: Encoder,
    settings: Settings,
    progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Index folders, files, globs, archives, tables and text files of captions.

    `progress` is called with the report after every batch; setting `stop` ends planning, and what is in flight is
    still stored. What is indexed already is skipped without decoding, so that the same call again goes on where this
    one ended.

    Raises:
        SourceNotFound, MissingExtra: a source names nothing, or cannot be read here; nothing was done then.
        IndexUnavailable: the index went away and did not come back; the same call again goes on.
    """
    report = Report(collection=collection.name, model=encoder.name)
    found = discover(sources, report=report, beneath=settings.data, settings=settings)
    return ingest_found(
        found, collection=collection, encoder=encoder, settings=settings, report=report, progress=progress, stop=stop
    )


def ingest_found(
    found: Iterable[Candidate | Failure],
    *,
    collection: Collection,
    encoder: Encoder,
    settings: Settings,
    report: Report,
    progress: Callable[[Report], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Index candidates, wherever they come from; the rest is as `ingest`."""
    stop = stop or threading.Event()
    run = _Run(collection, encoder, settings, report)
    try:
        for _ in run.stages(_until(found, stop)):
            report.seconds = time.monotonic() - report.started
            if progress is not None:
                progress(report)
    finally:
        report.stages.trace()
    report.seconds = time.monotonic() - report.started
    report.interrupted = stop.is_set()
    return report


class _Run:
    """One ingest: its stages and what they share."""

    def __init__(self, collection: Collection, encoder: Encoder, settings: Settings, report: Report) -> None:
        self._collection = collection
        self._encoder = encoder
        self._settings = settings
        self._report = report
        self._budget = Budget(_BYTES_IN_FLIGHT)
        self._threads = settings.threads or cpu_count()
        self._judge = _judge_of(collection, encoder, settings)
        self._classifiers = self._judge.classifiers if self._judge is not None else ()
        recipe = encoder.manifest.pixels
        self._features = _features_of(collection, settings) if recipe is not None else None
        looked_at = [self._features.target] if self._features is not None else []
        target = max([decode_target(recipe), *looked_at]) if recipe is not None else None
        self._planner = Planner(collection, report, settings, target=target)
        self._targets = [*looked_at, *(each.target for each in self._classifiers)]

    def stages(self, found: Iterable[Candidate | Failure]) -> Generator[None, None, None]:
        """Run everything; yields after each stored batch."""
        size = self._settings.batch_size
        threads = self._threads
        with (
            ThreadPoolExecutor(threads, "decode") as decoders,
            # Single-threaded runs side by side use the cores better than one run spread over them.
            ThreadPoolExecutor(threads, "embed") as encoders,
            ThreadPoolExecutor(1, "store") as writer,
            ThreadPoolExecutor(1, "rerank") as looker,
        ):
            try:
                planned = prefetch(self._within_budget(self._planner.plan(found)), ahead=size)
                prepared = map_ahead(decoders, self._prepare, planned, ahead=2 * size)
                batches = batched(prepared, size)
                embedded = map_ahead(encoders, self._embed, batches, ahead=threads + 1)
                stored = map_ahead(writer, self._store, embedded, ahead=2)
                yield from map_ahead(looker, self._keep_features, stored, ahead=2)
            finally:
                self._budget.close()

    def _within_budget(self, tasks: Iterator[Task]) -> Iterator[Task]:
        for task in tasks:
            if not self._budget.take(task.held):
                return
            yield task

    def _prepare(self, task: Task) -> _Prepared:
        """Decode an image and make it the encoder's input; a text is ready as it is."""
        held = task.held
        try:
            if isinstance(task.data, bytes):
                with self._report.stages.timed("decode"):
                    decoded = self._decoded(task, task.data)
                # Before it is indexed: what is indexed is skipped the next time, and would never be copied.
                self._planner.keep(task)
                return self._prepared(task, decoded)
            if task.image is not None:
                task.details = self._picture_hash(task.image)
                if task.file is not None and task.id == task.file.id:
                    task.file.details |= task.details
                return self._prepared(task, task.image)
            return _Prepared(task)
        except MediaStoreUnavailable:
            raise
        except CrosslensError as error:
            return _Prepared(task, error=error)
        finally:
            self._budget.give_back(held)
            task.data = task.image = None

    def _prepared(self, task: Task, image: Image.Image | Decoded) -> _Prepared:
        seen = self._features.prepare(task.record, image) if self._features is not None else None
        return _Prepared(task, self._encoder.prepare(image), self._shown(image), seen)

    def _decoded(self, task: Task, data: bytes) -> Decoded:
        target = max([decode_target(self._encoder.pixels), *self._targets])
        decoded = decode(data, target=target, max_pixels=self._settings.max_pixels)
        task.details = {"media_type": decoded.media_type, "width": decoded.width, "height": decoded.height}
        task.details |= self._picture_hash(decoded.image)
        if self._settings.metadata:
            task.said = describe(data, decoded.media_type)
        return decoded

    def _shown(self, image: Image.Image | Decoded) -> dict[str, Vectors]:
        return {each.manifest.name: each.prepare(image) for each in self._classifiers}

    def _picture_hash(self, image: Image.Image) -> dict[str, str]:
        if not self._settings.picture_hashes:
            return {}
        bits, quality = pdq(image)
        return {"pdq": bits.hex()} if quality >= MIN_QUALITY else {}

    def _embed(self, batch: list[_Prepared]) -> list[tuple[_Prepared, Vectors | None]]:
        """The vectors of a batch, images and texts each in one run; None beside an error."""
        vectors: dict[int, Vectors] = {}
        if self._settings.caption_items:
            batch = [each for prepared in batch for each in (*self._captions(prepared), prepared)]
        images = [prepared for prepared in batch if prepared.pixels is not None]
        texts = [prepared for prepared in batch if prepared.pixels is None and prepared.error is None]
        self._embed_some(images, self._image_vectors, vectors)
        self._classify(images)
        self._embed_some(texts, self._text_vectors, vectors)
        return [(prepared, vectors.get(id(prepared))) for prepared in batch]

    def _captions(self, prepared: _Prepared) -> Iterator[_Prepared]:
        """A picture's caption as an item of its own; of a file with many frames, once."""
        task = prepared.task
        is_first = task.file is None or task.id == task.file.id
        if prepared.pixels is not None and is_first and (caption := caption_task(task)) is not None:
            yield _Prepared(caption)

    def _embed_some(
        self, some: list[_Prepared], run: Callable[[list[_Prepared]], Vectors], vectors: dict[int, Vectors]
    ) -> None:
        """Embed, halving what fails until the item that fails alone is found."""
        if not some:
            return
        try:
            for prepared, vector in zip(some, run(some), strict=True):
                vectors[id(prepared)] = vector
        except ModelError as error:
            if len(some) == 1:
                some[0].error = error
                return
            middle = len(some) // 2
            self._embed_some(some[:middle], run, vectors)
            self._embed_some(some[middle:], run, vectors)

    def _image_vectors(self, some: list[_Prepared]) -> Vectors:
        pixels = [prepared.pixels for prepared in some if prepared.pixels is not None]
        with self._report.stages.timed("encode", len(pixels)):
            return self._encoder.encode_pixels(np.stack(pixels))

    def _text_vectors(self, some: list[_Prepared]) -> Vectors:
        started = time.perf_counter()
        embedded = self._encoder.encode_texts([prepared.task.record.text or "" for prepared in some])
        seconds = time.perf_counter() - started
        self._report.stages.note("tokenize", embedded.tokenize_seconds, len(some))
        self._report.stages.note("encode", seconds - embedded.tokenize_seconds, len(some))
        self._report.truncated += sum(embedded.truncated)
        return embedded.vectors

    def _classify(self, images: list[_Prepared]) -> None:
        """Note what the policy's image classifiers say; a picture for which one fails will not be judged, nor shown."""
        if not self._classifiers:
            return
        from indexer.moderation.judging import score_key  # noqa: PLC0415  for who has a policy

        for classifier in self._classifiers:
            name, key = classifier.manifest.name, score_key(classifier)
            some = [prepared for prepared in images if name in prepared.shown]
            try:
                scores = classifier.classify_prepared(np.stack([each.shown.pop(name) for each in some])) if some else ()
            except ModelError as error:
                _log.warning("classifier failed", classifier=name, reason=error.message)
                continue
            for prepared, row in zip(some, scores, strict=True):
                known = prepared.task.details.get("scores") or {}
                prepared.task.details["scores"] = {**known, key: [round(float(score), 6) for score in row]}

    def _judged(self, some: list[tuple[Task, Vectors]]) -> None:
        """Note the verdicts of what is about to be stored, where a policy is in force."""
        if self._judge is None or not some:
            return
        records = [task.described(task.record) for task, _ in some]
        vectors = np.stack([vector for _, vector in some])
        payloads = [task.whole_payload for task, _ in some]
        for (task, _), verdict in zip(some, self._judge.verdicts(records, payloads, vectors), strict=True):
            task.details["verdict"] = verdict
            if task.file is not None and task.id == task.file.id:
                task.file.details |= {
                    name: task.details[name] for name in ("verdict", "scores") if name in task.details
                }

    def _store(self, batch: list[tuple[_Prepared, Vectors | None]]) -> list[Seen]:
        """Write a batch; count it once it is acknowledged. Gives what a reranker has still to look at."""
        written: list[tuple[Task, Record]] = []
        points: list[Point] = []
        self._judged([(prepared.task, vector) for prepared, vector in batch if vector is not None])
        for prepared, vector in batch:
            task, record = prepared.task, prepared.task.record
            if vector is None:
                self._fail(task, prepared.error or ModelError("The encoder gave no vector."))
                continue
            written.append((task, record))
            points.append(Point(task.id, vector, to_payload(task.described(record), task.whole_payload)))
        with self._report.stages.timed("upsert", len(points)):
            self._collection.upsert(points)
        self._report.decoded += sum(prepared.pixels is not None for prepared, _ in batch)
        self._settle([(task, record) for task, record in written if task.file is None])
        for task, _ in written:
            if task.file is not None and task.record.kind is not Kind.TEXT:
                task.file.parts += 1
        for prepared, _ in batch:
            if prepared.task.ends and prepared.task.file is not None:
                self._finish(prepared.task.file)
        if self._judge is not None:
            self._judge.settle(self._collection, [task.record.parent for task, _ in written])
            self._tell([task for task, _ in written])
        return [prepared.seen for prepared, vector in batch if vector is not None and prepared.seen is not None]

    def _keep_features(self, seen: list[Seen]) -> None:
        if self._features is not None and seen:
            with self._report.stages.timed("rerank", len(seen)):
                self._features.keep(seen)

    def _tell(self, tasks: list[Task]) -> None:
        """Let the operator's webhook hear of what is not simply shown."""
        from indexer.moderation.notices import action_changed, open_webhooks, tell  # noqa: PLC0415  for who has a policy

        news = {
            task.id: task.details["verdict"]
            for task in tasks
            if action_changed(task.record.verdict, task.details["verdict"])
        }
        tell(open_webhooks(self._settings), self._collection.name, news)

    def _settle(self, written: list[tuple[Task, Record]]) -> None:
        """Count what was written; write again what gained a location meanwhile."""
        while late := self._planner.settle(written):
            written = [(task, task.record) for task, _ in written]
            for task in late:
                self._collection.replace_record(task.id, task.described(task.record))
        replaced = [each for task, _ in written for each in task.replaces]
        drop_locations(self._collection, replaced, self._settings)
        self._report.indexed += len(written)

    def _finish(self, file: Task) -> None:
        """Say at a file's first frame or page that all are in; or else that the file failed, though some are."""
        if file.error is not None:
            self._planner.fail(file, file.error)
            return
        file.details["frames"] = file.parts
        record = file.record
        self._collection.replace_record(file.id, file.described(record))
        self._report.frames += file.parts
        self._settle([(file, record)])
        if len(file.record.locations) > 1:
            rewrite_parts(self._collection, file.id, file.record.locations)

    def _fail(self, task: Task, error: CrosslensError) -> None:
        if task.file is not None:
            task.file.error = task.file.error or error
        else:
            self._planner.fail(task, error)


def _judge_of(collection: Collection, encoder: Encoder, settings: Settings) -> ItemJudge | None:
    if not collection.metadata.get(POLICY_KEY):
        return None
    from indexer.moderation.judging import open_judge  # noqa: PLC0415  for who has a policy

    return open_judge(collection, encoder, settings)


def _features_of(collection: Collection, settings: Settings) -> FeaturesAtIngest | None:
    if not wants_features(collection):
        return None
    from indexer.rerank.ingest import features_at_ingest  # noqa: PLC0415  for who reranks

    return features_at_ingest(settings)


def _until(found: Iterable[Candidate | Failure], stop: threading.Event) -> Iterator[Candidate | Failure]:
    for each in found:
        if stop.is_set():
            return
        yield each
