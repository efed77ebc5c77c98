"""A search engine for one command: index and encoder opened side by side, since each takes half a second alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from indexer.errors import CollectionNotFound, ModelError
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.media.originals import Originals
    from indexer.models.encoder import Encoder
    from search_api.engine import SearchEngine


@contextmanager
def local_engine(settings: Settings, *, everything: bool = False) -> Iterator[SearchEngine]:
    """The engine of `settings.collection`; the index is attached to, or started, for as long as the context lasts.

    It finds what the collection's policy shows, or `everything`.

    Raises:
        CollectionNotFound: nothing was ingested into it.
        ModelMismatch: it was filled by a model that is not installed here.
    """
    attached = None
    if settings.qdrant_url is None:
        if not settings.index_folder.exists():
            raise CollectionNotFound(f"There is nothing in {settings.data} yet.")
        from indexer.edge.client import attach  # noqa: PLC0415

        attached = attach(settings)
    with ThreadPoolExecutor(1) as pool:
        likely = pool.submit(_likely_encoder, settings)
        from indexer.moderation.visible import visible  # noqa: PLC0415
        from indexer.rerank.rerankers import Rerankers  # noqa: PLC0415
        from indexer.rerank.walk import InTurn  # noqa: PLC0415
        from indexer.store import open_store  # noqa: PLC0415
        from search_api.engine import SearchEngine  # noqa: PLC0415
        from search_api.reranking import Reranking  # noqa: PLC0415

        with open_store(settings, attached) as store:
            collection = store.get(settings.collection)
            if not everything:
                collection = visible(collection)
            encoder = likely.result()
            if encoder is None or encoder.fingerprint != collection.fingerprint:
                from indexer.models.encoder import load_encoder_of  # noqa: PLC0415

                encoder = load_encoder_of(settings, collection.model, collection.fingerprint)
            with closing(Rerankers(settings, lambda: _originals(settings), threads=None)) as rerankers:
                reranking = Reranking(rerankers, patient=True, turns=InTurn())
                yield SearchEngine(encoder, collection, max_pixels=settings.max_pixels, reranking=reranking)


def _originals(settings: Settings) -> Originals:
    from indexer.media.originals import Originals  # noqa: PLC0415  for who reranks

    return Originals.of(settings)


def _likely_encoder(settings: Settings) -> Encoder | None:
    """The default model's encoder, its text tower open: the collection's own, nearly always."""
    from indexer.models.encoder import load_encoder  # noqa: PLC0415

    try:
        encoder = load_encoder(settings)
        encoder.encode_texts(["warm up"])
    except ModelError:
        return None
    return encoder
