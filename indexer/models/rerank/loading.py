"""Rerankers by name, on the devices of the settings."""

from __future__ import annotations

from indexer.errors import BundleNotFound, NoReranker
from indexer.models.bundle import find_folder
from indexer.models.catalog import find_known
from indexer.models.rerank.bundle import RerankBundle, find_rerank_bundle
from indexer.models.rerank.graphs import plan_of
from indexer.models.rerank.reranker import Reranker, TextReranker
from indexer.settings import Settings


def load_reranker(settings: Settings, name: str | None = None, *, threads: int | None = None) -> Reranker:
    """The reranker of pictures by name or folder; `settings.reranker` when none is named.

    `threads` is for each run on the CPU; `settings.threads`, else all cores, when unset.

    Raises:
        NoReranker: none of that name is installed, or it reranks no pictures.
        InvalidBundle: it is broken.
        UsageError, DeviceUnavailable: as for `load_encoder`.
    """
    name = name or settings.reranker
    reranker = load_any(_found(name, settings, "blip2-itm"), settings, threads=threads)
    if not isinstance(reranker, Reranker):
        raise _none(f"{name!r} reranks texts, not pictures.", "blip2-itm")
    return reranker


def load_text_reranker(settings: Settings, name: str | None = None, *, threads: int | None = None) -> TextReranker:
    """The reranker of texts, likewise; `settings.text_reranker` when none is named.

    Raises:
        NoReranker, InvalidBundle, UsageError, DeviceUnavailable: as for `load_reranker`.
    """
    name = name or settings.text_reranker
    reranker = load_any(_found(name, settings, "cross-encoder"), settings, threads=threads)
    if not isinstance(reranker, TextReranker):
        raise _none(f"{name!r} reranks pictures, not texts.", "cross-encoder")
    return reranker


def load_any(bundle: RerankBundle, settings: Settings, *, threads: int | None = None) -> Reranker | TextReranker:
    """The reranker of a bundle, of pictures or texts, on the devices of the settings.

    Raises:
        UsageError, DeviceUnavailable: as for `load_encoder`.
    """
    plan = plan_of(settings, threads)
    return TextReranker(bundle, plan) if bundle.manifest.pixels is None else Reranker(bundle, plan)


def _found(name: str, settings: Settings, usual: str) -> RerankBundle:
    try:
        find_folder(name, settings)
    except BundleNotFound as error:
        if find_known(name) is not None:
            raise _none(error.message, name) from error
        others = "Name another (`crosslens models list` shows those that are there)"
        raise NoReranker(error.message, remedy=f"{others}, or run `crosslens models export {usual}`.") from error
    try:
        return find_rerank_bundle(name, settings)
    except BundleNotFound as error:  # an encoder's
        raise _none(error.message, usual) from error


def _none(message: str, export: str) -> NoReranker:
    return NoReranker(message, remedy=f"Run `crosslens models export {export}`.")
