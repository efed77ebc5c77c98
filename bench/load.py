"""The server under load from another process: text searches at a steady rate, and as many as it can answer.

python -m bench.load [--count 100000] [--seconds 20]
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from bench.common import machine, percentiles
from bench.search import CLI, WORDS, filled
from indexer.settings import Settings

PATH = "/v1/collections/media/search"
CONNECTIONS = 16


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """`crosslens serve` on a data folder; gives its address."""
    environment = {**os.environ, "CROSSLENS_DATA": str(settings.data), "CROSSLENS_LOG_LEVEL": "warning"}
    server = subprocess.Popen([*CLI, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, env=environment)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        server.wait(60)


def fresh() -> Callable[[], str]:
    """Texts that were never asked for."""
    chance = np.random.default_rng(0)
    counter = iter(range(10**9))
    return lambda: "a " + " ".join(chance.choice(WORDS, 4)) + f" {next(counter)}"


def repeated() -> Callable[[], str]:
    """Texts of which there are a hundred."""
    chance = np.random.default_rng(1)
    texts = ["a " + " ".join(chance.choice(WORDS, 4)) for _ in range(100)]
    return lambda: texts[int(chance.integers(100))]


async def ask(client: httpx.AsyncClient, text: str) -> float:
    """Seconds of one search; an error ends the benchmark."""
    started = time.perf_counter()
    answer = await client.post(PATH, json={"query": [{"text": text}], "kind": "image"})
    answer.raise_for_status()
    assert len(answer.json()["results"]) == 10
    return time.perf_counter() - started


async def steadily(url: str, rate: float, seconds: float, text: Callable[[], str]) -> list[float]:
    """Latencies of searches that begin at a steady rate, whatever became of those before."""
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=CONNECTIONS)) as client:
        begun = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(client, text())))
        return list(await asyncio.gather(*tasks))


async def at_most(url: str, seconds: float, text: Callable[[], str]) -> float:
    """Searches a second with all connections busy."""
    until = time.perf_counter() + seconds
    count = 0

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await ask(client, text())
            count += 1

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(one(client) for _ in range(CONNECTIONS)))
    return count / seconds


def main() -> None:
    """Run and print a table. With `--url` it is the load alone, in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "data", workers=1)
        filled(settings, options.count)
        time.sleep(1)
        with served(settings) as url:
            httpx.get(f"{url}/readyz", timeout=60).raise_for_status()
            asyncio.run(steadily(url, 50, 3, fresh()))
            latencies = asyncio.run(steadily(url, 50, options.seconds, fresh()))
            print("| ms | searches | p50 | p95 | p99 | worst |\n|---|---|---|---|---|---|")
            print(f"| fresh texts, 50 a second | {len(latencies)} | {percentiles(latencies)} |", flush=True)
            print(f"\nfresh texts: {asyncio.run(at_most(url, options.seconds, fresh())):.0f} a second", flush=True)
            print(f"repeated texts: {asyncio.run(at_most(url, options.seconds, repeated())):.0f} a second", flush=True)


if __name__ == "__main__":
    main()
