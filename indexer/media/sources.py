"""What a source is called: a path, a URL, or an archive's member, as one string that is valid Unicode."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from indexer.media.archives import is_archive
from indexer.media.samples import SEPARATOR

_ESCAPED = "file:"


def source_of(path: Path) -> str:
    """A path as a source: absolute, without `..`, valid Unicode. A name that is not UTF-8 becomes a `file:` URL."""
    absolute = os.path.abspath(path)  # noqa: PTH100  without following links: the name the user sees is kept
    try:
        absolute.encode()
    except UnicodeEncodeError:
        return _ESCAPED + quote(os.fsencode(absolute))
    return absolute


def path_of(source: str) -> Path:
    """The path that `source_of` made a source of."""
    if source.startswith(_ESCAPED):
        return Path(os.fsdecode(unquote_to_bytes(source.removeprefix(_ESCAPED))))
    return Path(source)


def is_url(source: str) -> bool:
    """Whether a source is to be fetched."""
    return source[:8].lower().startswith(("http://", "https://"))


def member_of(source: str) -> tuple[Path, str] | None:
    """The archive and the member's name of a source `<archive>!/<name>`; None if it is no such source."""
    at = source.find(SEPARATOR)
    while at >= 0:
        if is_archive(source[:at]) and os.path.isfile(path := path_of(source[:at])):  # noqa: PTH113  it never raises
            return path, source[at + len(SEPARATOR) :]
        at = source.find(SEPARATOR, at + 1)
    return None
