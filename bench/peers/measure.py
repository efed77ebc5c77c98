"""One peer in this process: builds its index, or opens it and measures searches. Prints one line of JSON.

python -m bench.peers.measure build|search NAME FOLDER [--searches 300] [--seconds 10] [--threads 4]

FOLDER holds `vectors.npy`, `queries.npy`, `truth-FILTER.npy` of `bench.search`; the index goes below `index/`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.peers import QUESTIONS, SEARCHERS, SIZE, Filter, Floats, Peer, Searcher, load

ENOUGH = 0.98
"""The recall@10 that a peer's settings are raised to."""
TUNING = 50
"""Queries that settings are chosen by; the others are measured."""


def latencies(ask: Callable[[int], object], count: int, seconds: float, least: int = 10) -> list[float]:
    """Seconds of calls one after another: so many, or fewer if they take longer than that, but the least."""
    spent: list[float] = []
    until = time.perf_counter() + seconds
    while len(spent) < count and (len(spent) < least or time.perf_counter() < until):
        started = time.perf_counter()
        ask(len(spent))
        spent.append(time.perf_counter() - started)
    return spent


def rate(ask: Callable[[int], object], threads: int, seconds: float) -> float:
    """Calls a second of threads that each call one after another."""
    begun = time.perf_counter()
    counts = [0] * threads
    failed: list[BaseException] = []

    def one(which: int) -> None:
        try:
            while time.perf_counter() < begun + seconds:
                ask(which + threads * counts[which])
                counts[which] += 1
        except BaseException as error:  # noqa: BLE001  raised below, in the thread that can be seen
            failed.append(error)

    workers = [threading.Thread(target=one, args=(which,)) for which in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return sum(counts) / (time.perf_counter() - begun)


def resident(pids: list[int]) -> float:
    """Resident memory of processes and all their children, in MB; pages that some share are counted in each."""
    every = {
        each.pid: each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    }
    total = 0
    for process in every.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


def recall(searcher: Searcher, queries: Floats, truth: np.ndarray, only: Filter | None, seconds: float) -> float:
    """The share of the true nearest that is found, of as many queries as the time allows, ten at least."""
    found: list[list[int]] = []
    latencies(lambda at: found.append(searcher.search(queries[at], SIZE, only)), len(queries), seconds)
    shares = [len(set(each) & set(right)) / len(right) for each, right in zip(found, truth.tolist(), strict=False)]
    return float(np.mean(shares))


def tune(searcher: Searcher, queries: Floats, truth: np.ndarray, only: Filter | None, seconds: float) -> Any:
    """The first setting that finds enough, and leave it in use; else the last. None where there is no choice."""
    chosen = None
    for chosen in searcher.settings:
        searcher.use(chosen)
        if recall(searcher, queries, truth, only, seconds) >= ENOUGH:
            break
    return chosen


def searches(peer: Peer, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What a user of the opened index meets, for each filter."""
    queries = np.load(folder / "queries.npy")
    begun = time.perf_counter()
    searcher = peer.open(options.index)
    searcher.search(queries[0], SIZE, None)
    result: dict[str, Any] = {"opened": time.perf_counter() - begun, "questions": {}}
    try:
        for name, only in QUESTIONS.items():
            truth = np.load(folder / f"truth-{name}.npy")
            setting = tune(searcher, queries[:TUNING], truth[:TUNING], only, options.seconds)
            asked, right = queries[TUNING:], truth[TUNING:]
            found = recall(searcher, asked, right, only, options.seconds)  # warms up, too

            def ask(at: int, only: Filter | None = only, asked: Floats = asked) -> list[int]:
                return searcher.search(asked[at % len(asked)], SIZE, only)

            spent = latencies(ask, options.searches, options.seconds)
            p50, p95 = (np.percentile(spent, [50, 95]) * 1000).tolist()
            result["questions"][name] = {
                "setting": setting,
                "recall": found,
                "searches": len(spent),
                "p50": p50,
                "p95": p95,
                "rate": rate(ask, options.threads, options.seconds),
            }
        result["resident"] = resident(list(searcher.pids))
    finally:
        searcher.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["build", "search"])
    parser.add_argument("name", choices=SEARCHERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    options.index = options.folder / "index"
    answer, sys.stdout = sys.stdout, sys.stderr  # peers print, too
    peer: Peer = load(SEARCHERS[options.name])()
    if options.action == "build":
        vectors = np.load(options.folder / "vectors.npy")
        begun = time.perf_counter()
        peer.build(options.index, vectors)
        result: dict[str, Any] = {"built": time.perf_counter() - begun}
    else:
        result = searches(peer, options.folder, options)
    print(json.dumps({"http": peer.http, **result}), file=answer, flush=True)


if __name__ == "__main__":
    main()
