"""The files beside an image that go with it: its caption in a `.txt`, its fields in a `.json`."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from indexer.errors import CrosslensError, InvalidTextSource, Unreadable
from indexer.media.formats import IMAGE_SUFFIXES
from indexer.media.payloads import CAPTION, MAX_TEXT, check_payload, decoded, parse_json

SIDECAR_SUFFIXES = (".json", ".txt")
"""Where both speak of the caption the last one counts."""

_REMEDY = "Beside an image, .txt holds its caption and .json an object with its fields, both in UTF-8."


def sidecars_of(names: list[str]) -> dict[str, list[str]]:
    """The texts and JSON among a folder's names that share an image's, by what they share; JSON first."""
    images = {Path(name).stem for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES}
    found: dict[str, list[str]] = {}
    for suffix in SIDECAR_SUFFIXES:
        for path in map(Path, names):
            if path.suffix.lower() == suffix and path.stem in images:
                found.setdefault(path.stem, []).append(path.name)
    return found


def read_sidecar(path: Path) -> bytes:
    """A file's content, for `from_sidecar`.

    Raises:
        OSError: it cannot be opened.
        Unreadable: it is no regular file.
        InvalidTextSource: it is too large to be one beside an image.
    """
    if not path.is_file():
        raise Unreadable("This is no regular file but a pipe, socket or device.")
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise too_long()
    return content


def from_sidecar(name: str, content: bytes | CrosslensError) -> dict[str, Any]:
    """What a `.txt` or `.json` beside an image gives its payload; `content` may be why it was not read.

    Raises:
        InvalidTextSource: it does not parse.
        CrosslensError: the one that was given.
    """
    if isinstance(content, CrosslensError):
        raise content
    if posixpath.splitext(name)[1].lower() == ".txt":
        caption = decoded(content.removeprefix(b"\xef\xbb\xbf"), "The file")
        return {CAPTION: caption} if caption else {}
    try:
        fields = parse_json(decoded(content.removeprefix(b"\xef\xbb\xbf"), "The file"))
    except (ValueError, RecursionError) as error:
        raise InvalidTextSource(f"The file is no JSON: {error}.", remedy=_REMEDY) from error
    if not isinstance(fields, dict):
        raise InvalidTextSource("The file holds no JSON object.", remedy=_REMEDY)
    check_payload(fields)
    return fields


def too_long() -> InvalidTextSource:
    """The error of a file beside an image that is too large to be one."""
    return InvalidTextSource(f"The file has more than {MAX_TEXT:,} bytes.", remedy=_REMEDY)
