"""The queue against `crosslens ingest` on the same photos, two workers against one, and a million references planned.

python -m bench.queue [--count 1500]
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.common import machine
from bench.ingest import CLI, make_photos
from indexer.settings import Settings
from workers.jobs import Jobs
from workers.runtime import connect


@contextmanager
def served(data: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`crosslens serve` on a data folder, ready."""
    command = [*CLI, "serve", "--port", "0", "--json", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def queued(data: Path, source: Path, **environment: str) -> dict[str, Any]:
    """The job of a folder through the queue, its model warm."""
    with served(data, **environment):
        warm = source.parent / "warm"
        if not warm.exists():
            make_photos(warm, 16, 64)
        for each in (warm, source):
            done = subprocess.run(
                [*CLI, "jobs", "submit", str(each), "--wait", "--json", "--data", str(data)],
                stdout=subprocess.PIPE, check=True, text=True,
            )  # fmt: skip
        return dict(json.loads(done.stdout))


def direct(data: Path, source: Path) -> dict[str, Any]:
    """The report of `crosslens ingest`."""
    done = subprocess.run(
        [*CLI, "ingest", str(source), "--json", "--data", str(data)], stdout=subprocess.PIPE, check=True, text=True
    )
    return dict(json.loads(done.stdout))


SHARE = 0.4
"""Of a core, that each worker gets where two are compared: index, broker, planner and API need the rest."""
_CPU = Path("/sys/fs/cgroup/cpu")


def limited(data: Path, source: Path, workers: int) -> dict[str, Any]:
    """As `queued`, each worker with a share of a core, as if it were on a small machine of its own.

    Shards are small, so that the last one of one worker is no large part of the whole.
    """
    with served(data, CROSSLENS_WORKERS=str(workers), CROSSLENS_THREADS="1", CROSSLENS_SHARD_SIZE="128") as server:
        embedders = [child for child in psutil.Process(server.pid).children() if child.cmdline()[-1] == "embed"]
        groups = []
        for child in embedders:
            group = _CPU / f"crosslens-{child.pid}"
            group.mkdir()
            groups.append(group)
            (group / "cpu.cfs_quota_us").write_text(str(int(100_000 * SHARE)))
            (group / "cgroup.procs").write_text(str(child.pid))
        for each in (source.parent / "warm", source):
            done = subprocess.run(
                [*CLI, "jobs", "submit", str(each), "--wait", "--json", "--data", str(data)],
                stdout=subprocess.PIPE, check=True, text=True,
            )  # fmt: skip
    for group in groups:
        group.rmdir()
    return dict(json.loads(done.stdout))


def million(folder: Path) -> None:
    """A million references planned, none embedded: the planner's memory and time; and the time to the first shard."""
    lines = folder / "million.jsonl"
    with lines.open("w") as file:
        for number in range(1_000_000):
            file.write(
                json.dumps({"text": f"caption {number} of a photo of something", "payload": {"n": number}}) + "\n"
            )
    data = folder / "million"
    with served(data, CROSSLENS_QUEUE_LIMIT="1000000", CROSSLENS_SHARD_SIZE="256") as server:
        jobs = Jobs(connect(Settings(data=data)))
        children = psutil.Process(server.pid).children()
        planner = next(child for child in children if child.cmdline()[-1] == "plan")
        broker = next(child for child in children if "valkey" in child.cmdline()[0])
        started = time.monotonic()
        submit = [*CLI, "jobs", "submit", str(lines), "--json", "--data", str(data)]
        job = json.loads(subprocess.run(submit, stdout=subprocess.PIPE, check=True, text=True).stdout)["job"]
        asked = time.monotonic()
        while not jobs.claims() or max(number for _, number in jobs.claims()) < 0:
            time.sleep(0.005)
        first = time.monotonic() - asked
        worst = 0
        while jobs.get(job).state in {"queued", "planning"}:
            worst = max(worst, planner.memory_info().rss)
            time.sleep(0.1)
        seconds = time.monotonic() - started
        print(
            f"\n1,000,000 references planned in {seconds:.0f} s; the planner took {worst / 2**20:.0f} MB at most, the "
            f"broker {broker.memory_info().rss / 2**20:.0f} MB; first shard in work {first:.2f} s after it was asked for"
        )
        jobs.cancel(job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--million", action="store_true")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if options.million:
            million(home)
            return
        photos = home / "photos"
        make_photos(photos, options.count, 640)
        print("\n| | photos/s | seconds |\n|---|---|---|")
        for turn in ("", ", again"):
            show(f"crosslens ingest{turn}", direct(home / f"direct{turn}", photos))
            show(f"queue{turn}", queued(home / f"queue{turn}", photos))
        if os.access(_CPU, os.W_OK):
            for workers in (1, 2):
                show(
                    f"queue, {workers} worker(s) of {SHARE} cores each",
                    limited(home / f"workers{workers}", photos, workers),
                )


def show(name: str, row: dict[str, Any]) -> None:
    """A line of the table, at once."""
    assert row["failed"] == row["skipped"] == 0, row
    print(f"| {name} | {row['items_per_second']:.1f} | {row['seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
