"""Times alternatives side by side in one process: CPU seconds of this thread, best of several rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping


def best_seconds(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Best CPU seconds of each side. The sides take turns, so that all see the same caches, clock rate and neighbours.

    CPU seconds of the calling thread, because other processes share the cores; torch must run on one thread. The first
    round, which allocates, does not count.
    """
    best = dict.fromkeys(sides, float("inf"))
    gc.collect()
    for number in range(rounds + 1):
        for name, run in sides.items():
            begun = time.thread_time()
            run()
            seconds = time.thread_time() - begun
            if number:
                best[name] = min(best[name], seconds)
    return best
