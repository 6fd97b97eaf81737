"""Memory of a conversion does not grow with the number of rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.twin.make import SOURCES, write_source
from benchmarks.twin.plan import TwinSettings

ROOT = Path(__file__).resolve().parents[4]
_CONVERT = """
import sys
from pathlib import Path
from benchmarks.process_tree import high_water_kib
from pokevla.cli.main import run
code = run(["data", "convert", *sys.argv[1:], "--workers", "0", "--max-rejected", "1"])
print(code, high_water_kib())
"""
_READ = """
import sys
from pathlib import Path
from benchmarks.process_tree import high_water_kib
from pokevla.data.curation.row_files import RowReader, survey_file
path = Path(sys.argv[1])
with RowReader() as reader:
    count = sum(1 for chunk in survey_file(path).chunks for _ in reader.rows(path, chunk))
print(count, high_water_kib())
"""


def peak_mib(name: str, source: Path, out: Path) -> float:
    """Largest memory of a process that converts a source."""
    command = [sys.executable, "-c", _CONVERT, name, str(source), str(out)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300)
    code, kib = map(int, done.stdout.split()[-2:])
    assert code == 0
    return kib / 1024


def test_a_list_ten_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    peaks, sizes = [], []
    for rows in (400, 4_000):
        root = tmp_path / str(rows)
        write_source("llava", root, TwinSettings(rows=rows, pictures=8, side=64))
        source = root / SOURCES["llava"].folder
        path = source / "llava_v1_5_mix665k.json"
        # Rows of 16 kB: the list is what would fill the memory, as in the published set.
        note = f'"note": "{"x" * 16_000}", "conversations"'
        path.write_text(path.read_text().replace('"conversations"', note))
        sizes.append(path.stat().st_size / 2**20)
        peaks.append(peak_mib("llava", source, root / "out"))
    assert sizes[1] - sizes[0] > 50
    assert peaks[1] - peaks[0] < 25, (peaks, sizes)


def test_a_large_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    peaks = []
    for rows in (1_500, 12_000):
        pictures = [number.to_bytes(4) * 2_500 for number in range(rows)]  # 10 kB that differ in every row
        pq.write_table(pa.table({"image": pictures}), path, row_group_size=rows, compression="none")
        done = subprocess.run([sys.executable, "-c", _READ, str(path)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        count, kib = map(int, done.stdout.split())
        assert count == rows
        peaks.append(kib / 1024)
    assert path.stat().st_size > 100 << 20
    assert peaks[1] - peaks[0] < 40, peaks
