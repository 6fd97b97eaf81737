"""`pokevla data convert` on a synthetic twin of each published set: rows per second, and memory that must stay flat.

    python benchmarks/convert.py --json convert.json       # about two hours of CPU and 20 GB of disk
    python benchmarks/convert.py --quick                   # about ten minutes of CPU, 1 GB

Two runs of each source:

- `memory`: 10,000 and 100,000 rows with small pictures. `peak` is the sum of the high-water marks of all processes of
  the command; its ratio is that of many rows to few, and should be 1. `small_rows_per_s` are rows per CPU second of the
  command, start-up included; ratio many to few. `read` and `read_peak` compare reading alone (finding all rows, parsing
  each) with `json.load` of the same files, or for parquet with `read_table(...).to_pylist()`: CPU seconds and memory
  above that after the imports, ratio ours to plain.
- `speed`: 500 and 2,500 rows with pictures of the published size on a photograph. The difference of both runs is free
  of start-up. `rows_per_s` is for one core that does nothing else (CPU seconds); `full_hours` and `full_gib`
  extrapolate to the published number of rows (of RoboSpatial nothing is published: one million).

Pictures come from a pool (`--pictures`), so they are in the page cache: the time of a disk or network comes on top.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.process_tree import Cost, high_water_kib, run_measured
from benchmarks.reporting import report, row
from benchmarks.twin.make import SOURCES, write_source
from benchmarks.twin.plan import Planted, TwinSettings

SMALL_SIDE = 96
QUESTIONS = "questions"
FULL: dict[str, tuple[int, str]] = {
    "llava": (665_298, "rows"),
    "robopoint": (1_432_000, "rows, of which 665K are passed over"),
    "refspatial": (2_890_616, QUESTIONS),
    "refspatial-reasoning": (10_583_962, QUESTIONS),
    "roborefit": (50_800, "rows"),
    "robospatial": (1_000_000, "rows, none are published"),
    "hova-ego4d": (187_000, "rows"),
    "hova-epic100": (34_000, "rows"),
    "molmoact": (1_500_000, "rows"),
    "cosmos": (38_900, "rows"),
}
"""Published size, from the pages of the sets and their readers (docs/data.md). RefSpatial counts questions: 2D choice
and 3D vacant; 2D and 3D templates."""

READERS = {
    "llava": "llava:LLAVA",
    "robopoint": "robopoint:ROBOPOINT",
    "refspatial": "refspatial:REFSPATIAL",
    "refspatial-reasoning": "refspatial:REFSPATIAL_REASONING",
    "roborefit": "roborefit:ROBOREFIT",
    "robospatial": "robospatial:ROBOSPATIAL",
    "hova-ego4d": "hova:HOVA_EGO4D",
    "hova-epic100": "hova:HOVA_EPIC100",
    "molmoact": "molmoact:MOLMOACT",
    "cosmos": "cosmos:COSMOS",
}


@dataclass(frozen=True)
class Run:
    """One conversion."""

    planted: Planted
    cost: Cost
    source_bytes: int
    dataset_bytes: int


def convert_twin(name: str, folder: Path, settings: TwinSettings, workers: int) -> Run:
    """Write the twin of a source below `folder` and convert it with the command."""
    planted = write_source(name, folder / "twin", settings)
    source, out = folder / "twin" / SOURCES[name].folder, folder / "out"
    words = [sys.executable, "-m", "pokevla.cli.main", "data", "convert", name, str(source), str(out)]
    cost = run_measured([*words, "--workers", str(workers), "--max-rejected", "1"])
    checks = json.loads((out / "checks.json").read_text(encoding="utf-8"))
    if checks["records"] != planted.records:
        raise RuntimeError(f"{name}: {checks['records']} records instead of {planted.records}")
    return Run(planted, cost, _size(source), _size(out))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_memory(name: str, sizes: Sequence[int], settings: TwinSettings, options: Any) -> list[dict[str, Any]]:
    """Rows about memory: of conversions of several sizes, and of reading alone at the largest."""
    peaks, speeds, rows = [], [], []
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as text:
            folder = Path(text)
            run = convert_twin(name, folder, replace(settings, rows=count), options.workers)
            peaks.append(run.cost.peak_mib)
            speeds.append(run.planted.rows / run.cost.cpu_s)
            if count == sizes[-1]:
                rows += _reading_rows(name, folder / "twin" / SOURCES[name].folder, count)
    many, few = f"{sizes[-1]} rows", f"at {sizes[0]}"
    return [
        row(f"convert/{name}/peak", peaks[-1], "MiB", f"{many}; {peaks[0]:.0f} MiB {few}", peaks[-1] / peaks[0]),
        row(f"convert/{name}/small_rows_per_s", speeds[-1], "rows/s", f"{many}; {speeds[0]:.0f} {few}",
            speeds[-1] / speeds[0]),
        *rows,
    ]  # fmt: skip


def _reading_rows(name: str, source: Path, count: int) -> list[dict[str, Any]]:
    ours, plain = (_read_apart(name, source, how) for how in ("ours", "plain"))
    what = "read_table().to_pylist()" if name == "molmoact" else "json.load"
    return [
        row(f"convert/{name}/read", ours["cpu_s"], "s", f"{count} rows; {what} {plain['cpu_s']:.2f} s",
            ours["cpu_s"] / plain["cpu_s"]),
        row(f"convert/{name}/read_peak", ours["grown_mib"], "MiB", f"{what} {plain['grown_mib']:.0f} MiB",
            ours["grown_mib"] / max(plain["grown_mib"], 0.1)),
    ]  # fmt: skip


def _read_apart(name: str, source: Path, how: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--read", name, str(source), how]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def read_rows_of(name: str, source: Path, how: str) -> dict[str, float]:
    """Rows, CPU seconds and growth in MiB of reading all rows of a source in this process."""
    from pokevla.data.curation.row_files import read_rows, survey_file

    module, _, attribute = READERS[name].partition(":")
    reader = getattr(importlib.import_module(f"pokevla.data.curation.sources.{module}"), attribute)
    files = [file.path for file in reader.files(source)]

    def ours() -> int:
        return sum(1 for path in files for chunk in survey_file(path).chunks for _ in read_rows(path, chunk))

    def plain() -> int:
        import pyarrow.parquet as pq

        if name == "molmoact":
            return sum(map(len, [pq.read_table(path).to_pylist() for path in files]))  # all of them at once
        lists = [json.loads(path.read_bytes()) for path in files if path.is_file()]
        rows = [json.loads(path.read_bytes()) for file in files if file.is_dir() for path in file.glob("*.json")]
        return sum(map(len, lists)) + len(rows)

    reads: dict[str, Callable[[], int]] = {"ours": ours, "plain": plain}
    before, begun = high_water_kib(), time.process_time()
    rows = reads[how]()
    return {"rows": rows, "cpu_s": time.process_time() - begun, "grown_mib": (high_water_kib() - before) / 1024}


def measure_speed(name: str, sizes: Sequence[int], settings: TwinSettings, options: Any) -> list[dict[str, Any]]:
    """Rows about speed and the full set, from the difference between two sizes."""
    runs = []
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            runs.append(convert_twin(name, Path(folder), replace(settings, rows=count), options.workers))
    few, many = runs[0], runs[-1]
    rows = many.planted.rows - few.planted.rows
    seconds = max(many.cost.cpu_s - few.cost.cpu_s, 1e-9)
    bytes_per_row = (many.dataset_bytes - few.dataset_bytes) / rows
    full, what = FULL[name]
    full_rows = full * many.planted.rows / sum_questions(many.planted) if what == QUESTIONS else full
    sizes_text = f"{few.planted.rows} to {many.planted.rows} rows"
    return [
        row(f"convert/{name}/rows_per_s", rows / seconds, "rows/s", f"one core; {sizes_text}"),
        row(f"convert/{name}/full_hours", full_rows * seconds / rows / 3600, "h", f"one core, {full} {what}"),
        row(f"convert/{name}/full_gib", full_rows * bytes_per_row / 2**30, "GiB",
            f"{bytes_per_row / 1024:.1f} KiB for each row; twice that while it runs"),
    ]  # fmt: skip


def sum_questions(planted: Planted) -> int:
    """Questions of a twin."""
    return planted.records + planted.left_out.total()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 rows for memory, 60 and 300 for speed")
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--parts", nargs="+", choices=["memory", "speed"], default=["memory", "speed"])
    parser.add_argument("--rows", type=int, nargs=2, metavar=("FEW", "MANY"), help="of `memory`")
    parser.add_argument("--pictures", type=int, default=200, help="distinct pictures of each source")
    parser.add_argument("--workers", type=int, default=1, help="of the command")
    parser.add_argument(
        "--folder", type=Path, help="where twins and datasets are written, new or not; they are deleted afterwards"
    )
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        name, source, how = options.read
        print(json.dumps(read_rows_of(name, Path(source), how)))
        return
    sizes = options.rows or ([1_000, 10_000] if options.quick else [10_000, 100_000])
    speeds = [60, 300] if options.quick else [500, 2_500]
    small = TwinSettings(pictures=options.pictures, side=SMALL_SIDE)
    usual = TwinSettings(pictures=options.pictures, side=0, photos=True)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        for name in options.sources:
            if "memory" in options.parts:
                rows += measure_memory(name, sizes, small, options)
            if "speed" in options.parts:
                rows += measure_speed(name, speeds, usual, options)
            print(f"{name} done", file=sys.stderr, flush=True)
    finally:
        report(rows, options.json)  # of hours of measuring, nothing is lost by a source that fails


if __name__ == "__main__":
    main()
