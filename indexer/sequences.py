"""A file of several pictures as tasks: one for each frame of a video or animation, and for each page of a PDF.

The first stands for the file: it has the file's own id and source. The file is complete, and from then on known, once
its first one's record says how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import MediaError
from indexer.items import Kind, Location, Record, content_id, fragment, point_id
from indexer.media.containers import describe_pdf, describe_video
from indexer.media.formats import SEQUENCE_TYPES, SNIFF_BYTES, is_animated, sniff
from indexer.media.frames import Frame, Limits, frames
from indexer.media.metadata import describe
from indexer.settings import Settings
from indexer.tasks import CAPTION_FRAGMENT, Task

if TYPE_CHECKING:
    from indexer.store.collection import Collection


def sequence_type(data: bytes | Path, settings: Settings) -> str | None:
    """The media type of a file that is to be taken apart; None for a single picture, and for what is none.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(data, Path):
        with data.open("rb") as file:
            media_type = sniff(file.read(SNIFF_BYTES))
    else:
        media_type = sniff(data[:SNIFF_BYTES])
    match SEQUENCE_TYPES.get(media_type or ""):
        case "video" | "document":
            return media_type
        case "animation" if settings.animation_frames > 1 and isinstance(data, bytes) and is_animated(data):
            return media_type
        case _:
            return None


def tasks_of(
    file: Task, collection: str, *, target: int | None, settings: Settings, keep: Callable[[Task], None]
) -> Iterator[Task]:
    """The frames or pages of a file as tasks, one at a time; the last one `ends` the file.

    An error is noted at the file, once its pictures before the damage were given. Where there is none to give, it is
    raised.

    Raises:
        MediaError: the file has no picture that can be read.
    """
    assert file.data is not None  # noqa: S101
    given: Task | None = None
    file.said = _said(file.data, file.record.media_type) if settings.metadata else {}
    try:
        for frame in frames(file.data, media_type=file.record.media_type, limits=Limits.of(settings), target=target):
            if given is not None:
                yield given
            else:
                keep(file)  # it can be read
            given = _task(file, frame, collection)
    except MediaError as error:
        if given is None:
            raise
        file.error = error
    finally:
        file.data = None
    if given is not None:
        given.ends = True
        yield given


def _said(data: bytes | Path, media_type: str) -> dict[str, Any]:
    match SEQUENCE_TYPES.get(media_type):
        case "video":
            return describe_video(data)
        case "document":
            return describe_pdf(data)
        case _:
            return describe(data, media_type) if isinstance(data, bytes) else {}


def rewrite_parts(
    collection: Collection, file: str, locations: list[Location], payload: dict[str, Any] | None = None
) -> None:
    """Have all frames or pages of a file say that it lies at these places, and have this payload."""
    moved = []
    for part in collection.parts(file):
        behind = fragment(part.record.seconds, part.record.page)
        if part.record.kind is Kind.TEXT:
            behind = CAPTION_FRAGMENT
        elif part.id == file:
            behind = ""
        record = part.record.model_copy(update={"locations": _behind(locations, behind)})
        moved.append(replace(part, record=record, payload=part.payload if payload is None else payload))
    collection.overwrite(moved)


def _behind(locations: list[Location], fragment: str) -> list[Location]:
    return [place.model_copy(update={"source": place.source + fragment}) for place in locations]


def _task(file: Task, frame: Frame, collection: str) -> Task:
    place = {"seconds": frame.seconds, "page": frame.page, "width": frame.width, "height": frame.height}
    update = {**place, "kind": Kind.VIDEO if frame.page is None else Kind.PAGE, "parent": file.id, "text": frame.text}
    if frame.index == 0:
        file.details = update
        return Task(
            file.id, file.record.model_copy(update=update), file.payload, None, frame.image, said=file.said, file=file
        )
    behind = fragment(frame.seconds, frame.page)
    name = f"{file.record.name}{behind}" if file.record.name is not None else None
    record = file.record.model_copy(
        update={**update, "locations": _behind(file.record.locations, behind), "name": name}
    )
    return Task(_id(collection, record, behind), record, file.payload, None, frame.image, said=file.said, file=file)


def _id(collection: str, record: Record, behind: str) -> str:
    if record.name is not None:
        return point_id(collection, record.name)
    return content_id(collection, f"{record.parent}{behind}")
