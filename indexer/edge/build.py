"""The optimizing child, `python -m indexer.edge.build FOLDER SIZE DISTANCE`: optimizes a shard, dies with its parent.

It runs at the lowest priority and with one thread for the graph, so that searches keep the machine.
"""

import os
import signal
import sys

import qdrant_edge as edge

from indexer.edge.wire import distance_of
from indexer.lifeline import follow_parent

_SEGMENT_KB = 1_000
"""Segments of more than this are indexed; smaller ones are scanned as fast."""
SCANNED = 60_000
"""Points that a filter may pass and still be scanned by their int8 vectors: 2 to 3 ms at 512 dimensions, and exact.

Where more pass, but a minority, searches go through the graph by ACORN (`wire.search_params`). The usual alternative,
`payload_m` further links for each payload index, took more than ten times as long to build with 16 of them.
"""
M, EF_CONSTRUCT = 16, 128


def scanned_kb(size: int) -> int:
    """`SCANNED` as the engine counts it: in KB of float vectors."""
    return SCANNED * size * 4 // 1024


def main() -> None:
    """Optimize: one segment, int8 beside the floats, and a graph over them."""
    # SIGKILL: nothing here is worth finishing, and no handler could run while the engine works.
    follow_parent(lambda: os._exit(1), death_signal=signal.SIGKILL)
    os.nice(19)
    folder, size, distance = sys.argv[1:]
    config = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(int(size), distance_of(distance)),
        hnsw_config=edge.HnswIndexConfig(M, EF_CONSTRUCT, scanned_kb(int(size)), max_indexing_threads=1, payload_m=0),
        # Mapped, not copied into memory: loading the generation, while searches wait, takes a third of the time.
        quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Cold),
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


if __name__ == "__main__":
    main()
