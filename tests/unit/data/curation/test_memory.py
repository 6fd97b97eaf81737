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


def peak_mib(name: str, source: Path, out: Path, *options: str) -> float:
    """Largest memory of a process that converts a source."""
    command = [sys.executable, "-c", _CONVERT, name, str(source), str(out), *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300)
    code, kib = map(int, done.stdout.split()[-2:])
    assert code == 0
    return kib / 1024


def test_a_list_ten_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    peaks, sizes = [], []
    for rows in (1_500, 15_000):
        root = tmp_path / str(rows)
        write_source("llava", root, TwinSettings(rows=rows, pictures=8, side=64))
        source = root / SOURCES["llava"].folder
        path = source / "llava_v1_5_mix665k.json"
        # Rows of 4 kB: conversations of LLaVA are longer than the twin's.
        note = f'"note": "{"x" * 4000}", "conversations"'
        path.write_text(path.read_text().replace('"conversations"', note))
        sizes.append(path.stat().st_size / 2**20)
        peaks.append(peak_mib("llava", source, root / "out"))
    assert sizes[1] - sizes[0] > 50
    assert peaks[1] - peaks[0] < 25, (peaks, sizes)


def test_a_large_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    write_source("molmoact", tmp_path / "twin", TwinSettings(rows=400, pictures=4, side=64))
    (path,) = tmp_path.glob("twin/**/*.parquet")
    table = pq.read_table(path)
    peaks = []
    for copies in (1, 9):
        many = pa.concat_tables([table] * copies)
        pictures = many["image"].to_pylist()
        for number, picture in enumerate(pictures):
            picture["bytes"] += number.to_bytes(4) * 8_000  # 32 kB that differ in every row
        column = pa.array(pictures, many.schema.field("image").type)
        root = tmp_path / f"copies{copies}"
        root.mkdir()
        large = many.set_column(0, many.schema.field("image"), column)
        pq.write_table(large, root / "train.parquet", row_group_size=10_000, compression="none")
        peaks.append(peak_mib("molmoact", root, tmp_path / f"out{copies}", "--max-side", "32"))
    assert (tmp_path / "copies9/train.parquet").stat().st_size > 100 << 20
    assert peaks[1] - peaks[0] < 40, peaks
