"""What is judged: some items as columns, with everything that detectors go by and nothing that has to be decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from indexer.errors import InvalidRequest
from indexer.items import Record
from indexer.media.pdq import HASH_BYTES
from indexer.moderation.policy import TEXT_FIELD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]
    Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Subjects:
    """Some items, a row each in every column."""

    images: Bools
    """Which were embedded as pictures (photos, frames, pages); the others are texts."""
    vectors: Floats | None = None
    """(n, d), L2-normalised, memory-mapped ones too; a row that is not finite has none. None: none has one."""
    sha256: Bytes | None = None
    """(n, 32): of the file's bytes, or of a text's UTF-8."""
    pdq: Bytes | None = None
    """(n, 32), where `has_pdq`."""
    has_pdq: Bools | None = None
    """Which pictures have a PDQ hash: flat ones have none."""
    texts: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """By field: `text` is the item's own, the others are the payload's."""
    scores: Mapping[str, Floats] = field(default_factory=dict)
    """By image classifier: (n, labels), NaN in the rows that it has not seen."""

    def __post_init__(self) -> None:
        count = len(self.images)
        if (self.pdq is None) != (self.has_pdq is None):
            raise InvalidRequest("PDQ hashes come with which items have one.")
        columns: list[Any] = [self.vectors, self.sha256, self.pdq, self.has_pdq]
        columns += [*self.texts.values(), *self.scores.values()]
        if any(column is not None and len(column) != count for column in columns):
            raise InvalidRequest(f"Not every column of what is to be judged has {count} rows.")
        if any(hashes is not None and hashes.shape[1:] != (HASH_BYTES,) for hashes in (self.sha256, self.pdq)):
            raise InvalidRequest(f"Hashes are an array of (n, {HASH_BYTES}) bytes.")

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: slice) -> Self:
        """Some of them; arrays are views."""

        def cut(column: Any) -> Any:
            return None if column is None else column[chosen]

        return type(self)(
            images=self.images[chosen],
            vectors=cut(self.vectors),
            sha256=cut(self.sha256),
            pdq=cut(self.pdq),
            has_pdq=cut(self.has_pdq),
            texts={name: column[chosen] for name, column in self.texts.items()},
            scores={name: column[chosen] for name, column in self.scores.items()},
        )

    @classmethod
    def of_items(
        cls,
        records: Sequence[Record],
        payloads: Sequence[Mapping[str, Any]],
        vectors: Floats | None,
        *,
        fields: Sequence[str] = (),
        scores: Mapping[str, Floats] | None = None,
    ) -> Self:
        """Items by their records and the caller's own payloads; `fields` are those that the policy's rules read.

        Raises:
            InvalidRequest: not as many of one as of another, or a record with a hash that is none.
        """
        try:
            sha256 = np.frombuffer(bytes.fromhex("".join(each.sha256 for each in records)), np.uint8)
            blank = "00" * HASH_BYTES
            pdq = np.frombuffer(bytes.fromhex("".join(each.pdq or blank for each in records)), np.uint8)
            hashes = sha256.reshape(len(records), HASH_BYTES), pdq.reshape(len(records), HASH_BYTES)
        except ValueError as error:
            raise InvalidRequest("A record has a hash that is not 64 hex digits.") from error
        pairs = list(zip(records, payloads, strict=True)) if len(records) == len(payloads) else []
        if len(pairs) != len(records):
            raise InvalidRequest(f"{len(records)} records came with {len(payloads)} payloads.")
        return cls(
            images=np.array([each.kind.modality == "image" for each in records], dtype=bool),
            vectors=vectors,
            sha256=hashes[0],
            pdq=hashes[1],
            has_pdq=np.array([each.pdq is not None for each in records], dtype=bool),
            texts={name: [text_in(record, payload, name) for record, payload in pairs] for name in fields},
            scores=scores or {},
        )


def text_in(record: Record, payload: Mapping[str, Any], name: str) -> str | None:
    """What a rule reads of an item: its own text, or a payload field's, of which lists are lines; None without any."""
    if name == TEXT_FIELD and record.text is not None:
        return record.text
    value: Any = payload
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list | tuple):
        return "\n".join(each for each in value if isinstance(each, str)) or None
    return value if isinstance(value, str) else None
