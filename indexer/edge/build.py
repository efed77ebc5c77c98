"""The optimizing child, `python -m indexer.edge.build FOLDER SIZE DISTANCE`: optimizes a shard, dies with its parent.

It runs at the lowest priority and with one thread for the graph, so that searches keep the machine.
"""

import ctypes
import os
import signal
import sys
import threading

import qdrant_edge as edge

from indexer.edge.wire import distance_of

_PR_SET_PDEATHSIG = 1
_SEGMENT_KB = 1_000
"""Segments of more than this are indexed; smaller ones are scanned as fast."""


def main() -> None:
    """Optimize: one segment, int8 beside the floats, and a graph over them."""
    _die_with_parent()
    os.nice(19)
    folder, size, distance = sys.argv[1:]
    config = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(int(size), distance_of(distance)),
        hnsw_config=edge.HnswIndexConfig(16, 128, 1_000, max_indexing_threads=1),
        quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, always_ram=True),
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1,
            indexing_threshold=_SEGMENT_KB,
            deleted_threshold=0.1,
            vacuum_min_vector_number=100,
        ),
        max_search_threads=1,
    )
    shard = edge.EdgeShard.load(folder, config)
    shard.optimize()
    shard.flush()
    shard.close()


def _die_with_parent() -> None:
    """End however the parent ends: the kernel tells (Linux), and the standard input comes to its end (elsewhere)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
