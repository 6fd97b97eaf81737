"""Reading cached features into a batch: our reader beside the physical limits and other formats.

    python benchmarks/reader.py --json reader.json
    PYTHONPATH=$PWD:FOLDER python benchmarks/reader.py      # FOLDER has litdata, mosaicml-streaming, energon

CPU seconds of one thread, best of several rounds, all sides interleaved, files in the page cache. Each side puts every
record into the same ring of two batches at pages. `ours` checks every record (xxh3); `ours_first_read` has checked them
once before (`cache.checksums: first_read`). The other formats check nothing. A format whose package is not installed is
left out and named.

Rows: `read_SIZE/NAME` is the time of NAME over ours with checksums at the first read, above 1 is better for us:
`preadv` (the system call alone, into the same buffers), `memcpy` (from memory), and other formats, which check nothing.
`read_SIZE/NAME_every_read` is the same with checksums at every read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.readers.ours import LAYOUTS, Side, our_sides, random_records, write_cache
from benchmarks.readers.rivals import SIDES
from benchmarks.reporting import report, row


def best_seconds(sides: dict[str, Side], rounds: int) -> dict[str, float]:
    """Best CPU seconds of each side, all threads of the process counted; the sides take turns. The first round does not
    count."""
    best = dict.fromkeys(sides, float("inf"))
    for number in range(rounds + 1):
        for name, run in sides.items():
            begun = time.process_time()
            run()
            seconds = time.process_time() - begun
            if number:
                best[name] = min(best[name], seconds)
    return best


def measure(size: str, count: int, rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows of one record size, formats that are not installed)."""
    layout = LAYOUTS[size]
    records = random_records(layout, count)
    absent = []
    with tempfile.TemporaryDirectory() as folder:
        sides = our_sides(*write_cache(Path(folder), layout, records), layout)
        for name, build in SIDES.items():
            try:
                sides[name] = build(Path(folder, name), records)
            except ImportError as error:
                absent.append(f"{name} ({error})")
        best = {name: seconds / count * 1e6 for name, seconds in best_seconds(sides, rounds).items()}
    rows = [
        row(f"read_{size}/{name}{suffix}", best[ours], "us", f"{name} {value:.1f} us", value / best[ours])
        for ours, suffix in (("ours_first_read", ""), ("ours", "_every_read"))
        for name, value in best.items()
        if not name.startswith("ours")
    ]
    return rows, absent


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer records and rounds")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    counts = {"pocket": 24, "mini": 96} if options.quick else {"pocket": 96, "mini": 960}
    rows: list[dict[str, Any]] = []
    absent: list[str] = []
    for size, count in counts.items():
        measured, absent = measure(size, count, rounds=3 if options.quick else 16)
        rows += measured
    report(rows, options.json)
    if absent:
        print("not installed:", ", ".join(absent))


if __name__ == "__main__":
    main()
