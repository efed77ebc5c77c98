"""Items that are handed over instead of found: stored as originals, then indexed on the same path as any file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.errors import CrosslensError, EmptyFile, MediaError, TooLarge
from indexer.items import content_id, point_id, sha256_hex
from indexer.media.discover import Candidate
from indexer.media.originals import UPLOAD, Originals
from indexer.models.encoder import Encoder
from indexer.moderation.visible import visible
from indexer.pipeline import ingest_found
from indexer.report import Report
from indexer.settings import Settings
from indexer.store.collection import Collection


@dataclass(frozen=True)
class Upload:
    """A file's content or a text, what its sender calls it, and what goes with it."""

    label: str
    content: bytes | str
    payload: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one upload: an item's id, and the error if it has none."""

    label: str
    id: str
    created: bool = False
    error: CrosslensError | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it is answered in JSON."""
        if self.error is not None:
            return {"source": self.label, "error": self.error.as_dict()}
        return {"source": self.label, "id": self.id, "created": self.created}


def ingest_uploads(
    uploads: Sequence[Upload], *, collection: Collection, encoder: Encoder, originals: Originals, settings: Settings
) -> list[Outcome]:
    """Store and index uploads; an outcome each, in order. They can be searched when this returns.

    Raises:
        IndexUnavailable, MediaStoreUnavailable: the index or the media store went away; sending the same again is safe.
    """
    with tempfile.TemporaryDirectory(prefix="crosslens-") as folder:
        return _ingested(uploads, collection, encoder, _Shelf(originals, Path(folder), settings), settings)


class _Shelf:
    """Puts uploads into the media store, and tells where the pipeline reads them: it need not fetch what is here."""

    def __init__(self, originals: Originals, folder: Path, settings: Settings) -> None:
        self._originals = originals
        self._folder = folder
        self._max_bytes = settings.max_bytes
        self._new: set[str] = set()

    def candidate(self, upload: Upload) -> Candidate:
        """What the pipeline takes; a file is in the store then.

        Raises:
            EmptyFile, TooLarge: as the names say.
        """
        if isinstance(upload.content, str):
            source = UPLOAD + sha256_hex(_bytes(upload))
            return Candidate(source, text=upload.content, payload=upload.payload, id=upload.id)
        if not upload.content:
            raise EmptyFile("The file is empty.")
        if len(upload.content) > self._max_bytes:
            raise TooLarge(f"The file has more than {self._max_bytes:,} bytes.")
        sha256 = sha256_hex(upload.content)
        if self._originals.keep(upload.content, sha256):
            self._new.add(sha256)
        source = UPLOAD + sha256
        path = self._originals.path_of(source)
        if path is None:
            path = self._folder / sha256
            path.write_bytes(upload.content)
        return Candidate(source, path, payload=upload.payload, id=upload.id)

    def discard(self, failed: Iterable[str], collection: Collection) -> None:
        """Remove the uploads of these sources, if no frame of them is in. What was there before may be another's."""
        hashes = self._new & {source.removeprefix(UPLOAD) for source in failed}
        self._originals.discard(hashes - collection.holding(sorted(hashes)))


def _ingested(
    uploads: Sequence[Upload], collection: Collection, encoder: Encoder, shelf: _Shelf, settings: Settings
) -> list[Outcome]:
    ids = [_id(collection, upload) for upload in uploads]
    # As a visitor sees it: whether something withheld is there is nobody's to find out by sending it again.
    known = visible(collection).get_many(list(dict.fromkeys(ids)))
    errors: dict[int, CrosslensError] = {}
    candidates: list[Candidate] = []
    sources: dict[int, str] = {}
    for place, upload in enumerate(uploads):
        try:
            candidate = shelf.candidate(upload)
        except MediaError as error:
            errors[place] = error
            continue
        sources[place] = candidate.source
        candidates.append(candidate)
    report = Report(collection=collection.name, model=encoder.name)
    ingest_found(candidates, collection=collection, encoder=encoder, settings=settings, report=report)
    failed = {failure.source: failure for failure in report.failures}
    shelf.discard(failed, collection)
    for place, source in sources.items():
        if source in failed:
            errors[place] = failed[source].error
    return [
        Outcome(upload.label, upload.id or ids[place], ids[place] not in known, errors.get(place))
        for place, upload in enumerate(uploads)
    ]


def _id(collection: Collection, upload: Upload) -> str:
    if upload.id is not None:
        return point_id(collection.name, upload.id)
    return content_id(collection.name, sha256_hex(_bytes(upload)))


def _bytes(upload: Upload) -> bytes:
    return upload.content.encode("utf-8", "replace") if isinstance(upload.content, str) else upload.content
