"""Duplicates: a picture's hash, one hash against many, and groups over a whole collection, by picture and alike.

python -m bench.duplicates [--count 100000] [--vectors 20000] [--size 512]
"""

import argparse
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.common import clustered, machine, percentiles
from indexer.duplicates import By, Duplicates, Entry, HashIndex, find_duplicates
from indexer.media.decode import decode
from indexer.media.pdq import HASH_BYTES, pdq

MEDIA = Path(__file__).resolve().parent.parent / "examples" / "media"
_BATCH = 1000


def flipped(hashes: NDArray[np.uint8], most: int, chance: np.random.Generator) -> NDArray[np.uint8]:
    """The hashes with up to `most` bits of each changed."""
    bits = np.unpackbits(hashes, axis=1)
    share = chance.integers(0, most + 1, size=(len(bits), 1)) / bits.shape[1]
    return np.packbits(bits ^ (chance.random(bits.shape, dtype=np.float32) < share), axis=1)


def collection(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Hashes as a large collection has them: most alone, a quarter in small groups, 3 % all versions of one picture, and
    5 % that share a quarter of their bits, as documents and diagrams do, and would fill one bucket of a naive table.
    """
    chance = np.random.default_rng(seed)
    crowd, structured, grouped = int(0.03 * count), int(0.05 * count), int(0.25 * count)
    alone = chance.integers(0, 256, (count - crowd - structured - grouped, HASH_BYTES), dtype=np.uint8)
    groups = flipped(alone[chance.integers(0, max(1, grouped // 4), grouped)], 40, chance)
    one = flipped(np.repeat(alone[:1], crowd, axis=0), 12, chance)
    alike = chance.integers(0, 256, (structured, HASH_BYTES), dtype=np.uint8)
    alike[:, :8] = alone[1, :8]
    hashes = np.concatenate((alone, groups, one, alike))
    return hashes[chance.permutation(len(hashes))]


def entries(hashes: NDArray[np.uint8] | None, vectors: NDArray[np.float32] | None) -> Iterator[list[Entry]]:
    """They as items, in batches."""
    count = len(hashes) if hashes is not None else len(vectors) if vectors is not None else 0
    chance, start = np.random.default_rng(1), datetime(2024, 1, 1, tzinfo=UTC)
    for at in range(0, count, _BATCH):
        ids, pixels = chance.bytes(16 * _BATCH), chance.integers(1, 50, _BATCH)
        yield [
            Entry(
                str(uuid.UUID(bytes=ids[16 * each : 16 * each + 16])),
                int(pixels[each]) * 250_000,
                start + timedelta(seconds=at + each),
                pdq=hashes[at + each].tobytes().hex() if hashes is not None else None,
                pdq_quality=100,
                vector=vectors[at + each] if vectors is not None else None,
            )
            for each in range(min(_BATCH, count - at))
        ]


def hashing() -> str:
    """Milliseconds of one hash, at the size that an ingest decodes to."""
    pictures = [
        decode(path.read_bytes(), max_pixels=10**8).image
        for path in sorted(MEDIA.iterdir())
        if path.suffix in {".jpg", ".png", ".webp"}
    ]
    scaled = [each.resize((780, 520)) for each in pictures]
    seconds = []
    for each in scaled * 10:
        started = time.perf_counter()
        pdq(each)
        seconds.append(time.perf_counter() - started)
    return percentiles(seconds)


def looking_up(hashes: NDArray[np.uint8]) -> tuple[float, str]:
    """Seconds to fill an index, and milliseconds of one hash against all in it: half of them near one, half not."""
    index, chance = HashIndex(), np.random.default_rng(2)
    started = time.perf_counter()
    index.add(np.arange(len(hashes)), hashes)
    filled = time.perf_counter() - started
    asked = np.concatenate(
        (flipped(hashes[:250], 31, chance), chance.integers(0, 256, (250, HASH_BYTES), dtype=np.uint8))
    )
    seconds = []
    for each in asked:
        started = time.perf_counter()
        index.within(each.tobytes())
        seconds.append(time.perf_counter() - started)
    return filled, percentiles(seconds)


def found(by: By, batches: Iterator[list[Entry]], threshold: float) -> str:
    """A search's seconds and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        begun: list[float] = []
        started = time.perf_counter()
        answer = find_duplicates(
            batches,
            by=by,
            threshold=threshold,
            folder=Path(folder),
            progress=lambda *_: begun.append(time.perf_counter()),
        )
        seconds = time.perf_counter() - started
        assert isinstance(answer, Duplicates)
        largest = max((len(group.members) + 1 for group in answer), default=0)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        return (
            f"{answer.compared:,} | {seconds:.1f} (gathered in {begun[0] - started:.1f}) | "
            f"{answer.groups_count:,} | {largest:,} | {memory:,.0f}"
        )


def main() -> None:
    """Run and print tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=512)
    options = parser.parse_args()
    print(machine(), "\n", flush=True)
    print("| ms | p50 | p95 | p99 | worst |\n|---|---|---|---|---|")
    print(f"| PDQ of 780 x 520 pixels | {hashing()} |", flush=True)
    hashes = collection(options.count)
    filled, lookups = looking_up(hashes)
    print(f"| one hash against {len(hashes):,} (filled in {filled:.1f} s) | {lookups} |\n", flush=True)
    print("| groups | items | seconds | groups | largest | MiB at most |\n|---|---|---|---|---|---|")
    print(f"| same picture, 31 bits | {found(By.PICTURE, entries(hashes, None), 31)} |", flush=True)
    if options.vectors:
        vectors = clustered(options.vectors, options.size)
        chance, fifth = np.random.default_rng(3), options.vectors // 5
        vectors[:fifth] = vectors[-fifth:] + 0.3 * chance.normal(size=(fifth, options.size)) / options.size**0.5
        print(f"| alike, {options.size}-d, cosine 0.9 | {found(By.ALIKE, entries(None, vectors), 0.9)} |")


if __name__ == "__main__":
    main()
