"""A backup of a data folder that may be in use: queue, other files, index and media, in this order."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from indexer.backup.parts import Writer, chunks_of, is_name, writing
from indexer.errors import IndexUnavailable
from indexer.items import now
from indexer.settings import Settings
from indexer.store.collection import LOCKED_UNTIL, Collection
from indexer.store.fields import schema_document
from indexer.store.store import Store

FORMAT = 1
POINTS = 2_048
"""Points of a part."""
_APART = frozenset({"index", "uploads", "broker", "duplicates", "restoring"})
"""Of the data folder, what is saved in another way, or can be made again."""
_PASSED_OVER = frozenset({"engines", "incoming", "thumbnails", "owner.lock", "valkey.sock", "valkey.log"})
_SUFFIXES_PASSED_OVER = frozenset({".lock", ".sock", ".log", ".new", ".partial", ".tmp"})
_KEPT_SETTINGS = (
    "collection", "model", "copy_originals", "video_interval", "video_scenes", "video_frames", "animation_frames",
    "pdf_pages", "metadata", "picture_hashes", "caption_items", "sidecars",
)  # fmt: skip
"""Settings by which the content came about; none is a secret."""
_TRIES = 20

Progress = Callable[[str, int, int | None], None]
"""Called with what is being saved or restored, how much of it is done, and of how much, where that is known."""


@dataclass
class Saved:
    """What a backup holds."""

    collections: dict[str, int] = field(default_factory=dict)
    """Points by the collection's physical name."""
    media: int = 0
    files: int = 0
    """Of the queue, the bundles, the keys, ..."""
    bytes: int = 0
    notes: list[str] = field(default_factory=list)
    """What is not in it, and where to save it from."""


def save(store: Store, settings: Settings, target: Path, *, progress: Progress | None = None) -> Saved:
    """Save everything in the data folder, or on the Qdrant server in its place, to a new folder or .zip.

    Raises:
        InvalidRequest: `target` is there already.
        IndexUnavailable: the index, or the queue's file, does not hold still.
    """
    done = Saved()
    say = progress or (lambda *_: None)
    with writing(target) as writer:
        _queue(writer, settings, done)
        _files(writer, settings, done)
        collections = [_collection(writer, each, done, say) for each in store.every()]
        aliases = store.aliases()
        _media(writer, settings, done, say)
        manifest = {
            "format": FORMAT,
            "crosslens": version("crosslens"),
            "created": now().isoformat(),
            "settings": {name: getattr(settings, name) for name in _KEPT_SETTINGS},
            "collections": collections,
            "aliases": {alias: of for alias, of in aliases.items() if of in done.collections},
            "media": done.media,
            "files": done.files,
            "notes": done.notes,
        }
        writer.finish(manifest)
        done.bytes = writer.bytes
    return done


def _collection(writer: Writer, collection: Collection, done: Saved, say: Progress) -> dict[str, Any]:
    name, count, total = collection.physical, 0, collection.count()
    for number, ids in enumerate(collection.ids(POINTS)):
        points = [point for _, point in sorted(collection.points(ids).items())]
        lines = (json.dumps({"id": each.id, "payload": each.payload}, ensure_ascii=False) for each in points)
        writer.add(f"collections/{name}/{number:06}.jsonl", (f"{line}\n".encode() for line in lines))
        vectors = np.asarray([each.vector for each in points], "<f4").reshape(len(points), collection.dimension)
        writer.add(f"collections/{name}/{number:06}.f32", [vectors.tobytes()])
        count += len(points)
        say(name, count, total)
    done.collections[name] = count
    indexes = {key: schema_document(schema) for key, schema in collection.payload_indexes().items()}
    metadata = {key: value for key, value in collection.metadata.items() if key != LOCKED_UNTIL}
    return {"name": name, "dimension": collection.dimension, "count": count, "metadata": metadata, "indexes": indexes}


def _media(writer: Writer, settings: Settings, done: Saved, say: Progress) -> None:
    root = settings.uploads_folder
    if settings.media_url is not None:
        if settings.media_folder is None:
            done.notes.append(f"Uploads and copies are in {settings.media_url}: save them there.")
            return
        root = settings.media_folder.expanduser()
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        for path in sorted(folder.iterdir()):
            if len(path.name) == 64 and path.is_file():
                try:
                    writer.add_file(f"media/{folder.name}/{path.name}", path)
                except FileNotFoundError:
                    continue  # removed since, with its item
                done.media += 1
                say("media", done.media, None)


def _queue(writer: Writer, settings: Settings, done: Saved) -> None:
    """The embedded queue's append-only file, which holds jobs and keys; one cut in its last entry can be read.

    Its manifest names the files that belong together: if it is the same before and after, they do.
    """
    if settings.redis_url is not None:
        done.notes.append("Jobs and keys are in the Redis of CROSSLENS_REDIS_URL: save them there.")
        return
    folder = settings.data / "broker" / "appendonlydir"
    manifest = folder / "appendonly.aof.manifest"
    if not manifest.exists():
        return
    for _ in range(_TRIES):
        before = manifest.read_bytes()
        names = [line.split()[1].decode() for line in before.splitlines() if line.startswith(b"file ")]
        with tempfile.TemporaryDirectory(prefix="crosslens-") as aside:
            try:
                for name in names:
                    _copy(folder / Path(name).name, Path(aside) / Path(name).name)
            except FileNotFoundError:
                continue  # rewritten meanwhile
            if manifest.read_bytes() != before:
                continue
            for path in sorted(Path(aside).iterdir()):
                writer.add_file(f"broker/appendonlydir/{path.name}", path)
            writer.add(f"broker/appendonlydir/{manifest.name}", [before])
            done.files += len(names) + 1
            return
    raise IndexUnavailable("The queue's file is rewritten all the time.", remedy="Try again in a minute.")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file, target.open("wb") as copy:
        for chunk in chunks_of(file):
            copy.write(chunk)


def _files(writer: Writer, settings: Settings, done: Saved) -> None:
    """What else lies in the data folder: bundles, keys, the audit log, ..."""
    for name, path in _walk(settings.data):
        if not is_name(name):
            done.notes.append(f"The file {name!r} is left out: its name is unusual.")
            continue
        try:
            writer.add_file(name, path)
        except FileNotFoundError:
            continue
        done.files += 1


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        apart = _APART if here == root else frozenset()
        folders[:] = sorted(set(folders) - apart - _PASSED_OVER)
        for name in sorted(set(names) - _PASSED_OVER):
            path = here / name
            if path.suffix not in _SUFFIXES_PASSED_OVER and path.is_file() and not path.is_symlink():
                yield path.relative_to(root).as_posix(), path
