"""The collections of an index folder: opened at the start, made and removed while it runs."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

from indexer.edge.files import sync_folder
from indexer.edge.generations import EdgeCollection
from indexer.edge.wire import Refused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")


class Catalog:
    """Every collection by its name. Thread-safe."""

    def __init__(self, folder: Path, *, optimize_after: int) -> None:
        self._folder = folder / "collections"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._optimize_after = optimize_after
        self._lock = threading.Lock()
        self._collections = {}
        for path in sorted(self._folder.iterdir()):
            if (path / "collection.json").is_file():
                self._collections[path.name] = EdgeCollection(path, optimize_after=optimize_after)
            else:  # made or removed by halves when a crash came
                shutil.rmtree(path)

    def names(self) -> list[str]:
        """The collections' names, sorted."""
        return sorted(self._collections)

    def get(self, name: str) -> EdgeCollection:
        """A collection.

        Raises:
            Refused: 404, there is none of that name.
        """
        try:
            return self._collections[name]
        except KeyError:
            raise Refused(f"Not found: Collection `{name}` doesn't exist!", 404) from None

    def create(self, name: str, *, size: int, distance: str, metadata: dict[str, Any]) -> None:
        """Make a collection.

        Raises:
            Refused: 409, there is one of that name; 400, it is no name.
        """
        if not _NAME.fullmatch(name):
            raise Refused(f"{name!r} cannot name a collection.")
        with self._lock:
            if name in self._collections:
                raise Refused(f"Wrong input: Collection `{name}` already exists!", 409)
            self._collections[name] = EdgeCollection.create(
                self._folder / name,
                size=size,
                distance=distance,
                metadata=metadata,
                optimize_after=self._optimize_after,
            )

    def delete(self, name: str) -> bool:
        """Remove a collection; whether there was one."""
        with self._lock:
            collection = self._collections.pop(name, None)
            if collection is None:
                return False
            collection.close()
            # First what makes it a collection: a crash from here on leaves rubbish, not half a collection.
            (collection.folder / "collection.json").unlink()
            sync_folder(collection.folder)
            shutil.rmtree(collection.folder)
            return True

    def close(self) -> None:
        """Write out and let go of all of them."""
        with self._lock:
            for collection in self._collections.values():
                collection.close()
            self._collections.clear()
