"""Rerank bundles: they lie in the same folders as encoders, and their manifests say which they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexer.errors import BundleNotFound
from indexer.models.bundle import RERANK, Published, bundle_folders, find_folder, task_of
from indexer.models.rerank.manifest import RerankManifest, read_rerank_manifest
from indexer.settings import Settings


class RerankBundle(Published[RerankManifest]):
    """A folder with all that a reranker needs."""


def load_rerank_bundle(folder: Path) -> RerankBundle:
    """The rerank bundle in `folder`. Its files are checked one by one when they are used (`Published.path`).

    Raises:
        InvalidBundle: no manifest, or one that does not parse.
        UnknownRecipe: a preparation that this version does not know.
    """
    return RerankBundle(folder=folder, manifest=read_rerank_manifest(folder))


def find_rerank_bundle(name: str, settings: Settings) -> RerankBundle:
    """A rerank bundle by name, or by the path of its folder.

    Raises:
        BundleNotFound: none of that name, or it is an encoder's.
        InvalidBundle: there is one, and it is broken.
    """
    folder = find_folder(name, settings)
    if task_of(folder) != RERANK:
        raise BundleNotFound(f"{name!r} is no reranker: it embeds pictures or texts.")
    return load_rerank_bundle(folder)


def list_rerank_bundles(settings: Settings) -> Iterator[RerankBundle]:
    """Every bundle that `find_rerank_bundle` finds by name.

    Raises:
        InvalidBundle: when it comes to a broken one.
    """
    for folder in bundle_folders(settings):
        if task_of(folder) == RERANK:
            yield load_rerank_bundle(folder)
