"""Searching as users do: text queries over HTTP at 100,000 items, and `crosslens search` as a whole process at 10,000.

python -m bench.search [--count 100000]
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
from indexer.edge.client import attach
from indexer.models.encoder import load_encoder
from indexer.settings import Settings
from indexer.store import open_store

CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]
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


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    count = parser.parse_args().count
    print(machine(), flush=True)
    print("| ms | searches | p50 | p95 | p99 | worst |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "few")
        filled(settings, 10_000)
        time.sleep(1)
        print(
            f"| `crosslens search`, whole process, 10,000 items | 10 | {percentiles(whole_process(settings, 10))} |",
            flush=True,
        )
        settings = Settings(data=Path(folder) / "many")
        filled(settings, count)
        seconds = over_http(settings, 1000)
        print(f"| text query over HTTP, {count:,} items | {len(seconds)} | {percentiles(seconds)} |")


if __name__ == "__main__":
    main()
