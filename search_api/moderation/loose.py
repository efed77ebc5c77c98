"""Texts and pictures judged on the fly, as if they were uploaded, and not stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from indexer.errors import CrosslensError, MediaError, ModelError, TextsOnly
from indexer.flow import batched
from indexer.items import Kind, Record, now, sha256_hex
from indexer.moderation.judging import ItemJudge, score_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.media.decode import Decoded
    from search_api.batched import BatchedEncoder

    Floats = NDArray[np.float32]

Thing = str | bytes | MediaError
"""A text, a picture's bytes, or why they cannot be had."""
_DECODED_AT_ONCE = 8
_log = structlog.get_logger("api")


def judge_loose(
    things: Sequence[Thing], judge: ItemJudge, encoder: BatchedEncoder, *, max_pixels: int
) -> list[dict[str, Any] | CrosslensError]:
    """A verdict for each, as records keep them, or why there is none: a picture that cannot be had or decoded."""
    found: list[dict[str, Any] | CrosslensError] = [each if isinstance(each, MediaError) else {} for each in things]
    records: dict[int, Record] = {}
    vectors: dict[int, Floats] = {}
    if texts := {row: each for row, each in enumerate(things) if isinstance(each, str)}:
        embedded = encoder.encode_texts(list(texts.values())).vectors
        for (row, text), vector in zip(texts.items(), embedded, strict=True):
            records[row], vectors[row] = _record(Kind.TEXT, text.encode(), "text/plain", text=text), vector
    pictures = {row: each for row, each in enumerate(things) if isinstance(each, bytes)}
    for some in batched(pictures, _DECODED_AT_ONCE):
        seen, errors = _see({row: pictures[row] for row in some}, judge, encoder, max_pixels)
        for row, error in errors.items():
            found[row] = error
        for row, (record, vector) in seen.items():
            records[row], vectors[row] = record, vector
    if rows := sorted(records):
        stacked = np.stack([vectors[row] for row in rows])
        verdicts = judge.verdicts([records[row] for row in rows], [{} for _ in rows], stacked)
        for row, verdict in zip(rows, verdicts, strict=True):
            found[row] = verdict
    return found


def _see(
    pictures: Mapping[int, bytes], judge: ItemJudge, encoder: BatchedEncoder, max_pixels: int
) -> tuple[dict[int, tuple[Record, Floats]], dict[int, CrosslensError]]:
    """Pictures decoded, embedded, hashed and classified, or why they cannot be."""
    from indexer.media.decode import decode  # noqa: PLC0415  judging texts never loads an image library
    from indexer.media.pdq import MIN_QUALITY, pdq  # noqa: PLC0415
    from indexer.models.preprocess import decode_target  # noqa: PLC0415

    if encoder.manifest.pixels is None:
        return {}, dict.fromkeys(pictures, TextsOnly(f"{encoder.manifest.name!r} embeds texts only."))
    target = max(decode_target(encoder.pixels), *(each.target for each in judge.classifiers), 0)
    decoded: dict[int, Decoded] = {}
    errors: dict[int, CrosslensError] = {}
    for row, content in pictures.items():
        try:
            decoded[row] = decode(content, target=target, max_pixels=max_pixels)
        except MediaError as error:
            errors[row] = error
    if not decoded:
        return {}, errors
    images = list(decoded.values())
    scores = _scores(images, judge)
    seen = {}
    for at, (row, vector) in enumerate(zip(decoded, encoder.encode_images(images), strict=True)):
        bits, quality = pdq(images[at].image)
        record = _record(
            Kind.IMAGE, pictures[row], images[at].media_type,
            pdq=bits.hex() if quality >= MIN_QUALITY else None,
            scores={key: some[at] for key, some in scores.items()},
        )  # fmt: skip
        seen[row] = record, vector
    return seen, errors


def _scores(images: Sequence[Decoded], judge: ItemJudge) -> dict[str, list[list[float]]]:
    """What the policy's image classifiers say; of one that fails nothing, and then what hangs on it is held back."""
    scores = {}
    for classifier in judge.classifiers:
        try:
            rows = classifier.classify(images)
        except ModelError as error:
            _log.warning("classifier failed", classifier=classifier.manifest.name, reason=error.message)
            continue
        # As records keep them.
        scores[score_key(classifier)] = [[round(float(score), 6) for score in row] for row in rows]
    return scores


def _record(kind: Kind, content: bytes, media_type: str, **more: Any) -> Record:
    """What an upload of it would have in its record."""
    return Record(
        kind=kind, sha256=sha256_hex(content), locations=[], bytes=len(content), media_type=media_type,
        added_at=now(), **more,
    )  # fmt: skip
