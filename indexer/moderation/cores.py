"""Blocks of rows over the cores, a thread for each, while BLAS keeps to one.

BLAS' own threads wait for each other by spinning, for a product as small as a block's longer than they reckon: judging
a million vectors took 11 CPU seconds with them, and 4 without.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits


def over_blocks(work: Callable[[slice], None], count: int, block: int, threads: int) -> None:
    """Call `work` for every block of `count` rows; the first error is raised when all have ended.

    BLAS' limit is the whole process'. Of several callers at once the first sets and lifts it; the others may be slower.
    """
    rows = [slice(begin, min(begin + block, count)) for begin in range(0, count, block)]
    if len(rows) <= 1 or threads <= 1:
        for some in rows:
            work(some)
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads, thread_name_prefix="judge") as pool:
        for _ in pool.map(work, rows):
            pass
