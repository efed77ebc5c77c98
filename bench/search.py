"""Searching as users do, and side by side with what they would take instead, in one run on the same vectors.

    python -m bench.search [--count 100000] [--peers-python PEERS/bin/python] [--parts texts vectors embedding]

- `texts`: text queries over HTTP at so many items, and `crosslens search` as a whole process at 10,000.
- `vectors`: Crosslens' HTTP API and its index process against a flat FAISS index in a Flask app, qdrant-client's local
  mode, LanceDB and Chroma: top 10 with payloads by vector, without and with filters. What has a setting of the search
  is raised until it finds 98 % of the true ten; each runs in a process of its own, one after another.
- `embedding`: the same MiniLM weights in Crosslens, sentence-transformers, Infinity and fastembed (extra `export`).

The peers are not among Crosslens' dependencies. They live in an environment of their own, named by `--peers-python`;
without one they are listed as not measured:

    python3.11 -m venv PEERS && PEERS/bin/pip install -r bench/peers/requirements.txt

Ratios of p50 above 1 and of rates below 1 mean that Crosslens is faster. "HTTP" is a server in another process, asked
over loopback; "in process" is a library, with the index in the process that asks, but for Crosslens' index process,
which its client asks over loopback, too. Memory is the resident set of all processes that serve, also Crosslens'
worker and queue, and not that of who asks over HTTP; pages that processes share count in each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from bench.common import clustered, fill, machine, percentiles
from bench.peers.compare import Runner, embedder_table, embedders, searcher_tables, searchers
from indexer.edge.client import attach
from indexer.models.encoder import load_encoder
from indexer.settings import Settings
from indexer.store import open_store

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]
PARTS = ["texts", "vectors", "embedding"]
WORDS = [
    "dog",
    "cat",
    "boat",
    "beach",
    "snow",
    "child",
    "bicycle",
    "kitchen",
    "mountain",
    "street",
    "car",
    "red",
    "old",
    "happy",
    "running",
    "train",
    "flower",
]


def filled(settings: Settings, count: int) -> None:
    """A collection of so many items in the built-in model's space, optimized."""
    encoder = load_encoder(settings)
    attached = attach(settings)
    with open_store(settings, attached) as store:
        collection = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        fill(collection, clustered(count, encoder.dimension))
        url = f"{attached.url}/collections/media/optimize"
        httpx.post(url, json={}, headers={"api-key": attached.secret}, timeout=1800).raise_for_status()


def over_http(settings: Settings, queries: int) -> list[float]:
    """Seconds of fresh text queries, one after another, on one connection."""
    environment = {**os.environ, "CROSSLENS_DATA": str(settings.data), "CROSSLENS_LOG_LEVEL": "warning"}
    server = subprocess.Popen([*CLI, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, env=environment)
    assert server.stdout is not None
    url = json.loads(server.stdout.readline())["url"]
    chance = np.random.default_rng(0)
    seconds = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(queries + 50):
            text = "a " + " ".join(chance.choice(WORDS, 4)) + f" {number}"
            started = time.perf_counter()
            client.post(
                "/v1/collections/media/search", json={"query": [{"text": text}], "kind": "image"}
            ).raise_for_status()
            seconds.append(time.perf_counter() - started)
    server.terminate()
    server.wait()
    return seconds[50:]


def whole_process(settings: Settings, runs: int) -> list[float]:
    """Seconds of `crosslens search`, the index process started and ended with it."""
    environment = {**os.environ, "CROSSLENS_DATA": str(settings.data)}
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([*CLI, "search", "a dog on a beach", "--json"], env=environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
        time.sleep(1)  # so that the index process of the run before is gone, and its start is paid again
    return seconds


def texts_as_users_do(count: int) -> None:
    """Print the table of text queries."""
    print("| ms | searches | p50 | p95 | p99 | worst |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "few")
        filled(settings, min(count, 10_000))
        time.sleep(1)
        print(
            f"| `crosslens search`, whole process, {min(count, 10_000):,} items | 10 | "
            f"{percentiles(whole_process(settings, 10))} |",
            flush=True,
        )
        settings = Settings(data=Path(folder) / "many")
        filled(settings, count)
        seconds = over_http(settings, 1000)
        print(f"| text query over HTTP, {count:,} items | {len(seconds)} | {percentiles(seconds)} |", flush=True)


def made_up_texts(count: int) -> list[str]:
    """Texts of 4 to 24 words."""
    chance = np.random.default_rng(3)
    return [" ".join(chance.choice(WORDS, int(chance.integers(4, 25)))) for _ in range(count)]


def main() -> None:
    """Run and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--peers-python", help="The Python that has bench/peers/requirements.txt.")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--searches", type=int, default=300, help="Of each peer and filter, one after another.")
    parser.add_argument("--seconds", type=float, default=10, help="The most that these may take; and of each rate.")
    parser.add_argument("--threads", type=int, default=4, help="Threads, or connections, of each rate.")
    options = parser.parse_args()
    print(machine(), flush=True)
    if "texts" in options.parts:
        texts_as_users_do(options.count)
    more = [f"--{name}={getattr(options, name)}" for name in ("searches", "seconds", "threads")]
    if "vectors" in options.parts:
        size = load_encoder(Settings()).dimension
        with tempfile.TemporaryDirectory() as folder:
            found = searchers(Runner(Path(folder), options.peers_python, more), options.count, size)
        print(f"\n{options.count:,} x {size}; queries/s by {options.threads} threads or connections\n")
        print("\n".join(searcher_tables(found)), flush=True)
    if "embedding" in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            found = embedders(Runner(Path(folder), options.peers_python, ()), made_up_texts(512))
        print("\nall-MiniLM-L6-v2 in fp32, 512 texts of 4 to 24 words at a time, and one at a time\n")
        print("\n".join(embedder_table(found)), flush=True)


if __name__ == "__main__":
    main()
