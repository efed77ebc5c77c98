"""Two collections of the same items side by side: how many, whose neighbours, how fast, and how much is found."""

from __future__ import annotations

import statistics
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.items import RECORD_KEY, Kind, sha256_hex
from indexer.store import Collection, Filter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.evaluation.pairs import Pair
    from indexer.models.encoder import Encoder
    from indexer.settings import Settings

SAMPLE = 100
"""Items whose neighbours are compared."""
DEPTH = 10
"""Neighbours of each."""


def compare(old: Collection, new: Collection) -> dict[str, Any]:
    """Counts; of a sample of items the mean share of the nearest ten that both have; median milliseconds a search.

    Two models need not agree: a low overlap says that answers will change, not that they become worse. Which of them
    are right only `recall` tells.
    """
    ids = _sample(old)
    vectors = {"old": old.vectors(ids), "new": new.vectors(ids)}
    ids = [each for each in ids if each in vectors["old"] and each in vectors["new"]]
    shares: list[float] = []
    times: dict[str, list[float]] = {"old": [], "new": []}
    for each in ids:
        found = []
        for label, collection in (("old", old), ("new", new)):
            started = time.perf_counter()
            hits = collection.search(vectors[label][each], DEPTH, exclude_ids=[each])
            times[label].append((time.perf_counter() - started) * 1000)
            found.append({hit.id for hit in hits})
        if most := max(map(len, found)):
            shares.append(len(found[0] & found[1]) / most)
    return {
        "old": {"model": old.model, "count": old.count(), "search_ms": _median(times["old"])},
        "new": {"model": new.model, "count": new.count(), "search_ms": _median(times["new"])},
        "sample": len(ids),
        f"overlap_at_{DEPTH}": round(statistics.fmean(shares), 4) if shares else None,
    }


def _sample(collection: Collection) -> list[str]:
    """Ids by chance: they are hashes, so the next one after a random place is any of them."""
    found: dict[str, None] = {}
    for _ in range(2 * SAMPLE):
        page, _ = collection.scroll(1, after=str(uuid.uuid4()))
        found.update((item.id, None) for item in page)
        if len(found) == SAMPLE:
            break
    return list(found)


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def recall(pairs_file: Path, collection: Collection, encoder: Encoder, settings: Settings) -> dict[str, Any]:
    """What `crosslens eval` measures, by direction: `{"text_to_image": {"recall@1": {"value", "low", "high"}, ...}}`.

    Raises:
        InvalidTextSource: a line of the file is no pair.
    """
    from indexer.evaluation.measure import measure  # noqa: PLC0415  for those who have pairs
    from indexer.evaluation.pairs import find_targets, read_pairs  # noqa: PLC0415

    beside = pairs_file.absolute().parent
    pairs = read_pairs(pairs_file)
    targets, _ = find_targets(pairs, collection, beside=beside)
    asked = [number for number, wanted in enumerate(targets) if wanted]
    if not asked:
        return {}
    chosen = [pairs[number] for number in asked]
    vectors, own = _embedded(chosen, encoder, settings, beside)
    text = {"key": f"{RECORD_KEY}.kind", "match": {"value": Kind.TEXT.value}}
    measured = measure(
        chosen,
        vectors,
        [targets[number] for number in asked],
        collection,
        among={"image": Filter.model_validate({"must_not": [text]}), "text": Filter.model_validate({"must": [text]})},
        own=own,
    )
    return {each.direction: {name: value.as_dict() for name, value in each.metrics.items()} for each in measured}


def _embedded(
    pairs: list[Pair], encoder: Encoder, settings: Settings, beside: Path
) -> tuple[NDArray[np.float32], list[str | None]]:
    """The queries' vectors, float32 (n, D), and the SHA-256 of those that are pictures."""
    import numpy as np  # noqa: PLC0415

    from indexer.media.decode import decode, read_file  # noqa: PLC0415
    from indexer.models.preprocess import decode_target  # noqa: PLC0415

    vectors = np.empty((len(pairs), encoder.dimension), np.float32)
    own: list[str | None] = []
    for number, pair in enumerate(pairs):
        if isinstance(pair.query, str):
            vectors[number] = encoder.encode_texts([pair.query]).vectors[0]
            own.append(None)
            continue
        path = beside / pair.query.image
        content = read_file(path if path.exists() else Path(pair.query.image), max_bytes=settings.max_bytes)
        picture = decode(content, target=decode_target(encoder.pixels), max_pixels=settings.max_pixels)
        vectors[number] = encoder.encode_images([picture])[0]
        own.append(sha256_hex(content))
    return vectors, own
