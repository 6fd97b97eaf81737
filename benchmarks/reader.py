"""Reading cached features into a batch: our reader beside the physical limits and other formats.

    python benchmarks/reader.py --json reader.json
    PYTHONPATH=$PWD:FOLDER python benchmarks/reader.py      # FOLDER has litdata and mosaicml-streaming

CPU seconds of one thread, best of several rounds, all sides interleaved, files in the page cache. Each side puts every
record into the same ring of two batches at pages. `ours` checks every record (xxh3); `ours_first_read` has checked them
once before (`cache.checksums: first_read`). The other formats check nothing. A format whose package is not installed is
left out and named.

Rows: `read_SIZE/NAME` is our time against that of NAME, above 1 is better for us: against `preadv` (the system call
alone, into the same buffers) and `memcpy` (from memory) with checksums at the first read, against other formats with
checksums at every read. `read_SIZE/preadv_every_read` is `preadv` against our reader with all its checks.
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

AMORTISED = ("preadv", "memcpy")
"""References that check nothing and allocate nothing: ours is measured with checksums at the first read."""


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
        row(
            f"read_{size}/{name}",
            best["ours_first_read" if name in AMORTISED else "ours"],
            "us",
            f"{name} {value:.1f} us",
            value / best["ours_first_read" if name in AMORTISED else "ours"],
        )
        for name, value in best.items()
        if not name.startswith("ours")
    ]
    rows.append(
        row(f"read_{size}/preadv_every_read", best["ours"], "us", f"preadv {best['preadv']:.1f} us",
            best["preadv"] / best["ours"])
    )  # fmt: skip
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
    for size, count in counts.items():
        measured, absent = measure(size, count, rounds=2 if options.quick else 6)
        rows += measured
    report(rows, options.json)
    if absent:
        print("not installed:", ", ".join(absent))


if __name__ == "__main__":
    main()
