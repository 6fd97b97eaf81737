"""Opening and reading datasets of 10^5 to 10^8 rows: seconds and memory of one rank.

    python benchmarks/scale.py --json scale.json          # 10^5 to 10^8 rows of questions; needs 11 GB of disk
    python benchmarks/scale.py --quick                    # 10^5 and 10^6

The rows are synthetic and lie in the mapped tables only: no picture is made. Each size is measured in a fresh process,
once its files are in the page cache as far as they fit. Seconds are of CPU, since other work delays the rest. `open`
is `open_mixture` and the order, which a rank does once; `seek` the rows of the first position of another epoch far
away; `batch` the table part of a batch of 8 (rows, keys, texts). Memory is that of the process alone (RssAnon) above
that after the imports; mapped pages are shared by the ranks of a node.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.reporting import report, row
from pokevla.data.tables.opening import TWINS
from pokevla.data.tables.rows import SHARD_STARTS, SPLITS, batch_rows
from pokevla.data.tables.twin import Header, write_twin
from pokevla.files.checksums import with_checksum
from pokevla.recipe.checking.datasets import SAMPLES_NAME

SHARD_ROWS = 4096
BATCH = 8
LIMIT_S, LIMIT_MIB = 1.0, 200.0
"""What opening 10^8 rows may take."""


def write_rows(root: Path, num_rows: int) -> None:
    """A dataset directory whose mapped table has `num_rows` questions; one in 97 is of split `val`."""
    checksum = "0" * 16
    starts = np.append(np.arange(0, num_rows, SHARD_ROWS), num_rows)
    size = batch_rows(num_rows)
    header = Header({SAMPLES_NAME: checksum}, num_rows, size, {SPLITS: ["train", "val"]}, {SHARD_STARTS: starts})
    write_twin(root / TWINS[SAMPLES_NAME], header, _batch(0, 1).schema, _batches(num_rows, size))
    names = [f"synthetic-{number:06d}.tar" for number in range(len(starts) - 1)]
    info = {
        "schema_version": 1,
        "kind": "vlm",
        "fingerprint": f"synthetic {num_rows}",
        "num_samples": num_rows,
        "fields": ["json"],
        "shards": {name: {"samples": SHARD_ROWS, "size_bytes": 0, "index_xxh64": checksum} for name in names},
        "statistics": None,
        "tables": [{"name": SAMPLES_NAME, "size": 0, "xxh64": checksum}],
    }
    (root / "dataset.json").write_text(json.dumps(with_checksum(info)), encoding="utf-8")


def _batches(num_rows: int, size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, num_rows, size):
        yield _batch(start, min(size, num_rows - start))


def _batch(start: int, count: int) -> pa.RecordBatch:
    numbers = np.arange(start, start + count)
    digits = np.char.zfill(numbers.astype("U9"), 9)
    return pa.record_batch(
        {
            "key": pa.array(np.char.add("synthetic-", digits), pa.large_string()),
            "question": pa.array(np.char.add("What is in picture ", digits), pa.large_string()),
            "answer": pa.array(np.char.add("Nothing but noise ", digits), pa.large_string()),
            "width": pa.array(np.full(count, 224, dtype=np.int32)),
            "split": pa.array((numbers % 97 == 0).astype(np.int16)),
        }
    )


def measure(root: Path) -> dict[str, float]:
    """Seconds of CPU and MiB of private memory of a rank that opens the dataset and reads batches."""
    from pokevla.data.mixture import open_mixture
    from pokevla.recipe.sections import DataConfig

    before = _own_kib()
    config = DataConfig.model_validate({"datasets": [{"path": str(root)}]})
    figures: dict[str, float] = {}
    begun, begun_cpu = time.perf_counter(), time.process_time()
    mixture = open_mixture(config, "vlm")
    order = mixture.order(7)
    figures["open_s"], figures["open_cpu_s"] = time.perf_counter() - begun, time.process_time() - begun_cpu
    figures["open_mib"] = (_own_kib() - before) / 1024
    table = mixture.datasets[0].rows

    def read(position: int) -> None:
        datasets, places, _ = order.samples_at(np.arange(position, position + BATCH))
        for number in mixture.rows_at(datasets, places).tolist():
            for column in ("key", "question", "answer"):
                table.text(column, number)
            table.shard_of(number)

    read(0)
    begun_cpu = time.process_time()
    order.samples_at(np.arange(BATCH) + 1000 * order.sizes[0] + 12_345)
    figures["seek_s"] = time.process_time() - begun_cpu
    begun_cpu = time.process_time()
    for step in range(200):
        read(step * BATCH)
    figures["batch_s"] = (time.process_time() - begun_cpu) / 200
    figures["end_mib"] = (_own_kib() - before) / 1024
    return figures


def _own_kib() -> int:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measured_apart(root: Path) -> dict[str, float]:
    """`measure` in a fresh process, the second time: then the files are in the page cache."""
    command = [sys.executable, __file__, "--measure", str(root)]
    runs = [subprocess.run(command, check=True, stdout=subprocess.PIPE) for _ in range(2)]
    return json.loads(runs[-1].stdout.splitlines()[-1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="up to 10^6 rows")
    parser.add_argument("--largest", type=int, default=8, help="power of ten of the largest dataset")
    parser.add_argument("--folder", type=Path, help="where the datasets are written; deleted afterwards")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))
        return
    rows = []
    for power in range(5, (6 if options.quick else options.largest) + 1):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_rows(Path(folder), 10**power)
            found = measured_apart(Path(folder))
        name = f"10^{power} rows"
        rows += [
            row(
                f"{name}/open",
                found["open_cpu_s"],
                "s",
                f"limit; wall {found['open_s']:.2f} s",
                LIMIT_S / found["open_cpu_s"],
                wall_s=found["open_s"],
            ),
            row(f"{name}/open_memory", found["open_mib"], "MiB", "limit", LIMIT_MIB / max(found["open_mib"], 0.1)),
            row(f"{name}/memory_after_200_batches", found["end_mib"], "MiB"),
            row(f"{name}/seek", found["seek_s"] * 1e3, "ms"),
            row(f"{name}/batch", found["batch_s"] * 1e6, "us"),
        ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
