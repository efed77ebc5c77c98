"""The collections of an index folder and their aliases: opened at the start, made and removed while it runs.

collections/<name>/   a collection each
aliases.json          further names by which a collection can be reached
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

from indexer.edge.files import sync_folder, write_atomically
from indexer.edge.generations import EdgeCollection
from indexer.edge.wire import Refused, only, well_formed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_MOST_ALIASES = 10_000


class Catalog:
    """Every collection by its name or an alias. Thread-safe."""

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
        self._alias_file = folder / "aliases.json"
        self._aliases: dict[str, str] = json.loads(self._alias_file.read_bytes()) if self._alias_file.exists() else {}
        # A crash may have come between the removal of a collection and that of its aliases.
        self._keep_aliases({name: of for name, of in self._aliases.items() if of in self._collections})

    def names(self) -> list[str]:
        """The collections' names, sorted."""
        return sorted(self._collections)

    def __contains__(self, name: str) -> bool:
        """Whether there is a collection or an alias of that name."""
        return self._aliases.get(name, name) in self._collections

    def aliases(self, of: str | None = None) -> list[dict[str, str]]:
        """The aliases, or those of one collection, as Qdrant answers them."""
        pairs = sorted(self._aliases.items())
        return [{"alias_name": name, "collection_name": to} for name, to in pairs if of in {None, to}]

    def get(self, name: str) -> EdgeCollection:
        """A collection, by its name or an alias.

        Raises:
            Refused: 404, there is none of that name.
        """
        try:
            return self._collections[self._aliases.get(name, name)]
        except KeyError:
            raise _missing(name) from None

    def create(self, name: str, *, size: int, distance: str, metadata: dict[str, Any]) -> None:
        """Make a collection.

        Raises:
            Refused: 409, there is one or an alias of that name; 400, it is no name.
        """
        with self._lock:
            self._check_free(name)
            if name in self._aliases:
                raise Refused(f"Wrong input: Alias `{name}` already exists!", 409)
            self._collections[name] = EdgeCollection.create(
                self._folder / name,
                size=size,
                distance=distance,
                metadata=metadata,
                optimize_after=self._optimize_after,
            )

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; whether there was one of that name (an alias is none)."""
        with self._lock:
            collection = self._collections.pop(name, None)
            if collection is None:
                return False
            collection.close()
            # First what makes it a collection: a crash from here on leaves rubbish, not half a collection.
            (collection.folder / "collection.json").unlink()
            sync_folder(collection.folder)
            shutil.rmtree(collection.folder)
            self._keep_aliases({alias: of for alias, of in self._aliases.items() if of != name})
            return True

    def change_aliases(self, actions: Any) -> None:
        """Do all of Qdrant's `create_alias`, `rename_alias` and `delete_alias`, in order, or none of them.

        An alias that is created anew points to the new collection from then on; to delete one that is not there is
        no error.

        Raises:
            Refused: one cannot be done.
        """
        with self._lock:
            aliases = dict(self._aliases)
            with well_formed():
                for action in actions:
                    ((kind, body),) = action.items()
                    self._change(aliases, kind, body)
            if len(aliases) > _MOST_ALIASES:
                raise Refused(f"There can be no more than {_MOST_ALIASES} aliases.")
            self._keep_aliases(aliases)

    def _change(self, aliases: dict[str, str], kind: str, body: Any) -> None:
        match kind:
            case "create_alias":
                only(body, "collection_name", "alias_name")
                to, name = body["collection_name"], body["alias_name"]
                if to not in self._collections:
                    raise _missing(to)
                self._check_free(name)
                aliases[name] = to
            case "rename_alias":
                only(body, "old_alias_name", "new_alias_name")
                name = body["new_alias_name"]
                self._check_free(name)
                if body["old_alias_name"] not in aliases:
                    raise Refused(f"Not found: Alias {body['old_alias_name']!r} does not exist!", 404)
                aliases[name] = aliases.pop(body["old_alias_name"])
            case "delete_alias":
                aliases.pop(only(body, "alias_name")["alias_name"], None)
            case _:
                raise Refused(f"{kind!r} is no change of aliases.")

    def _check_free(self, name: Any) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Refused(f"{name!r} cannot name a collection.")
        if name in self._collections:
            raise Refused(f"Wrong input: Collection `{name}` already exists!", 409)

    def _keep_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self._aliases:
            write_atomically(self._alias_file, aliases)
            self._aliases = aliases

    def build_what_is_quiet(self) -> None:
        """Let collections that nobody writes to build in what their last build did not see."""
        with self._lock:
            collections = list(self._collections.values())
        for collection in collections:
            collection.build_if_quiet()
            collection.columns.tend()

    def close(self) -> None:
        """Write out and let go of all of them."""
        with self._lock:
            for collection in self._collections.values():
                collection.close()
            self._collections.clear()


def _missing(name: str) -> Refused:
    return Refused(f"Not found: Collection `{name}` doesn't exist!", 404)
