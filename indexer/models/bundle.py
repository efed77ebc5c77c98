"""Bundles on disk: found by name, and never used before their files are the ones that were published."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Generic, Protocol, TypeVar

from indexer.errors import BundleNotFound, InvalidBundle
from indexer.models.manifest import EXTERNAL_SUFFIX, MANIFEST_FILE, File, Manifest, TextRecipe, read_manifest
from indexer.settings import Settings

RERANK = "rerank"
"""The `task` in a manifest that is no encoder's."""


class Described(Protocol):
    """What every bundle's manifest says, whatever the bundle is for."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def fingerprint(self) -> str:
        """Names what it computes."""

    @property
    def text(self) -> TextRecipe:
        """How it reads texts."""

    @property
    def files(self) -> Mapping[str, File]:
        """Every other file of the bundle, by its name."""


Described_co = TypeVar("Described_co", bound=Described, covariant=True)


@dataclass(frozen=True)
class Published(Generic[Described_co]):
    """A bundle's folder, and the manifest that its files are held against."""

    folder: Path
    manifest: Described_co

    def path(self, name: str) -> Path:
        """The path of one of the bundle's files, after comparing its size and sha256 with the manifest's.

        Raises:
            InvalidBundle: the manifest does not list it, or it is missing, changed, or outside the folder.
        """
        listed = self.manifest.files.get(name)
        if listed is None:
            raise InvalidBundle(f"The bundle {self.manifest.name!r} lists no file {name!r}.")
        path = self.folder / inside_bundle(name)
        try:
            # A link inside a bundle could make it read, and hash, any file of this machine.
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise InvalidBundle(f"{path} leads out of the bundle.")
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InvalidBundle(f"{path} cannot be read: {error.strerror}.") from error
        if digest != listed.sha256:
            raise InvalidBundle(f"{path} is not the file that was published: its sha256 is {digest}.")
        return path

    def graph(self, name: str) -> Path:
        """The path of a graph; weights that it keeps in a file beside it are compared too.

        Raises:
            InvalidBundle: as `path`.
        """
        if name + EXTERNAL_SUFFIX in self.manifest.files:
            self.path(name + EXTERNAL_SUFFIX)
        return self.path(name)

    def verify_files(self) -> None:
        """Compare every file that the manifest lists.

        Raises:
            InvalidBundle: at the first that differs.
        """
        for name in self.manifest.files:
            self.path(name)


class Bundle(Published[Manifest]):
    """A folder with all that an encoder needs."""


def load_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`. Its files are checked one by one when they are used (`Bundle.path`).

    Raises:
        InvalidBundle: no manifest, or one that does not parse.
        UnknownRecipe: a preparation that this version does not know.
    """
    return Bundle(folder=folder, manifest=read_manifest(folder))


def published_files(folder: Path) -> dict[str, File]:
    """Size and sha256 of every file beneath a bundle's folder but its manifest, by name: what a manifest lists."""
    listed = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST_FILE:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            listed[path.relative_to(folder).as_posix()] = File(sha256=digest, size=path.stat().st_size)
    return listed


def find_bundle(name: str, settings: Settings) -> Bundle:
    """An encoder's bundle by name (built in, or in the data folder's `models`), or by the path of its folder.

    Raises:
        BundleNotFound: none of that name, or it is a reranker's.
        InvalidBundle: there is one, and it is broken.
    """
    folder = find_folder(name, settings)
    if task_of(folder) == RERANK:
        raise BundleNotFound(
            f"{name!r} is a reranker: it scores what a search found, and embeds nothing.",
            remedy="Name a bundle that embeds; `crosslens models list` shows them.",
        )
    return load_bundle(folder)


def list_bundles(settings: Settings) -> Iterator[Bundle]:
    """Every bundle that `find_bundle` finds by name.

    Raises:
        InvalidBundle: when it comes to a broken one.
    """
    for folder in bundle_folders(settings):
        if task_of(folder) != RERANK:
            yield load_bundle(folder)


def find_folder(name: str, settings: Settings) -> Path:
    """The folder of a bundle of any task, by its name or path.

    Raises:
        BundleNotFound: none of that name.
    """
    for folder in bundle_homes(settings):
        if (folder / name / MANIFEST_FILE).is_file() and "/" not in name:
            return folder / name
    path = Path(name).expanduser()
    if (path / MANIFEST_FILE).is_file():
        return path
    raise BundleNotFound(f"There is no bundle {name!r} here.")


def bundle_folders(settings: Settings) -> Iterator[Path]:
    """The folders of all bundles that are found by name, of any task."""
    seen = set()
    for home in bundle_homes(settings):
        for folder in sorted(home.iterdir()) if home.is_dir() else ():
            if (folder / MANIFEST_FILE).is_file() and folder.name not in seen:
                seen.add(folder.name)
                yield folder


def task_of(folder: Path) -> str | None:
    """The `task` that the manifest in a folder names; None where it names none, as an encoder's, or does not parse."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # whoever reads it as a manifest says what is wrong
    task = manifest.get("task") if isinstance(manifest, dict) else None
    return task if isinstance(task, str) else None


def bundle_homes(settings: Settings) -> tuple[Path, Path]:
    """The folders that bundles are looked for in; the user's own outrank the built-in ones."""
    return settings.models_folder, Path(str(files("indexer.models") / "builtin"))


def inside_bundle(name: str) -> PurePosixPath:
    """A listed file's path below its bundle's folder.

    Raises:
        InvalidBundle: it leads out of it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise InvalidBundle(f"The manifest names a file outside of its folder: {name!r}.")
    return path


def put_in_place(finished: Path, target: Path) -> None:
    """Move a finished folder to its place; what was there is there until then, and again if that fails."""
    old = target.with_name(f".{target.name}.replaced")
    remove(old)
    if target.exists():
        target.rename(old)
    try:
        finished.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
