"""Moderation of what is stored: a million vectors against twelve categories, and whole rescans through the index.

python -m bench.moderation [--count 1000000] [--stored 100000]
"""

import argparse
import resource
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.common import clustered, machine, points
from indexer.items import from_payload, to_payload
from indexer.media.originals import Originals
from indexer.models.encoder import Encoder, load_encoder
from indexer.moderation.dry_run import MOST_ITEMS, dry_run
from indexer.moderation.judge import Judge
from indexer.moderation.judging import ItemJudge, Judged, judge_stored, open_judge
from indexer.moderation.policy import Policy
from indexer.moderation.rescan import rescan
from indexer.moderation.stored import put_policy
from indexer.moderation.subjects import Subjects
from indexer.moderation.trail import Trail
from indexer.settings import Settings
from indexer.store import Collection, Point, Store, open_store
from indexer.store.columns import open_columns

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


def put(store: Store, encoder: Encoder, settings: Settings, wanted: Policy) -> tuple[Collection, ItemJudge]:
    """The collection with a policy in force, and its judge."""
    put_policy(store, store.get("media"), wanted, by="bench")
    collection = store.get("media")
    judge = open_judge(collection, encoder, settings)
    assert judge is not None
    return collection, judge


def fill_judged(collection: Collection, judge: ItemJudge, count: int, dimension: int) -> None:
    """Write items as they are ingested: judged."""
    for begin in range(0, count, AT_ONCE):
        for batch in points(clustered(min(AT_ONCE, count - begin), dimension, seed=begin)):
            records = [from_payload(point.payload)[0] for point in batch]
            verdicts = judge.verdicts(records, [{}] * len(batch), np.stack([point.vector for point in batch]))
            whole = [
                to_payload(record.model_copy(update={"verdict": verdict}))
                for record, verdict in zip(records, verdicts, strict=True)
            ]
            ids = [str(uuid.UUID(int=uuid.UUID(point.id).int + begin)) for point in batch]
            collection.upsert(
                [Point(item, point.vector, each) for item, point, each in zip(ids, batch, whole, strict=True)]
            )


def of_a_collection(encoder: Encoder, count: int, folder: Path) -> None:
    """Items of an index, judged again where they are stored, and written where the verdict changed."""
    settings = Settings(data=folder / "data", workers=0, optimize_after=10**9)
    with open_store(settings) as store:
        store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        collection, judge = put(store, encoder, settings, policy(encoder, 12))
        started = time.perf_counter()
        fill_judged(collection, judge, count, encoder.dimension)
        print(f"| {count:,} items written, judged | {count / (time.perf_counter() - started):,.0f} items/s | | |")
        started = time.perf_counter()
        assert open_columns(collection) is not None
        seconds = time.perf_counter() - started
        print(f"| copied in columns, once | {count / seconds:,.0f} items/s | | |", flush=True)
        originals, trail = Originals.of(settings), Trail(settings.data, "media")

        def report(what: str, work: Iterable[Judged]) -> None:
            before, most, done = anonymous_mb(), 0.0, Judged()
            started, busy = time.perf_counter(), time.process_time()
            for some in work:
                done.add(some)
                most = max(most, anonymous_mb() - before)
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            print(
                f"| {what}: {done.changed:,} written | {count / seconds:,.0f} items/s | {busy * 1e6 / count:.1f} CPU "
                f"seconds a million | {most:.0f} MB more, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} "
                "MB at most with pages |",
                flush=True,
            )

        def again(judge: ItemJudge) -> Iterable[Judged]:
            return rescan(collection, judge, settings=settings, originals=originals, trail=trail)

        report("rescan, nothing changed", again(judge))
        report("again", again(judge))
        lines = policy(encoder, 12).model_dump(mode="json")
        likely = [each["threshold"] for each in lines["categories"]]
        lines["categories"][0]["threshold"] = likely[0] * 1.02
        collection, judge = put(store, encoder, settings, Policy.model_validate(lines))
        report("rescan, one threshold moved", again(judge))
        started = time.perf_counter()
        run = dry_run(collection, judge, limit=min(count, MOST_ITEMS))
        seconds = time.perf_counter() - started
        print(f"| dry run of {run.judged:,} | {run.judged / seconds:,.0f} items/s | | |", flush=True)
        some = [each for _, ids in zip(range(10), collection.ids(1000), strict=False) for each in ids]
        started = time.perf_counter()
        done = judge_stored(collection, judge, some, settings=settings, originals=originals, trail=trail)
        seconds = time.perf_counter() - started
        assert done.changed == 0
        print(f"| item by item, {len(some):,} of them | {len(some) / seconds:,.0f} items/s | | |", flush=True)
        originals.close()


def main() -> None:
    """Run and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--stored", type=int, default=100_000)
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        encoder = load_encoder(Settings(data=Path(folder) / "none"))
        of_vectors(encoder, options.count, Path(folder))
        of_a_collection(encoder, options.stored, Path(folder))


if __name__ == "__main__":
    main()
