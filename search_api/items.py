"""`/v1/collections/{c}/items`: upload, see, change and remove items, and fetch their originals and thumbnails."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Self

from flask import Blueprint, Response, jsonify, request, send_file
from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.errors import InvalidRequest, ItemNotFound, NotAnImage, OriginalWithheld, ReservedPayloadKey
from indexer.items import RECORD_KEY, Kind, Record, check_collection_name, point_id
from indexer.media.formats import PILLOW_FORMATS, SEQUENCE_TYPES
from indexer.media.thumbnails import blur
from indexer.moderation.stored import is_moderated
from indexer.moderation.visible import is_blurred, is_shown
from indexer.uploads import Upload
from search_api.bodies import form_files, form_json, is_form, json_body, validated
from search_api.request import Text
from search_api.services import services
from search_api.views import as_moderator, seen

blueprint = Blueprint("items", __name__, url_prefix="/v1/collections/<name>/items")

MAX_ITEMS = 1000
"""Items in one request."""

_INLINE = frozenset(
    {"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/avif", "video/mp4", "video/webm"}
)
"""What a browser may show in place: pictures and videos, none of which can hold a script, as a PDF can."""

_VIDEO_POLICY = "default-src 'none'; media-src 'self'; frame-ancestors 'none'; sandbox"

Payload = dict[str, Any]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewItem(_Body):
    """One item of an upload: a text, or a file by the name of its part or its own name."""

    text: Annotated[Text, Field(min_length=1, max_length=100_000)] | None = None
    file: Annotated[Text, Field(min_length=1, max_length=512)] | None = None
    payload: Payload = {}
    id: Annotated[Text, Field(min_length=1, max_length=512)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.text is None) == (self.file is None):
            raise ValueError("needs either text or file")
        return self


class NewItems(_Body):
    """The JSON body of an upload, or its form's part `request`."""

    items: Annotated[list[NewItem], Field(max_length=MAX_ITEMS)]


class Change(_Body):
    """The body of PATCH: fields of the payload to set, or to remove where null (RFC 7396)."""

    payload: Payload


@blueprint.post("")
def add_items(name: str) -> tuple[Response, int]:
    """Upload files and texts: 201 with an id each, in order; what cannot become an item is told and stops no other.

    As JSON, `{"items": [{"text", "payload", "id"}]}`. As a multipart form, files, and a part `request` of the same JSON
    for what has a payload, an id or is a text; there `file` names a part or its file name. Files that are not named
    there are taken as they are. A request of which nothing can be stored is answered with the first item's error.
    """
    uploads = _uploads()
    if not uploads:
        raise InvalidRequest("There is nothing in the upload.", remedy="Send a file or a text.")
    outcomes = services().ingest(services().ready_collection(check_collection_name(name)), uploads)
    failures = [outcome for outcome in outcomes if outcome.error is not None]
    if len(failures) == len(outcomes) and failures[0].error is not None:
        raise failures[0].error
    return jsonify({"items": [outcome.as_dict() for outcome in outcomes], "failed": len(failures)}), 201


@blueprint.get("/<item>")
def get_item(name: str, item: str) -> Response:
    """One item: its payload, and what is known of its content."""
    record, payload, item_id = _found(name, item)
    return jsonify(_described(item_id, record, payload))


@blueprint.patch("/<item>")
def patch_item(name: str, item: str) -> Response:
    """Change an item's payload: fields are set, or removed where null; the others stay."""
    change = validated(Change, json_body()).payload
    if RECORD_KEY in change:
        raise ReservedPayloadKey(f"The payload has the key {RECORD_KEY!r}.")
    record, payload, item_id = _found(name, item)
    merged = {key: value for key, value in (payload | change).items() if value is not None}
    services().collection(name).set_payload(item_id, merged)
    services().judge_again(name, [item_id])
    return jsonify(_described(item_id, record, merged))


@blueprint.delete("/<item>")
def delete_item(name: str, item: str) -> tuple[str, int]:
    """Remove an item, and what was stored for it alone. A photo that was ingested from a folder stays there.

    The first frame or page of a file stands for the file: the others go with it. Any other goes alone.
    """
    record, _, item_id = _found(name, item)
    services().delete_item(name, item_id, record)
    return "", 204


@blueprint.get("/<item>/media")
def media(name: str, item: str) -> Response:
    """The original's bytes, proven by their hash, or a range of them; of a frame or page, the whole file's.

    Pictures and videos are shown in place, anything else is saved as a file.
    """
    record, _, item_id = _found(name, item)
    _check_original(name, item_id, record)
    if record.kind is Kind.TEXT:
        return _media((record.text or "").encode(), "text/plain; charset=utf-8", record, item_id)
    known = record.media_type in PILLOW_FORMATS or record.media_type in SEQUENCE_TYPES
    with services().originals.open(record) as content:
        # A file is opened here and read as it is sent, even when its name has gone with the context.
        return _media(content, record.media_type if known else "application/octet-stream", record, item_id)


def _media(content: bytes | Path, media_type: str, record: Record, item_id: str) -> Response:
    response = send_file(
        io.BytesIO(content) if isinstance(content, bytes) else content.absolute(),
        mimetype=media_type,
        etag=record.sha256,
        conditional=True,
        as_attachment=media_type not in _INLINE,
        download_name=item_id,
    )
    response.headers["Cache-Control"] = "private, no-cache"
    if media_type.startswith("video/"):
        # Browsers put a video that is opened by itself into a page of theirs, which asks for it once more.
        response.headers["Content-Security-Policy"] = _VIDEO_POLICY
    return response


@blueprint.get("/<item>/thumbnail")
def thumbnail(name: str, item: str) -> Response:
    """A WebP of the picture, or of the frame or page.

    `size` is the pixels of its longest side (16 to 1024, default 256), rounded up to 128, 256, 512 or 1024. A picture
    that is smaller stays as it is.
    """
    size = request.args.get("size", "256")
    if not size.isascii() or not size.isdigit() or not 16 <= int(size[:6]) <= 1024:
        raise InvalidRequest("size: must be a number of pixels from 16 to 1024.", field="size")
    record, _, item_id = _found(name, item)
    if record.kind is Kind.TEXT:
        raise NotAnImage(f"The item {item!r} is a text.", remedy="Its text is in the item itself.")
    webp = services().thumbnails.get(record, int(size))
    blurred = is_blurred(record) and not as_moderator()
    response = send_file(
        io.BytesIO(blur(webp) if blurred else webp),
        mimetype="image/webp",
        etag=f"{record.sha256}-{size}{'-blurred' if blurred else ''}",
        conditional=True,
        download_name=f"{item_id}.webp",
    )
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _check_original(name: str, item_id: str, record: Record) -> None:
    """See that an original may be given out: of a file with frames or pages, all of them count.

    Raises:
        OriginalWithheld: it, or a part of it, is shown blurred or not at all.
    """
    if as_moderator():
        return
    collection = services().collection(name)
    parts = [record]
    if record.parent is not None and is_moderated(collection):
        parts = [part.record for part in collection.parts(record.parent)]
    if any(is_blurred(part) or not is_shown(part, collection) for part in parts):
        raise OriginalWithheld(f"The original of {item_id} is withheld by this collection's policy.")


def _uploads() -> list[Upload]:
    """What the request's body holds, in its order; files that nothing is said of come last."""
    if not is_form():
        return [_upload(each, {}) for each in validated(NewItems, json_body()).items]
    files = form_files(apart_from="request")
    body = form_json("request")
    named = validated(NewItems, body).items if body is not None else []
    by_name = {name: content for part, filename, content in files for name in (filename, part)}
    uploads = [_upload(each, by_name) for each in named]
    said = {each.file for each in named}
    uploads += [Upload(filename, content) for part, filename, content in files if not {part, filename} & said]
    if len(uploads) > MAX_ITEMS:
        raise InvalidRequest(f"The form has {len(uploads)} items; {MAX_ITEMS} is the most.")
    return uploads


def _upload(item: NewItem, files: dict[str, bytes]) -> Upload:
    if RECORD_KEY in item.payload:
        raise ReservedPayloadKey(f"The payload has the key {RECORD_KEY!r}.")
    if item.text is not None:
        return Upload("text", item.text, item.payload, item.id)
    if item.file not in files:
        raise InvalidRequest(f"items: no part is named {item.file!r}.", remedy="Send the file as a part of that name.")
    return Upload(item.file or "", files[item.file or ""], item.payload, item.id)


def _found(name: str, item: str) -> tuple[Record, Payload, str]:
    collection = seen(name)
    item_id = point_id(collection.name, item)
    stored = collection.get(item_id)
    if stored is None:
        raise ItemNotFound(f"The collection {name!r} has no item {item!r}.")
    return stored.record, stored.payload, item_id


def _described(item_id: str, record: Record, payload: Payload) -> dict[str, Any]:
    private = set() if as_moderator() else {"verdict", "scores"}
    known = record.model_dump(mode="json", exclude={"name", *private}, exclude_none=True)
    return {"id": record.name or item_id, **known, "payload": payload}
