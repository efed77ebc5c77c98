"""The pictures among an archive's members, and the captions that stand beside them.

WebDataset's shards are tars in which neighbours share a name up to its first dot: `000.jpg`, `000.txt`, `000.json`.
Only neighbours go together: what is further apart in an archive would have to be held until its end.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from indexer.errors import ArchiveRefused, BadMember, CrosslensError, EmptyFile, TooLarge
from indexer.media.entries import FREE_BYTES, MAX_RATIO, Archive, Entry, Limits, Place, check_size
from indexer.media.formats import IMAGE_SUFFIXES, SNIFF_BYTES, sniff
from indexer.media.payloads import MAX_TEXT
from indexer.media.sidecars import SIDECAR_SUFFIXES, from_sidecar, too_long
from indexer.report import Counts, Failure

_NESTED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_MAX_NAME = 4096
"""Characters; as many as a path may have on Linux."""
_SAMPLE = 64
"""Members that may share a name up to its first dot and wait for each other; beyond, they are taken in parts."""

SEPARATOR = "!/"
"""What stands between an archive's source and a member's name."""


@dataclass(frozen=True)
class Member:
    """A member that may be an image."""

    source: str
    place: Place
    payload: dict[str, Any]


@dataclass
class Listing:
    """Members as they come, those that share a name held until the last of them is there."""

    source: str
    limits: Limits
    counts: Counts
    seen: set[int] = field(default_factory=set)
    count: int = 0
    unpacked: int = 0
    key: str = ""
    images: list[Entry] = field(default_factory=list)
    beside: dict[str, bytes | CrosslensError] = field(default_factory=dict)
    """Contents of texts and JSON by name, or why there is none."""

    def take(self, entry: Entry, archive: Archive, packed: int) -> Iterator[Member | Failure]:
        """What is known once this member came; `packed` is the archive's size."""
        self.count += 1
        if self.count > self.limits.max_archive_members:
            raise ArchiveRefused(f"It has more than {self.limits.max_archive_members:,} members.")
        if entry.name.endswith("/") or _is_hidden(entry.name):
            return
        if len(entry.name) > _MAX_NAME:
            yield self._failure(entry.name[:_MAX_NAME], BadMember(f"Its name has more than {_MAX_NAME:,} characters."))
            return
        key = _key(entry.name)
        if key != self.key or len(self.images) + len(self.beside) >= _SAMPLE:
            yield from self.flush()
            self.key = key
        if (suffix := posixpath.splitext(entry.name)[1].lower()) in SIDECAR_SUFFIXES:
            self.beside.setdefault(entry.name, _text(entry, archive))
            return
        try:
            if suffix in IMAGE_SUFFIXES or _shows_image(entry, archive):
                self._accept(entry, packed)
            else:
                self.counts.passed_over += 1
        except (BadMember, EmptyFile, TooLarge) as error:
            yield self._failure(entry.name, error)

    def flush(self) -> Iterator[Member | Failure]:
        """The images that are held, with what stands beside them."""
        used: set[str] = set()
        wrong: set[str] = set()
        for image in self.images:
            payload: dict[str, Any] = {}
            for name in self._sidecars(image.name):
                used.add(name)
                try:
                    payload |= from_sidecar(name, self.beside[name])
                except CrosslensError as error:
                    if name not in wrong:
                        yield self._failure(name, error)
                    wrong.add(name)
            yield Member(self.source + SEPARATOR + image.name, image.place, payload)
        self.counts.passed_over += len(self.beside) - len(used)
        self.images, self.beside = [], {}

    def drop_cut(self, archive: Archive) -> None:
        """Forget the last image if the archive's end came before its own."""
        if self.images and not archive.holds(self.images[-1].place):
            self.images.pop()

    def _accept(self, entry: Entry, packed: int) -> None:
        if entry.problem is not None:
            raise BadMember(f"The member is {entry.problem}.")
        if (name := hash(entry.name)) in self.seen:
            raise BadMember("The archive has another member of this name before; that one was taken.")
        self.seen.add(name)
        check_size(entry.size, self.limits)
        self.unpacked += entry.size
        if self.unpacked > self.limits.max_archive_bytes:
            raise ArchiveRefused(f"It unpacks to more than {self.limits.max_archive_bytes:,} bytes.")
        if self.unpacked > FREE_BYTES + MAX_RATIO * packed:
            raise ArchiveRefused(f"It unpacks to more than {MAX_RATIO} times its size.")
        self.images.append(entry)

    def _sidecars(self, image: str) -> list[str]:
        """What stands beside an image: of its own name, or else of its sample's; JSON first, text outranks it."""
        own = posixpath.splitext(image)[0]
        found = []
        for suffix in SIDECAR_SUFFIXES:
            by_stem = {posixpath.splitext(name)[0]: name for name in self.beside if name.lower().endswith(suffix)}
            name = by_stem.get(own) or by_stem.get(self.key)
            if name is not None:
                found.append(name)
        return found

    def _failure(self, name: str, error: CrosslensError) -> Failure:
        return Failure(self.source + SEPARATOR + name, error)


def _shows_image(entry: Entry, archive: Archive) -> bool:
    """Whether a member whose name claims nothing is an image by its content."""
    if entry.name.lower().endswith(_NESTED):
        raise BadMember("The member is an archive itself, which is not opened.", remedy="Unpack it and ingest that.")
    if entry.problem is not None or not entry.size:
        return False
    return sniff(archive.read(entry.place, SNIFF_BYTES)) is not None


def _text(entry: Entry, archive: Archive) -> bytes | CrosslensError:
    if entry.problem is not None:
        return BadMember(f"The member is {entry.problem}.")
    if entry.size > MAX_TEXT:
        return too_long()
    try:
        return archive.read(entry.place, entry.size)
    except BadMember as error:
        return error


def _is_hidden(name: str) -> bool:
    """As a hidden file in a folder is; so is what macOS adds to its zips."""
    parts = name.replace("\\", "/").split("/")
    return any(part == "__MACOSX" or (part.startswith(".") and part.strip(".")) for part in parts)


def _key(name: str) -> str:
    """What the members of one of WebDataset's samples share: the name up to its first dot."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0])
