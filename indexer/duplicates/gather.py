"""What is to be compared, gathered from a stream into a folder and put in order, the best item first.

The order decides who stands for a group, and makes the answer independent of the order of the stream: the most pixels,
then the oldest, then the smallest id. From here on an item is its rank in that order.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from indexer.errors import InvalidRequest, InvalidVector
from indexer.media.pdq import MIN_QUALITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_VECTORS = 100_000
"""So many vectors are compared each with each; for more, the index has to say which are near each other."""
ID = np.dtype("S16")
"""A UUID's bytes. NumPy drops zeros at the end when it gives one out; they compare rightly all the same."""

_HEX = re.compile(r"[0-9a-f]{64}")
_ROWS = 8192
_IDS, _VALUES = "ids.npy", "values.npy"
_RAW = ("ids.raw", "merits.raw", "values.raw")


class By(StrEnum):
    """What makes two items duplicates; three notions, never mixed."""

    BYTES = "bytes"
    """The files are equal, byte for byte."""
    PICTURE = "picture"
    """The PDQ hashes differ in a few bits: the same picture resized, recompressed, slightly changed."""
    ALIKE = "alike"
    """The model's vectors have a high cosine: pictures of the same thing, maybe not the same picture."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is compared of an item; what its notion does not need may be left out."""

    id: str
    """The point's, a UUID."""
    pixels: int
    added_at: datetime
    sha256: str | None = None
    pdq: str | None = None
    """64 hexadecimal digits."""
    pdq_quality: int | None = None
    vector: NDArray[np.float32] | None = None


class Gathered(NamedTuple):
    """Items by rank, mapped from files."""

    ids: NDArray[np.bytes_]
    """(n,) of `ID`."""
    values: NDArray[Any]
    """(n, 32) bytes of hashes, (n, d) float32 unit vectors, or (n, 0)."""


def gather(
    batches: Iterable[Sequence[Entry]], *, by: By, folder: Path, values: bool, stop: threading.Event
) -> int | None:
    """Write what a stream gives into a folder; gives how many were left out, or None if `stop` was set.

    An item is left out if it has nothing to compare: no hash, one of a picture too flat for its hash to mean anything
    (`MIN_QUALITY`), or a vector without length. Of an item that comes twice, the better one counts. Without `values`
    only the ids are kept.

    Raises:
        InvalidRequest: more vectors than `EXACT_VECTORS`.
        InvalidVector: vectors of different dimensions.
    """
    count = left_out = 0
    width: int | None = None
    with ExitStack() as stack:
        ids, merits, raw = (stack.enter_context((folder / name).open("wb")) for name in _RAW)
        for batch in batches:
            if stop.is_set():
                return None
            comparable = [(entry, value) for entry in batch if (value := _value(entry, by)) is not None]
            left_out += len(batch) - len(comparable)
            if not comparable:
                continue
            count += len(comparable)
            if values and by is By.ALIKE and count > EXACT_VECTORS:
                raise InvalidRequest(
                    f"More than {EXACT_VECTORS:,} vectors cannot be compared each with each.",
                    remedy="Ask with the index's neighbours, or for a part of the collection.",
                )
            width = _append(ids, merits, raw if values else None, comparable, width)
    if stop.is_set():
        return None
    _put_in_order(folder, count, np.dtype(np.float32 if by is By.ALIKE else np.uint8), (width or 0) if values else 0)
    return left_out


def gathered(folder: Path) -> Gathered:
    """What `gather` wrote."""
    return Gathered(*(np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_IDS, _VALUES)))


def id_text(value: bytes) -> str:
    """An id as items have it."""
    return str(uuid.UUID(bytes=value.ljust(ID.itemsize, b"\0")))


def id_bytes(text: str) -> bytes:
    """An id as it is stored here.

    Raises:
        InvalidRequest: it is no UUID.
    """
    try:
        return uuid.UUID(text).bytes
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no item's id.") from error


def _value(entry: Entry, by: By) -> bytes | None:
    """What is compared of it, as it is written; None if there is nothing."""
    match by:
        case By.BYTES:
            return _digest(entry.sha256)
        case By.PICTURE:
            meaningful = entry.pdq_quality is not None and entry.pdq_quality >= MIN_QUALITY
            return _digest(entry.pdq) if meaningful else None
        case By.ALIKE:
            if entry.vector is None:
                return b""
            vector = np.asarray(entry.vector, dtype=np.float32)
            norm = np.linalg.norm(vector)
            return (vector / norm).tobytes() if np.isfinite(norm) and norm > 0 else None


def _digest(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text is not None and _HEX.fullmatch(text) else None


def _append(
    ids: BinaryIO, merits: BinaryIO, raw: BinaryIO | None, some: list[tuple[Entry, bytes]], width: int | None
) -> int:
    """Write entries and what is compared of them, all of the same width; gives that, in bytes."""
    ids.write(b"".join(id_bytes(entry.id) for entry, _ in some))
    pairs = [(-entry.pixels, int(entry.added_at.timestamp() * 1_000_000)) for entry, _ in some]
    merits.write(np.array(pairs, dtype=np.int64).tobytes())
    width = len(some[0][1]) if width is None else width
    if raw is not None:
        if width == 0 or any(len(value) != width for _, value in some):
            raise InvalidVector("The items to compare have vectors of different dimensions, or none.")
        raw.write(b"".join(value for _, value in some))
    return width


def _put_in_order(folder: Path, count: int, dtype: np.dtype[Any], width: int) -> None:
    """Turn the raw files into those by rank."""
    ids = np.fromfile(folder / _RAW[0], dtype=ID)
    merits = np.fromfile(folder / _RAW[1], dtype=np.int64).reshape(-1, 2)
    order = np.lexsort((ids, merits[:, 1], merits[:, 0]))
    _, first = np.unique(ids[order], return_index=True)
    order = order[np.sort(first)]
    np.save(folder / _IDS, ids[order])
    columns = width // dtype.itemsize
    shape = (len(order), columns)
    if 0 in shape:
        np.save(folder / _VALUES, np.empty(shape, dtype))
    else:
        raw = np.memmap(folder / _RAW[2], dtype=dtype, mode="r", shape=(count, columns))
        ordered = np.lib.format.open_memmap(folder / _VALUES, mode="w+", dtype=dtype, shape=shape)
        for start in range(0, len(order), _ROWS):
            ordered[start : start + _ROWS] = raw[order[start : start + _ROWS]]
        ordered.flush()
    for name in _RAW:
        (folder / name).unlink()
