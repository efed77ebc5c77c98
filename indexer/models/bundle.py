"""Bundles on disk: found by name, and never used before their files are the ones that were published."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from indexer.errors import BundleNotFound, InvalidBundle
from indexer.models.manifest import EXTERNAL_SUFFIX, MANIFEST_FILE, File, Manifest, read_manifest
from indexer.settings import Settings


@dataclass(frozen=True)
class Bundle:
    """A folder with all that an encoder needs, and its manifest."""

    folder: Path
    manifest: Manifest

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
    """A bundle by name (built in, or in the data folder's `models`), or by the path of its folder.

    Raises:
        BundleNotFound: none of that name.
        InvalidBundle: there is one, and it is broken.
    """
    for folder in bundle_homes(settings):
        if (folder / name / MANIFEST_FILE).is_file() and "/" not in name:
            return load_bundle(folder / name)
    path = Path(name).expanduser()
    if (path / MANIFEST_FILE).is_file():
        return load_bundle(path)
    raise BundleNotFound(f"There is no bundle {name!r} here.")


def list_bundles(settings: Settings) -> Iterator[Bundle]:
    """Every bundle that `find_bundle` finds by name.

    Raises:
        InvalidBundle: when it comes to a broken one.
    """
    seen = set()
    for home in bundle_homes(settings):
        for folder in sorted(home.iterdir()) if home.is_dir() else ():
            if (folder / MANIFEST_FILE).is_file() and folder.name not in seen:
                seen.add(folder.name)
                yield load_bundle(folder)


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
