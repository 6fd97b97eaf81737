"""Peak memory of a process and all its descendants, sampled from outside."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

INTERVAL_S = 2.0  # reading smaps_rollup of a 2 GB process takes about 20 ms, and locks its memory map
GIB = 1024**3


class MemorySampler:
    """Context manager: samples the tree under `pid` in a thread; `peak_gib` is the largest sum seen.

    It counts the proportional set size if the kernel provides it (a page shared by four ranks counts a quarter for
    each, so the sum is what the machine really holds), otherwise the resident size.
    """

    def __init__(self, pid: int, interval_s: float = INTERVAL_S) -> None:
        self._pid = pid
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
        self.peak_gib = 0.0

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.peak_gib = max(self.peak_gib, tree_bytes(self._pid) / GIB)
            if self._stop.wait(self._interval_s):
                return


def tree_bytes(pid: int) -> int:
    """Memory of `pid` and its descendants in bytes; 0 when it is gone."""
    import psutil

    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for process in processes:
        try:
            total += _pss_bytes(process.pid) or process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # ended in the meantime
    return total


def _pss_bytes(pid: int) -> int | None:
    """Proportional set size from Linux's smaps_rollup; None where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None
