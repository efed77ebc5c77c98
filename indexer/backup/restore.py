"""A backup back into an empty data folder: read and checked as a whole first, then brought in, then moved in place."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from indexer.backup.parts import Part, Reader
from indexer.backup.save import FORMAT, Progress, Saved
from indexer.edge.address import OWNER_FILE
from indexer.edge.files import FileLock, sync_folder
from indexer.errors import IndexUnavailable, InvalidBackup, InvalidRequest
from indexer.settings import Settings
from indexer.store import open_store
from indexer.store.collection import SUCCESSOR, Collection, Point
from indexer.store.fields import schema_of
from indexer.store.store import SERVES, Store

_MEDIA = re.compile(r"media/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_POINTS = re.compile(r"collections/([A-Za-z0-9_-]{1,255})/([0-9]{6})\.(jsonl|f32)")
_MAX_POINTS_BYTES = 512 * 2**20
"""Of one part of points, which is read into memory."""
_STAGING = "restoring"
_LATER = (SUCCESSOR, SERVES)
"""Metadata that leads from one collection to another: once both are there."""
_CLOSING_SECONDS = 60.0


def restore(source: Path, settings: Settings, *, progress: Progress | None = None) -> Saved:
    """Bring a backup into the settings' data folder, or its collections onto their Qdrant server; gives what it held.

    Nothing is written before all of the backup was read and checked. What is written lies in `restoring` in the data
    folder until it is whole; what a restore that was killed left there is removed by the next one.

    Raises:
        InvalidBackup: it is cut short, was altered, or is none.
        InvalidRequest: the data folder is not empty, or the server has one of the collections.
    """
    say = progress or (lambda *_: None)
    reader = Reader(source)
    try:
        _check(reader, say)
        staging = _stage(settings)
        try:
            done = _bring(reader, settings, staging, say)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        for each in sorted(staging.iterdir()):
            each.rename(settings.data / each.name)
        staging.rmdir()
        sync_folder(settings.data)
    finally:
        reader.close()
    return done


def _check(reader: Reader, say: Progress) -> None:
    """Read everything once.

    Raises:
        InvalidBackup: something is not as it was saved.
    """
    manifest = reader.manifest
    if manifest.get("format") != FORMAT:
        raise InvalidBackup(
            f"The backup is of format {manifest.get('format')!r}; this version reads {FORMAT}.",
            remedy="Restore it with the version of Crosslens that made it.",
        )
    total, passed = manifest.get("bytes"), 0
    for part in reader.parts():
        if part.name.startswith("collections/") and (
            not _POINTS.fullmatch(part.name) or part.bytes > _MAX_POINTS_BYTES
        ):
            raise InvalidBackup(f"{part.name} in the backup is no part of a collection.")
        if part.name.startswith("media/") and (
            (match := _MEDIA.fullmatch(part.name)) is None or match[2] != part.sha256
        ):
            raise InvalidBackup(f"{part.name} in the backup is not named by its hash.")
        if part.name.startswith(("index/", "uploads/", f"{_STAGING}/")):
            raise InvalidBackup(f"{part.name} does not belong in a backup.")
        for chunk in reader.chunks(part):
            passed += len(chunk)
            say("checking", passed, total)


def _stage(settings: Settings) -> Path:
    data = settings.data
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if {each.name for each in data.iterdir()} - {_STAGING}:
        raise InvalidRequest(f"The data folder {data} is not empty.", remedy="Name an empty or new one with --data.")
    staging = data / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    return staging


def _bring(reader: Reader, settings: Settings, staging: Path, say: Progress) -> Saved:
    done = Saved(notes=list(reader.manifest.get("notes", [])))
    there = settings.model_copy(update={"data": staging})
    with ExitStack() as stack:
        store = stack.enter_context(open_store(there))
        collections = _make(store, reader.manifest)
        pending: dict[str, Part] = {}
        for part in reader.parts():
            if match := _POINTS.fullmatch(part.name):
                stem = f"{match[1]}/{match[2]}"
                if (other := pending.pop(stem, None)) is None:
                    pending[stem] = part
                    continue
                lines, vectors = (part, other) if match[3] == "jsonl" else (other, part)
                _points(reader, collections, match[1], lines, vectors)
                done.collections[match[1]] = collections[match[1]].count()
                say(match[1], done.collections[match[1]], None)
            elif match := _MEDIA.fullmatch(part.name):
                _file(there.uploads_folder / match[1] / match[2], reader.chunks(part))
                done.media += 1
                say("media", done.media, None)
            else:
                _file(staging / part.name, reader.chunks(part))
                done.files += 1
            done.bytes += part.bytes
        _finish(store, reader.manifest, collections, done)
    if settings.qdrant_url is None:
        _await_end(there.index_folder)
    if settings.media_url is not None and done.media:
        done.notes.append(f"Uploads and copies are in {settings.uploads_folder}: copy them to {settings.media_url}.")
    return done


def _make(store: Store, manifest: dict[str, Any]) -> dict[str, Collection]:
    there = {each.physical for each in store.every()}
    found: dict[str, Collection] = {}
    try:
        described = [
            (
                each["name"],
                int(each["dimension"]),
                {key: value for key, value in each["metadata"].items() if key not in _LATER},
                {name: schema_of(schema) for name, schema in each["indexes"].items()},
            )
            for each in manifest["collections"]
        ]
        for name, dimension, metadata, indexes in described:
            if name in there:
                raise InvalidRequest(f"The server has a collection {name!r}.", remedy="Remove it there first.")
            found[name] = store.create(
                name, metadata["model"], metadata["fingerprint"], dimension, metadata=metadata, indexes=indexes
            )
            found[name].guarded = False
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidBackup("The backup's manifest does not describe its collections.") from error
    return found


def _points(reader: Reader, collections: dict[str, Collection], name: str, lines: Part, vectors: Part) -> None:
    if name not in collections:
        raise InvalidBackup(f"The backup has points of {name!r}, but no such collection.")
    collection = collections[name]
    try:
        rows = [json.loads(line) for line in b"".join(reader.chunks(lines)).splitlines()]
        matrix = np.frombuffer(b"".join(reader.chunks(vectors)), "<f4").reshape(len(rows), collection.dimension)
        points = [
            Point(str(row["id"]), vector.astype(np.float32), dict(row["payload"]))
            for row, vector in zip(rows, matrix, strict=True)
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidBackup(f"The points of {name!r} in the backup cannot be read.") from error
    collection.upsert(points)


def _finish(store: Store, manifest: dict[str, Any], collections: dict[str, Collection], done: Saved) -> None:
    """Names and signposts, and whether all has arrived."""
    for each in manifest["collections"]:
        name = each["name"]
        arrived = collections[name].count()
        done.collections[name] = arrived
        if arrived != each["count"]:
            raise InvalidBackup(f"Of {each['count']} points of {name!r}, {arrived} have arrived.")
        for key in _LATER:
            if key in each["metadata"]:
                store.note(collections[name], key, each["metadata"][key])
    for alias, of in sorted(manifest["aliases"].items()):
        store.alias(alias, of)
    if (done.media, done.files) != (manifest["media"], manifest["files"]):
        raise InvalidBackup("The backup does not hold as many files as it says.")


def _file(path: Path, chunks: Iterable[bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidBackup(f"The backup has {path.name!r} twice.") from error
    with file:
        path.chmod(0o600)
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _await_end(folder: Path) -> None:
    """Wait until the index process has written everything out and let go of the folder."""
    deadline = time.monotonic() + _CLOSING_SECONDS
    lock = FileLock(folder / OWNER_FILE)
    try:
        while not lock.try_acquire():
            if time.monotonic() > deadline:
                raise IndexUnavailable("The index process does not end.")
            time.sleep(0.02)
    finally:
        lock.close()
