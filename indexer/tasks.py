"""What has to be embedded: items on their way from a source to the index, and what goes with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import CrosslensError
from indexer.items import Kind, Record, content_id, sha256_hex
from indexer.media.payloads import CAPTION

if TYPE_CHECKING:
    from PIL import Image

CAPTION_FRAGMENT = "#caption"
"""What a caption's source has behind its picture's."""


@dataclass
class Task:
    """An item that has to be embedded, or a file of several pictures, each of which is an item."""

    id: str
    record: Record
    payload: dict[str, Any]
    data: bytes | Path | None
    """A file's content, by its path if it is large; None for texts, and for pictures that are decoded already."""
    image: Image.Image | None = None
    """A frame or page, RGB and upright."""
    details: dict[str, Any] = field(default_factory=dict)
    """What reading tells of a file: media_type, width, height, ..."""
    said: dict[str, Any] = field(default_factory=dict)
    """What the file says of itself: when and where it was taken, ...; the caller's payload overrules it."""
    replaces: list[tuple[str, str]] = field(default_factory=list)
    """Items whose content was at one of these locations before, and that location."""
    file: Task | None = None
    """The file whose frame, page or caption it is. The file is what is counted; it stands under its first one's id."""
    ends: bool = False
    """Whether it is the last of its file."""
    parts: int = 0
    """Of a file: its frames or pages that are in the index."""
    error: CrosslensError | None = None
    """Of a file: why not all of them are."""

    def described(self, record: Record) -> Record:
        """The record with what reading told."""
        return record.model_copy(update=self.details)

    @property
    def whole_payload(self) -> dict[str, Any]:
        """The fields to store: the file's own, and over them the caller's."""
        return {**self.said, **self.payload}

    @property
    def held(self) -> int:
        """Bytes of memory that it holds until it is prepared."""
        if self.image is not None:
            return 3 * self.image.width * self.image.height
        return len(self.data) if isinstance(self.data, bytes) else 0


def caption_task(task: Task) -> Task | None:
    """A picture's caption as an item beside it, which goes when the picture goes; None if it has none."""
    payload = task.whole_payload
    caption = payload.get(CAPTION)
    if not isinstance(caption, str) or not caption.strip():
        return None
    place = task.record.locations[0]
    record = Record(
        kind=Kind.TEXT,
        sha256=sha256_hex(caption.encode("utf-8", "replace")),
        locations=[
            place.model_copy(update={"source": place.source + CAPTION_FRAGMENT, "size": None, "mtime_ns": None})
        ],
        bytes=len(caption.encode("utf-8", "replace")),
        media_type="text/plain",
        text=caption,
        parent=task.id,
        added_at=task.record.added_at,
        job=task.record.job,
    )
    return Task(content_id("caption", task.id), record, payload, None, file=task.file or task)
