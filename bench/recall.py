"""What the embedded index finds of the true ten nearest with its default settings, also under filters, and how fast.

python -m bench.recall [--count 100000] [--size 512] [--queries 200] [--noise 1.0]

The vectors lie around 1,000 Gaussian centres; with `--noise 1` two of the same centre have a cosine of 0.5. Queries are
of two kinds: `image`, more vectors of the same centres; and `text`, which lie beside all of them, as a caption does in
CLIP's space: most of each is one common direction. Filters pass items by chance, whatever their centre, and are made
as a keyword and as a range of numbers. Seeds are fixed. Seconds are those of whole round trips through qdrant-client.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from bench.common import machine, points
from indexer.edge.client import attach
from indexer.settings import Settings
from indexer.store import Collection, open_store

CENTRES = 1_000
PARTS = {"50 %": 500, "10 %": 100, "1 %": 10, "0.1 %": 1}
"""Of 1,000 buckets, how many a filter passes."""
Floats = NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    """The vectors at length 1."""
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def embeddings(count: int, size: int, noise: float, seed: int) -> Floats:
    """Unit vectors around the centres, (count, size)."""
    centres = np.random.default_rng(99).standard_normal((CENTRES, size), dtype=np.float32)
    chance = np.random.default_rng(seed)
    around = noise * chance.standard_normal((count, size), dtype=np.float32)
    return unit(centres[chance.integers(0, CENTRES, count)] + around)


def captions(count: int, size: int, noise: float, seed: int) -> Floats:
    """Queries of another tower: a third of an embedding, the rest one direction that all of them share."""
    common = unit(np.random.default_rng(98).standard_normal((1, size), dtype=np.float32))
    return unit(0.35 * embeddings(count, size, noise, seed) + 0.9 * common)


def filters(buckets: NDArray[np.int64]) -> Iterator[tuple[str, models.Filter | None, NDArray[np.bool_]]]:
    """Name, filter, and which items pass it."""
    yield "none", None, np.ones(len(buckets), dtype=bool)
    for name, part in PARTS.items():
        word = models.FieldCondition(key="part", match=models.MatchValue(value=name))
        span = models.FieldCondition(key="bucket", range=models.Range(lt=part))
        yield f"{name}, keyword", models.Filter(must=[word]), buckets < part
        yield f"{name}, range", models.Filter(must=[span]), buckets < part


def fill(collection: Collection, vectors: Floats, buckets: NDArray[np.int64]) -> None:
    """Write the vectors as items with the fields of the filters."""
    at = 0
    for batch in points(vectors):
        for point, bucket in zip(batch, buckets[at : at + len(batch)].tolist(), strict=True):
            point.payload.update(bucket=bucket, part=[name for name, part in PARTS.items() if bucket < part])
        collection.upsert(batch)
        at += len(batch)


def measure(
    collection: Collection, queries: Floats, among: models.Filter | None, right: NDArray[np.int64], *, exact: bool
) -> tuple[float, list[float]]:
    """The share of the true ten that was found, and the milliseconds of each search."""
    found, spent = 0, []
    for query, best in zip(queries, right.tolist(), strict=True):
        started = time.perf_counter()
        hits = collection.search(query, len(best), filter=among, exact=exact)
        spent.append((time.perf_counter() - started) * 1000)
        found += len({int(hit.record.sha256, 16) for hit in hits} & set(best))
    return found / right.size, spent


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--noise", type=float, default=1.0)
    options = parser.parse_args()
    vectors = embeddings(options.count, options.size, options.noise, seed=1)
    buckets = np.random.default_rng(2).integers(0, 1_000, options.count)
    asked = {
        "image": embeddings(options.queries, options.size, options.noise, seed=3),
        "text": captions(options.queries, options.size, options.noise, seed=4),
    }
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), optimize_after=10**9)  # built when this program says so
        attached = attach(settings)
        with open_store(settings, attached) as store:
            store.create("bench", "none", "0" * 16, options.size)
            collection = store.declare("bench", {"bucket": "integer", "part": "keyword"})
            started = time.perf_counter()
            fill(collection, vectors, buckets)
            written = time.perf_counter()
            url = f"{attached.url}/collections/bench/optimize"
            httpx.post(url, json={}, headers={"api-key": attached.secret}, timeout=3600).raise_for_status()
            built = time.perf_counter()
            print(
                f"{options.count:,} x {options.size}, noise {options.noise}: {options.count / (written - started):,.0f} "
                f"points/s written with {len(collection.types)} payload indexes, built in {built - written:.0f} s\n"
            )
            print("| queries | filter | items that pass | recall@10 | p50 ms | p95 ms |\n|---|---|---|---|---|---|")
            for kind, queries in asked.items():
                similar = queries @ vectors.T
                for name, among, passes in filters(buckets):
                    right = np.argsort(-np.where(passes, similar, -np.inf), axis=1)[:, : min(10, passes.sum())]
                    recall, spent = measure(collection, queries, among, right, exact=False)
                    p50, p95 = np.percentile(spent, [50, 95])
                    print(f"| {kind} | {name} | {passes.sum():,} | {recall:.3f} | {p50:.1f} | {p95:.1f} |", flush=True)
                right = np.argsort(-similar, axis=1)[:, :10]
                recall, spent = measure(collection, queries, None, right, exact=True)
                p50, p95 = np.percentile(spent, [50, 95])
                print(
                    f"| {kind} | none, exact | {options.count:,} | {recall:.3f} | {p50:.1f} | {p95:.1f} |", flush=True
                )


if __name__ == "__main__":
    main()
