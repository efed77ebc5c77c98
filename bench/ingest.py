"""Ingest against its limits: decoding alone, encoding alone, both together, and memory at 1,000 and 10,000 photos.

    python -m bench.ingest [--count 1000] [--side 640]

On a machine where both share the cores, no pipeline can reach either limit alone: the bound is what both cost
together, 1 / (1/decode + 1/encode). Both ratios are printed.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from bench.common import machine
from indexer.media.decode import decode, read_file
from indexer.models.devices import cpu_count
from indexer.models.encoder import load_encoder
from indexer.models.preprocess import decode_target
from indexer.settings import Settings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "media"
CLI = [sys.executable, "-c", "from indexer.cli import main; main()"]


def make_photos(folder: Path, count: int, side: int) -> list[Path]:
    """Distinct photos: random parts of the sample photos at `side` x 3/4 `side`, as JPEG."""
    folder.mkdir(parents=True)
    originals = [
        Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.jpg")) if path.name != "gravel.jpg"
    ]
    chance = np.random.default_rng(0)
    photos: dict[bytes, None] = {}  # two parts of a small photo may be the same
    while len(photos) < count:
        image = originals[len(photos) % len(originals)]
        share = chance.uniform(0.5, 0.95)
        width, height = int(image.width * share), int(image.height * share)
        left, top = (int(chance.integers(0, room + 1)) for room in (image.width - width, image.height - height))
        file = io.BytesIO()
        part = image.crop((left, top, left + width, top + height))
        part.resize((side, side * 3 // 4), Image.Resampling.BILINEAR).save(file, "JPEG", quality=88)
        photos[file.getvalue()] = None
    paths = []
    for number, photo in enumerate(photos):
        paths.append(folder / f"{number:05}.jpg")
        paths[-1].write_bytes(photo)
    return paths


def per_second(work: Callable[[], object], count: int) -> float:
    """Items a second of one go."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def ingest(folder: Path, data: Path) -> tuple[dict[str, float], float]:
    """The report of `crosslens ingest` as a process of its own, and its peak memory in MB."""
    environment = {**os.environ, "CROSSLENS_DATA": str(data)}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([*CLI, "ingest", str(folder), "--json"], stdout=out, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        out.seek(0)
        return json.load(out), usage.ru_maxrss / 1024


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--model", default="bridge")
    options = parser.parse_args()
    threads = cpu_count()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        paths = make_photos(folder / "photos", options.count, options.side)
        encoder = load_encoder(Settings(), options.model, threads=1)
        target = decode_target(encoder.pixels)

        def prepared(path: Path) -> np.ndarray:
            return encoder.prepare(decode(read_file(path, max_bytes=10**9), target=target, max_pixels=10**9))

        encoder.encode_pixels(np.stack([prepared(path) for path in paths[:16]]))
        with ThreadPoolExecutor(threads) as pool:
            decoding = per_second(
                lambda: sum(1 for _ in pool.map(lambda path: prepared(path).size, paths)), options.count
            )
            some = np.stack(list(pool.map(prepared, paths[:256])))
            batches = [some[at : at + 16] for at in range(0, 256, 16)] * 2
            side_by_side = per_second(lambda: list(pool.map(encoder.encode_pixels, batches)), 512)
        wide = load_encoder(Settings(), options.model, threads=threads)
        wide.encode_pixels(batches[0])
        one_run = per_second(lambda: [wide.encode_pixels(batch) for batch in batches], 512)
        encoding = max(side_by_side, one_run)
        report, peak = ingest(folder / "photos", folder / "data")
        whole = options.count / report["seconds"]
        slower, bound = min(decoding, encoding), 1 / (1 / decoding + 1 / encoding)
        print(f"\n{options.count:,} JPEGs of {options.side} x {options.side * 3 // 4}, {threads} cores\n")
        print("| | photos/s |\n|---|---|")
        print(f"| decoding and preparing alone | {decoding:.0f} |")
        print(f"| encoding alone, {threads} runs side by side | {side_by_side:.0f} |")
        print(f"| encoding alone, one run over all cores | {one_run:.0f} |")
        print(f"| both on the same cores, at best | {bound:.0f} |")
        print(f"| **ingest, files to searchable items** | **{whole:.0f}** |")
        print(
            f"\ningest / the slower limit alone {whole / slower:.2f}; ingest / both together at best {whole / bound:.2f}"
        )
        _, more = ingest(make_photos(folder / "many", 10_000, 320)[0].parent, folder / "data10")
        print(f"peak memory of ingest: {peak:.0f} MB for {options.count:,} photos, {more:.0f} MB for 10,000")


if __name__ == "__main__":
    main()
