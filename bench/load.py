"""The server under load from another process: text searches at a steady rate, and as many as it can answer.

python -m bench.load [--count 100000] [--seconds 20]
"""

import argparse
import asyncio
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np

from bench.common import machine, percentiles
from bench.search import CLI, WORDS, filled
from indexer.settings import Settings

PATH = "/v1/collections/media/search"
CONNECTIONS = 16
Answer = TypeVar("Answer")


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


class Caller:
    """A connection that is kept alive. Bare sockets: a client library would take more of the cores than the server."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._host, self._port = str(where.hostname), where.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, text: str) -> None:
        """One search; an error ends the benchmark."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        body = json.dumps({"query": [{"text": text}], "kind": "image"}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        headers = await reader.readuntil(b"\r\n\r\n")
        length = next(line.split(b":")[1] for line in headers.lower().split(b"\r\n") if line.startswith(b"content-le"))
        answer = await reader.readexactly(int(length))
        assert headers.split(b" ", 2)[1] == b"200", answer
        assert answer.count(b'"score":') == 10


async def steadily(url: str, rate: float, seconds: float, text: Callable[[], str]) -> list[float]:
    """Latencies of searches that begin at a steady rate, whatever became of those before.

    Each is counted from the moment at which it was due: waiting for a free connection is waiting, too.
    """
    callers: asyncio.Queue[Caller] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        callers.put_nowait(Caller(url))
    begun = time.perf_counter()

    async def one(due: float) -> float:
        caller = await callers.get()
        await caller.ask(text())
        callers.put_nowait(caller)
        return time.perf_counter() - due

    tasks = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    return list(await asyncio.gather(*tasks))


async def at_most(url: str, seconds: float, text: Callable[[], str]) -> float:
    """Searches a second with all connections busy."""
    until = time.perf_counter() + seconds
    count = 0

    async def one(caller: Caller) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await caller.ask(text())
            count += 1

    await asyncio.gather(*(one(Caller(url)) for _ in range(CONNECTIONS)))
    return count / seconds


def _run(asking: Coroutine[Any, Any, Answer]) -> Answer:
    """As `asyncio.run`, with timers to the microsecond: epoll's, rounded up to milliseconds, would be in the latencies."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(asking)


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--data", type=Path, help="A folder to keep the collection in, or one that holds it.")
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=options.data or Path(folder) / "data", workers=1)
        if not settings.index_folder.exists():
            filled(settings, options.count)
            time.sleep(1)
        with served(settings) as url:
            httpx.get(f"{url}/readyz", timeout=60).raise_for_status()
            _run(steadily(url, 50, 3, fresh()))
            latencies = _run(steadily(url, 50, options.seconds, fresh()))
            print("| ms | searches | p50 | p95 | p99 | worst |\n|---|---|---|---|---|---|")
            print(f"| fresh texts, 50 a second | {len(latencies)} | {percentiles(latencies)} |", flush=True)
            print(f"\nfresh texts: {asyncio.run(at_most(url, options.seconds, fresh())):.0f} a second", flush=True)
            print(f"repeated texts: {asyncio.run(at_most(url, options.seconds, repeated())):.0f} a second", flush=True)


if __name__ == "__main__":
    main()
