"""The files of a backup, in a folder or in one .zip: written once, hashed as they pass, read back by checked names.

Nothing is ever unpacked by what an archive says of itself: parts are asked for by the names in the backup's own list,
each of which is checked, and given only with the length and the SHA-256 that stand there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from indexer.errors import InvalidBackup, InvalidRequest

MANIFEST = "manifest.json"
PARTS = "parts.jsonl"
_CHUNK = 2**20
_MAX_MANIFEST = 64 * 2**20
_MAX_LINE = 4096
_STEP = r"[A-Za-z0-9_][A-Za-z0-9_.@+=, -]{0,199}"
_NAME = re.compile(rf"{_STEP}(/{_STEP}){{0,9}}")


def is_name(name: object) -> bool:
    """Whether it may name a part: no step begins with a dot or a slash, so none leads out of a folder."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Part:
    """One file of a backup."""

    name: str
    bytes: int
    sha256: str


class _Sink(Protocol):
    def open(self, name: str) -> IO[bytes]:
        """A new file to write."""

    def finish(self) -> None:
        """All is written."""


class _FolderSink:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700)

    def open(self, name: str) -> IO[bytes]:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")

    def finish(self) -> None:
        os.sync()


class _ZipSink:
    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        path.chmod(0o600)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def open(self, name: str) -> IO[bytes]:
        # Media are compressed already, and vectors hardly can be.
        compression = zipfile.ZIP_DEFLATED if name.endswith((".jsonl", ".json")) else zipfile.ZIP_STORED
        info = zipfile.ZipInfo(name)
        info.compress_type = compression
        return self._zip.open(info, "w", force_zip64=True)

    def finish(self) -> None:
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Writer:
    """Writes a backup; it bears its name once it is whole. Use it as made by `writing`."""

    def __init__(self, sink: _Sink, noted: IO[bytes]) -> None:
        self._sink = sink
        self._noted = noted
        self.count = 0
        self.bytes = 0

    def add(self, name: str, chunks: Iterable[bytes]) -> Part:
        """Write a part; gives its length and hash.

        Raises:
            InvalidRequest: the name cannot be a part's.
        """
        if not is_name(name):
            raise InvalidRequest(f"The file {name!r} cannot be backed up under its name.", remedy="Rename it.")
        digest, length = hashlib.sha256(), 0
        with self._sink.open(name) as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                length += len(chunk)
        part = Part(name, length, digest.hexdigest())
        line = json.dumps({"name": name, "bytes": length, "sha256": part.sha256}, separators=(",", ":"))
        self._noted.write(f"{line}\n".encode())
        self.count += 1
        self.bytes += length
        return part

    def add_file(self, name: str, path: Path) -> Part:
        """Write a file as a part.

        Raises:
            FileNotFoundError: it went.
        """
        with path.open("rb") as file:
            return self.add(name, chunks_of(file))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the list of parts, and last the manifest, which has its hash."""
        self._noted.seek(0)
        digest = hashlib.sha256()
        with self._sink.open(PARTS) as file:
            for chunk in chunks_of(self._noted):
                file.write(chunk)
                digest.update(chunk)
        document = {**manifest, "parts": self.count, "bytes": self.bytes, "parts_sha256": digest.hexdigest()}
        with self._sink.open(MANIFEST) as file:
            file.write(json.dumps({**document, "checksum": _checksum(document)}, indent=1).encode())
        self._sink.finish()


@contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """A writer of a backup: `target` is a .zip, or else a folder, and must not be there yet.

    Raises:
        InvalidRequest: it is there.
    """
    if target.exists() or target.is_symlink():
        raise InvalidRequest(f"{target} is there already.", remedy="Name a file or folder that is not.")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{target.name}.partial")
    _remove(aside)  # of one that was killed
    try:
        sink = _ZipSink(aside) if target.suffix == ".zip" else _FolderSink(aside)
        with tempfile.TemporaryFile() as noted:
            yield Writer(sink, noted)
        aside.rename(target)
    except BaseException:
        _remove(aside)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """A file's content, a piece at a time."""
    while chunk := file.read(_CHUNK):
        yield chunk


class Reader:
    """Reads a backup. Everything it gives was checked against the backup's list.

    Raises:
        InvalidBackup: it is none, or not whole.
    """

    def __init__(self, source: Path) -> None:
        self._root: Path | None = None
        self._zip: zipfile.ZipFile | None = None
        if source.is_dir():
            self._root = source
        else:
            try:
                self._zip = zipfile.ZipFile(source)
            except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
                raise InvalidBackup(f"{source} is no backup, or its end is missing.") from error
            if len(set(self._zip.namelist())) != len(self._zip.namelist()):
                raise InvalidBackup("The backup has a file twice.")
        self.manifest = self._manifest()

    def _manifest(self) -> dict[str, Any]:
        try:
            with self._open(MANIFEST) as file:
                document = json.loads(_read(MANIFEST, lambda: file.read(_MAX_MANIFEST)))
            checksum = document.pop("checksum")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidBackup("The backup's manifest cannot be read.") from error
        if checksum != _checksum(document):
            raise InvalidBackup("The backup's manifest was altered.")
        return dict(document)

    def parts(self) -> Iterator[Part]:
        """The list of parts, as it is written down.

        Raises:
            InvalidBackup: it is not the list that was written, or has a name that leads elsewhere.
        """
        digest, count = hashlib.sha256(), 0
        with self._open(PARTS) as file:
            while line := _read(PARTS, lambda: file.readline(_MAX_LINE)):
                digest.update(line)
                count += 1
                yield _part(line)
        if digest.hexdigest() != self.manifest.get("parts_sha256") or count != self.manifest.get("parts"):
            raise InvalidBackup("The backup's list of parts was altered or cut short.")

    def chunks(self, part: Part) -> Iterator[bytes]:
        """A part's content, a piece at a time; whoever takes all of it has what was saved.

        Raises:
            InvalidBackup: it is missing, or another length or hash.
        """
        digest, length = hashlib.sha256(), 0
        with self._open(part.name) as file:
            while (chunk := _read(part.name, lambda: file.read(_CHUNK))) and length <= part.bytes:
                length += len(chunk)
                digest.update(chunk)
                yield chunk
        if length != part.bytes or digest.hexdigest() != part.sha256:
            raise InvalidBackup(f"{part.name} in the backup is not what was saved.")

    def _open(self, name: str) -> IO[bytes]:
        try:
            if self._zip is not None:
                return self._zip.open(name)
            assert self._root is not None  # noqa: S101
            path = self._root / name
            if not path.parent.resolve().is_relative_to(self._root.resolve()):
                raise InvalidBackup(f"{name} in the backup is a link to elsewhere.")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise InvalidBackup(f"{name} in the backup is no file.")
            return os.fdopen(descriptor, "rb")
        except (KeyError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            raise InvalidBackup(f"{name} is missing in the backup, or cannot be read.") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._zip is not None:
            self._zip.close()


def _read(name: str, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidBackup(f"{name} in the backup is damaged.") from error


def _part(line: bytes) -> Part:
    try:
        given = json.loads(line)
        part = Part(given["name"], given["bytes"], given["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidBackup("The backup's list of parts cannot be read.") from error
    if not is_name(part.name) or not isinstance(part.bytes, int) or not isinstance(part.sha256, str):
        raise InvalidBackup(f"The backup's list names {str(part.name)[:80]!r}, which is no part.")
    return part


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
