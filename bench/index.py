"""The embedded index under load: writing, searching before, while and after 100,000 vectors are optimized, recall.

python -m bench.index [--count 100000] [--size 384]
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from bench.common import clustered, fill, machine, percentiles
from indexer.edge.client import attach
from indexer.settings import Settings
from indexer.store import Collection, open_store


def timed_searches(
    collection: Collection, queries: np.ndarray, *, until: threading.Event | None = None, count: int = 300
) -> list[float]:
    """Seconds of each search, one after another."""
    seconds: list[float] = []
    while len(seconds) < count or (until is not None and not until.is_set()):
        started = time.perf_counter()
        collection.search(queries[len(seconds) % len(queries)], 10)
        seconds.append(time.perf_counter() - started)
        if until is not None:
            time.sleep(0.01)  # a searcher, not a hammer: the build must have a core to end on
    return seconds


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    vectors, queries = clustered(options.count, options.size), clustered(200, options.size, seed=1)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder), optimize_after=10**9)  # built when this program says so
        attached = attach(settings)
        with open_store(settings, attached) as store:
            collection = store.create("bench", "none", "0" * 16, options.size)
            started = time.perf_counter()
            fill(collection, vectors)
            print(
                f"{options.count:,} x {options.size}: {options.count / (time.perf_counter() - started):,.0f} points/s written, acknowledged and flushed"
            )
            before = timed_searches(collection, queries)
            built = threading.Event()
            seconds = [0.0]

            def build() -> None:
                begun = time.perf_counter()
                url = f"{attached.url}/collections/bench/optimize"
                httpx.post(url, json={}, headers={"api-key": attached.secret}, timeout=1800).raise_for_status()
                seconds[0] = time.perf_counter() - begun
                built.set()

            threading.Thread(target=build).start()
            during = timed_searches(collection, queries, until=built, count=0)
            after = timed_searches(collection, queries, count=1000)
            right = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
            hits = [{int(hit.record.sha256, 16) for hit in collection.search(query, 10)} for query in queries]
            recall = np.mean([len(found & set(best.tolist())) / 10 for found, best in zip(hits, right, strict=True)])
    print(f"optimized in {seconds[0]:.1f} s; recall@10 against exact: {recall:.3f}\n")
    print(
        "| search, ms, whole round trip through qdrant-client | searches | p50 | p95 | p99 | worst |\n|---|---|---|---|---|---|"
    )
    for name, each in {"scan, before": before, "while optimizing": during, "optimized": after}.items():
        print(f"| {name} | {len(each)} | {percentiles(each)} |")


if __name__ == "__main__":
    main()
