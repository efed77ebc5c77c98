"""What the HTTP API works with, opened once and shared by its threads: index, encoders, engines, originals."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, cast

import structlog
from flask import current_app

from indexer.errors import CollectionNotFound, MediaError, ModelError, VectorIndexError
from indexer.flow import batched
from indexer.items import Kind
from indexer.moderation.stored import is_moderated
from indexer.moderation.visible import visible
from indexer.rerank.rerankers import Rerankers
from indexer.settings import Settings
from search_api.encoders import Encoders
from search_api.engine import SearchEngine

if TYPE_CHECKING:
    from indexer.items import Record
    from indexer.media.originals import Originals
    from indexer.media.thumbnails import Thumbnails
    from indexer.moderation.review.impressions import Impressions
    from indexer.rerank.ingest import FeaturesAtIngest
    from indexer.store.collection import Collection
    from indexer.store.store import Store
    from indexer.uploads import Outcome, Upload
    from search_api import duplicates
    from search_api.pages import Pages
    from search_api.reranking import Reranking
    from workers.rerank.elsewhere import WorkerRerankers
    from workers.submit import Queue

_log = structlog.get_logger("api")

_DISCARD_BATCH = 500
"""Items whose originals are removed at a time."""

ENGINE_SECONDS = 2.0
"""How long a collection's metadata is believed without asking the index: saves a round trip a search."""


class Services:
    """The parts behind the routes. Each is opened when first needed, under a lock, and closed by `close`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._open = ExitStack()
        self._store: Store | None = None
        self.encoders = Encoders(settings)
        self.rerank_workers = _rerank_workers(settings)
        """Where reranking is the workers'."""
        self.rerankers = self.rerank_workers or Rerankers(settings, lambda: self.originals)
        self._engines: dict[tuple[str, bool], tuple[float, SearchEngine]] = {}
        """By name, and whether it finds everything."""

    @property
    def store(self) -> Store:
        """The index; attached to, or started, at the first use.

        Raises:
            IndexUnavailable: it does not start.
            IndexOwned: another process owns the data folder.
        """
        with self._lock:
            if self._store is None:
                from indexer.store import open_store  # noqa: PLC0415

                self._store = self._open.enter_context(open_store(self.settings))
            return self._store

    @cached_property
    def originals(self) -> Originals:
        """The store of uploads and copies, and whatever reads originals.

        Raises:
            UsageError, MissingExtra: `media_url` is none that can be used here.
        """
        from indexer.media.originals import Originals  # noqa: PLC0415

        originals = Originals.of(self.settings)
        self._open.callback(originals.close)
        return originals

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """The items' thumbnails, in the same store."""
        from indexer.media.thumbnails import Thumbnails  # noqa: PLC0415

        return Thumbnails(self.originals, self.settings)

    @cached_property
    def queue(self) -> Queue:
        """The queue; connected to when first asked something."""
        from workers.submit import Queue  # noqa: PLC0415

        return Queue(self.settings)

    def check_queue(self) -> None:
        """Ask the queue for a sign of life.

        Raises:
            BrokerUnavailable: there is none.
        """
        from workers.submit import available  # noqa: PLC0415

        with available(self.settings):
            self.queue.jobs.ping()

    def ingest(self, collection: Collection, uploads: Sequence[Upload]) -> list[Outcome]:
        """Store and index uploads; an outcome each."""
        from indexer.rerank.ingest import looked_at_by  # noqa: PLC0415
        from indexer.uploads import ingest_uploads  # noqa: PLC0415

        with looked_at_by(self._features_at_ingest):
            return ingest_uploads(
                uploads,
                collection=collection,
                encoder=self.encoders.of(collection),
                originals=self.originals,
                settings=self.settings,
            )

    def collection(self, name: str) -> Collection:
        """A collection, as the index has it now.

        Raises:
            CollectionNotFound: there is none of that name.
        """
        return self.store.get(name)

    def delete_item(self, name: str, item_id: str, record: Record) -> None:
        """Remove an item, its thumbnails, and its upload or copy unless another item has the same content.

        The first frame or page of a file stands for the file, and takes the others with it.

        Raises:
            MediaStoreUnavailable: the media store is away; asked again, it goes on.
        """
        collection = self.collection(name)
        is_file = record.parent == item_id
        records = [record, *(part.record for part in collection.parts(item_id))] if is_file else [record]
        self.thumbnails.discard(records)  # before the item: where the store is away, it is still there to be removed
        self._discard_features(records)
        if is_file:
            collection.delete_parts(item_id)
        collection.delete([item_id])
        if record.kind is not Kind.TEXT:
            self._discard({record.sha256})

    def judge_again(self, name: str, ids: Sequence[str]) -> None:
        """Judge items whose payload has changed, if a policy is in force: its rules may read it."""
        collection = self.collection(name)
        if not is_moderated(collection):
            return
        from indexer.moderation.judging import judge_stored, open_judge  # noqa: PLC0415  for who has a policy
        from indexer.moderation.trail import Trail  # noqa: PLC0415

        judge = open_judge(collection, self.encoders.of(collection), self.settings)
        if judge is not None:
            trail = Trail(self.settings.data, collection.name)
            judge_stored(collection, judge, ids, settings=self.settings, originals=self.originals, trail=trail)

    def _features_at_ingest(self) -> FeaturesAtIngest | None:
        """What looks at the pictures of uploads: the searches' own model; None where that is the workers'."""
        return self.rerankers.at_ingest() if isinstance(self.rerankers, Rerankers) else None

    def _discard_features(self, records: Sequence[Record]) -> None:
        """Remove what rerankers kept of items' pictures."""
        if self.settings.rerank_folder.exists():
            from indexer.rerank.features import discard_features  # noqa: PLC0415  for who reranks

            discard_features(records, self.settings)

    def _discard(self, hashes: set[str]) -> None:
        """Remove uploads and copies that no item has any more."""
        for collection in self.store.list():
            hashes -= collection.holding(sorted(hashes))
        self.originals.discard(hashes)

    def ready_collection(self, name: str) -> Collection:
        """A collection to upload into; made for the default model if there is none."""
        try:
            return self.collection(name)
        except CollectionNotFound:
            return self.create(name)[0]

    def engine(self, name: str, *, everything: bool = False) -> SearchEngine:
        """The search engine of a collection, its metadata not older than `ENGINE_SECONDS`.

        It finds what may be shown, or `everything`.
        """
        now = time.monotonic()
        with self._lock:
            until, engine = self._engines.get((name, everything), (0.0, None))
            if engine is None or until < now:
                collection = self.collection(name)
                if not everything:
                    collection = visible(collection)
                before = engine.background if engine is not None and engine.is_of(collection) else None
                engine = SearchEngine(
                    self.encoders.of(collection),
                    collection,
                    max_pixels=self.settings.max_pixels,
                    pages=self.pages,
                    fetch=self.fetch_all,
                    reranking=self.reranking,
                    background=before,
                )
                self._engines[name, everything] = (now + ENGINE_SECONDS, engine)
            return engine

    def forget_engines(self, name: str) -> None:
        """Make a collection's engines anew: it was removed, or what it shows has changed."""
        with self._lock:
            for everything in (False, True):
                self._engines.pop((name, everything), None)

    @cached_property
    def impressions(self) -> Impressions:
        """How often visitors were shown each item of moderated collections."""
        from indexer.moderation.review.impressions import Impressions  # noqa: PLC0415

        impressions = Impressions(self.settings.data)
        self._open.callback(impressions.write)
        return impressions

    @cached_property
    def duplicates(self) -> duplicates.Search:
        """The searches for duplicates."""
        from search_api.duplicates import Search  # noqa: PLC0415

        search = Search(self.settings)
        self._open.callback(search.stop.set)
        return search

    @cached_property
    def reranking(self) -> Reranking:
        """What reranks for all searches."""
        from search_api.reranking import Reranking  # noqa: PLC0415

        return Reranking(self.rerankers)

    @cached_property
    def pages(self) -> Pages:
        """Ranked lists whose pages are turned: in the queue's Redis where there is one, else in this process."""
        from search_api.pages import MemoryShelf, Pages  # noqa: PLC0415

        if not self.settings.has_queue:
            return Pages(MemoryShelf())
        from search_api.shared_pages import RedisShelf  # noqa: PLC0415
        from workers.runtime import connect  # noqa: PLC0415

        return Pages(RedisShelf(self.settings, connect(self.settings, tries=1)))

    def fetch_all(self, urls: Sequence[str]) -> list[bytes | MediaError]:
        """What is behind the URLs of one request, or why it cannot be had; all share one deadline and one cap."""
        from indexer.media.fetch import Fetcher  # noqa: PLC0415

        settings = self.settings
        with Fetcher(
            max_bytes=settings.max_bytes, allow=settings.fetch_allowed, deadline=settings.fetch_deadline
        ) as fetcher:
            return [each if isinstance(each, MediaError) else each.data for each in fetcher.fetch_all(urls)]

    def create(self, name: str, model: str | None = None) -> tuple[Collection, bool]:
        """A collection for a bundle's vectors (the default bundle's when unset), and whether it was made just now.

        Raises:
            BundleNotFound: no bundle of that name is installed.
            ModelMismatch: the collection is there and holds another model's vectors.
        """
        encoder = self.encoders.named(model or self.settings.model)
        with self._lock:
            try:
                self.store.get(name)
                made = False
            except CollectionNotFound:
                made = True
            collection = self.store.create(name, encoder.name, encoder.fingerprint, encoder.dimension)
        return collection, made

    def delete(self, name: str) -> None:
        """Remove a collection, its thumbnails, and the uploads and copies that no other collection's item has.

        Raises:
            CollectionNotFound: there is none of that name.
            MediaStoreUnavailable: the media store is away; asked again, it goes on if the collection is still there.
        """
        # On disk, since a collection may have millions; and noted before it goes, since afterwards nobody knows them.
        with tempfile.TemporaryFile("w+", encoding="ascii") as noted:
            for hashes in self._forgotten(self.collection(name)):
                noted.writelines(f"{sha256}\n" for sha256 in hashes)
            with self._lock:
                self.store.delete(name)
            self.impressions.forget(name)
            self.forget_engines(name)
            noted.seek(0)
            for some in batched(noted, _DISCARD_BATCH):
                self._discard({line.strip() for line in some})

    def _forgotten(self, collection: Collection) -> Iterator[set[str]]:
        """The hashes of a collection's originals, some at a time, once their thumbnails were removed."""
        if self.originals.is_empty() and not self.settings.rerank_folder.exists():
            return
        for ids in collection.ids(_DISCARD_BATCH):
            records = [item.record for item in collection.get_many(ids).values() if item.record.kind is not Kind.TEXT]
            self.thumbnails.discard(records)
            self._discard_features(records)
            yield {record.sha256 for record in records}

    def check_media(self) -> None:
        """Ask the media store for a sign of life.

        Raises:
            MediaStoreUnavailable: there is none.
        """
        self.originals.blobs.check()

    def check_index(self) -> None:
        """Ask the index for a sign of life."""
        self.store.ping()

    def warm(self) -> None:
        """Open what the first request would otherwise wait for; what cannot be opened, readiness will name."""
        from indexer.models.languages import warm_up  # noqa: PLC0415

        for check in (self.check_index, self.encoders.check, self.encoders.warm_up, warm_up, self.rerankers.names):
            try:
                check()
            except (VectorIndexError, ModelError) as error:
                _log.warning("not ready", code=error.code, detail=error.message)

    def close(self) -> None:
        """Let go of the index and stop the batchers."""
        with self._lock:
            self._open.close()
            self.encoders.close()
            self.rerankers.close()
            self._store = None
            self._engines.clear()


def _rerank_workers(settings: Settings) -> WorkerRerankers | None:
    if settings.rerank_in == "server":
        return None
    from workers.rerank.elsewhere import WorkerRerankers  # noqa: PLC0415  a queue's client, for who has one

    return WorkerRerankers(settings)


def services() -> Services:
    """Those of the app that answers the current request."""
    return cast("Services", current_app.extensions["crosslens"])
