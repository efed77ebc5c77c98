"""Moderation of what is stored: a million vectors against twelve categories, and a whole rescan through the index.

python -m bench.moderation [--count 1000000] [--stored 20000]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.common import clustered, fill, machine
from indexer.media.originals import Originals
from indexer.models.encoder import Encoder, load_encoder
from indexer.moderation.judge import Judge
from indexer.moderation.judging import judge_stored, open_judge
from indexer.moderation.policy import Policy
from indexer.moderation.stored import put_policy
from indexer.moderation.subjects import Subjects
from indexer.moderation.trail import Trail
from indexer.settings import Settings
from indexer.store import open_store

THINGS = ("a dog", "a car", "a plate of food", "a house", "a tree", "a boat", "a child", "a book", "a horse", "a map")
AT_ONCE = 50_000


def policy(encoder: Encoder, categories: int) -> Policy:
    """So many categories, each with fourteen prompts and a linear head."""
    chance = np.random.default_rng(1)
    return Policy.model_validate(
        {
            "name": "bench",
            "categories": [
                {
                    "name": f"c{number}",
                    "action": "flag" if number % 2 else "quarantine",
                    "detectors": [
                        {
                            "type": "prompts",
                            "positive": [f"{thing} and {number}" for thing in THINGS[:8]],
                            "negative": [f"no {thing} and {number}" for thing in THINGS[:6]],
                            "template": "{}",
                        },
                        {
                            "type": "linear",
                            "weights": chance.normal(size=encoder.dimension).tolist(),
                            "bias": -5.0,
                            "fingerprint": encoder.fingerprint,
                        },
                    ],
                }
                for number in range(categories)
            ],
        }
    )


def anonymous_mb() -> float:
    """Memory of this process that is no file's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def of_vectors(encoder: Encoder, count: int, folder: Path) -> None:
    """The judge alone, over a matrix in a file."""
    path = folder / "vectors.npy"
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, (count, encoder.dimension))
    for at in range(0, count, AT_ONCE):
        matrix[at : at + AT_ONCE] = clustered(min(AT_ONCE, count - at), encoder.dimension, seed=at)
    del matrix
    judge = Judge(policy(encoder, 12), encoder)
    before = anonymous_mb()
    print("| run | items/s | anonymous memory, MB more |\n|---|---|---|")
    for run in ("first", "again"):
        vectors = np.load(path, mmap_mode="r")
        started = time.perf_counter()
        judged = judge.judge(Subjects(images=np.ones(count, dtype=bool), vectors=vectors))
        seconds = time.perf_counter() - started
        print(f"| {run} | {count / seconds:,.0f} | {anonymous_mb() - before:.0f} |", flush=True)
    one = judge.judge(Subjects(images=np.ones(1, dtype=bool), vectors=vectors[:1]))
    assert np.array_equal(one.probabilities[0], judged.probabilities[0])


def of_a_collection(encoder: Encoder, count: int, folder: Path) -> None:
    """Items of an index, read, judged, and written where the verdict changed."""
    settings = Settings(data=folder / "data", workers=0)
    with open_store(settings) as store:
        store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        fill(store.get("media"), clustered(count, encoder.dimension))
        put_policy(store, store.get("media"), policy(encoder, 12), by="bench")
        collection = store.get("media")
        judge = open_judge(collection, encoder, settings)
        assert judge is not None
        originals, trail = Originals.of(settings), Trail(settings.data, "media")
        for run in ("all new", "nothing changed"):
            started = time.perf_counter()
            changed = 0
            for ids in collection.ids(1000):
                done = judge_stored(collection, judge, ids, settings=settings, originals=originals, trail=trail)
                changed += done.changed
            seconds = time.perf_counter() - started
            print(f"| {run} | {changed:,} of {count:,} written | {count / seconds:,.0f} items/s |", flush=True)
        originals.close()


def main() -> None:
    """Run and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--stored", type=int, default=20_000)
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        encoder = load_encoder(Settings(data=Path(folder) / "none"))
        of_vectors(encoder, options.count, Path(folder))
        of_a_collection(encoder, options.stored, Path(folder))


if __name__ == "__main__":
    main()
