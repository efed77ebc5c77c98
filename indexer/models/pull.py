"""Ready bundles from elsewhere: a folder, a URL or a model hub, installed only when whole, as published, and right.

What comes over a network is nobody's word: the caller pins the manifest by its sha256, the manifest pins every other
file by size and sha256, and the golden vectors prove that the towers compute here what they computed there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from indexer.errors import InvalidBundle, InvalidName, ModelError, UnknownRecipe, UsageError
from indexer.models.bundle import (
    RERANK,
    Bundle,
    Published,
    bundle_homes,
    inside_bundle,
    load_bundle,
    put_in_place,
    remove,
    task_of,
)
from indexer.models.encoder import Encoder
from indexer.models.golden import check_golden
from indexer.models.manifest import MANIFEST_FILE, File, Manifest, read_manifest, write_manifest
from indexer.models.origins import Origin, open_origin
from indexer.models.rerank.bundle import RerankBundle, load_rerank_bundle
from indexer.models.rerank.golden import check_golden_pairs
from indexer.models.rerank.loading import load_any
from indexer.models.rerank.manifest import RerankManifest, read_rerank_manifest
from indexer.settings import Settings

AnyManifest = Manifest | RerankManifest
Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes there will be."""

MAX_MANIFEST = 4 * 10**6
"""Bytes of a manifest that are read."""
MAX_TOTAL = 20 * 10**9
"""Bytes that a bundle may have."""

_PUBLISHER = "Try once more; if it stays so, ask who publishes the bundle."


@dataclass(frozen=True)
class Pulled(Published[AnyManifest]):
    """A bundle, of an encoder or a reranker, that is installed now."""

    already_there: bool = False
    """Whether it was before, and nothing was fetched."""


def pull(
    source: str,
    *,
    settings: Settings,
    sha256: str | None,
    name: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Install the bundle at `source` in the data folder's `models`; one that is there already, and whole, is left.

    `source` is a folder, the URL of one, or `hf:org/name[@revision]`. `sha256` is its manifest.json's; a folder of this
    machine needs none. `name` installs it under another name, `force` over a bundle that has the name.

    Raises:
        UsageError: no such source, no sha256, or another bundle has the name.
        DownloadFailed: the source cannot be reached, refuses, or breaks off.
        InvalidBundle: the manifest is not the pinned one, or a file is not the one it lists.
        UnknownRecipe: a preparation that this version does not know.
        GoldenMismatch: its vectors, or a reranker's scores, are others here than where it was made.
        ModelError: the data folder cannot be written.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{sha256!r} is no sha256.", remedy="Give the manifest's: 64 hexadecimal digits.")
    with open_origin(source) as origin:
        data = b"".join(_capped(origin, MANIFEST_FILE, MAX_MANIFEST))
        digest = hashlib.sha256(data).hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise InvalidBundle(
                f"{MANIFEST_FILE} at {origin.where} is not the pinned one: its sha256 is {digest}.",
                remedy="Compare both with what the publisher names: the bundle was changed, or the sha256 is wrong.",
                sha256=digest,
            )
        published = _parse(data, origin.where)
        if sha256 is None and origin.is_remote:
            raise UsageError(
                f"Without a sha256, {published.name!r} from {origin.where} would be whatever is there at the moment.",
                remedy=f"If you trust it: crosslens models pull {shlex.quote(source)} --sha256 {digest}",
                sha256=digest,
            )
        manifest = _renamed(published, name) if name else published
        if not force and (there := _installed(manifest, settings)):
            return Pulled(there.folder, there.manifest, already_there=True)
        target = settings.models_folder / manifest.name
        try:
            with _staging(target) as staging:
                _fetch_all(origin, manifest, staging, progress)
                Published(staging, manifest).verify_files()
                _check_answers(staging, manifest, settings)
                # Last, since a folder with a manifest is a bundle to whoever lists them.
                if name:
                    write_manifest(manifest, staging)
                else:
                    (staging / MANIFEST_FILE).write_bytes(data)
                put_in_place(staging, target)
        except OSError as error:
            raise ModelError(
                f"{settings.models_folder} cannot be written: {error.strerror}.",
                remedy="Make room there, or name another folder with --data.",
            ) from error
    return Pulled(target, manifest)


def _check_answers(folder: Path, manifest: AnyManifest, settings: Settings) -> None:
    if isinstance(manifest, RerankManifest):
        check_golden_pairs(load_any(RerankBundle(folder, manifest), settings))
    else:
        check_golden(Encoder(Bundle(folder, manifest)))


def _capped(origin: Origin, name: str, size: int) -> Iterator[bytes]:
    """One file's content, up to the first byte too many."""
    for chunk in origin.chunks(name):
        size -= len(chunk)
        if size < 0:
            raise InvalidBundle(f"{name} at {origin.where} is longer than it may be.", remedy=_PUBLISHER)
        yield chunk


def _parse(data: bytes, where: str) -> AnyManifest:
    """The manifest, whose files have names that stay inside a folder and sizes that fit the cap."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST_FILE).write_bytes(data)
        try:
            read = read_rerank_manifest if task_of(Path(folder)) == RERANK else read_manifest
            manifest: AnyManifest = read(Path(folder))
        except (InvalidBundle, UnknownRecipe) as error:
            remedy = error.remedy if isinstance(error, UnknownRecipe) else _PUBLISHER
            raise type(error)(error.message.replace(folder, where), remedy=remedy) from error
    for name in manifest.files:
        # Other spellings of one path would be files that overwrite each other.
        if str(inside_bundle(name)) != name or not name.isprintable() or name == MANIFEST_FILE:
            raise InvalidBundle(f"The manifest at {where} lists a file {name!r}.", remedy=_PUBLISHER)
    total = _total(manifest)
    if total > MAX_TOTAL:
        raise InvalidBundle(
            f"The bundle at {where} has {total / 1e9:.1f} GB; {MAX_TOTAL / 1e9:.0f} is the most.",
            remedy="Take a smaller one.",
        )
    return manifest


def _total(manifest: AnyManifest) -> int:
    return sum(file.size for file in manifest.files.values())


def _renamed(manifest: AnyManifest, name: str) -> AnyManifest:
    try:
        return type(manifest).model_validate({**manifest.model_dump(), "name": name})
    except ValidationError as error:
        raise InvalidName(
            f"{name!r} is no name for a bundle.",
            remedy="Use 1 to 64 small letters, digits, '.', '-' and '_', beginning with a letter or digit.",
        ) from error


def _installed(manifest: AnyManifest, settings: Settings) -> Bundle | RerankBundle | None:
    """The same bundle where it is installed and whole; None where it is not there, or damaged.

    Raises:
        UsageError: another bundle has its name.
    """
    for home in bundle_homes(settings):
        folder = home / manifest.name
        if not folder.exists():
            continue
        bundle: Bundle | RerankBundle | None
        try:
            bundle = load_rerank_bundle(folder) if task_of(folder) == RERANK else load_bundle(folder)
        except ModelError:
            bundle = None
        if bundle is None or bundle.manifest.fingerprint != manifest.fingerprint:
            raise UsageError(
                f"{folder} is another bundle of the name {manifest.name!r}.",
                remedy="--name NAME installs this one beside it, --force in its place.",
            )
        try:
            bundle.verify_files()
        except InvalidBundle:
            return None
        return bundle
    return None


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, nobody else's, that is gone afterwards unless it was moved away."""
    folder = target.with_name(f".{target.name}.pulling")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"Another process is pulling {target.name!r}.", remedy="Wait for it.") from error
        try:
            for rest in folder.iterdir():  # of a pull that was killed
                remove(rest)
            yield folder
        finally:
            remove(folder)
    finally:
        os.close(descriptor)


def _fetch_all(origin: Origin, manifest: AnyManifest, folder: Path, progress: Progress | None) -> None:
    done, total = 0, _total(manifest)
    for name, listed in manifest.files.items():
        for size in _fetch(origin, name, listed, folder / name):
            done += size
            if progress is not None:
                progress(done, total)


def _fetch(origin: Origin, name: str, listed: File, path: Path) -> Iterator[int]:
    """Write one file; give the sizes of its parts as they come.

    Raises:
        InvalidBundle: it is longer than the manifest says, or another.
    """
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for chunk in _capped(origin, name, listed.size):
            digest.update(chunk)
            file.write(chunk)
            yield len(chunk)
    if digest.hexdigest() != listed.sha256:
        raise InvalidBundle(f"{name} at {origin.where} is not the file that was published.", remedy=_PUBLISHER)
