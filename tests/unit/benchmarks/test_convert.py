"""The benchmark of conversions: what it measures is what a command did."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import convert
from benchmarks.convert import FULL, READERS, convert_twin, measure_speed, read_rows_of, sum_questions
from benchmarks.process_tree import run_measured
from benchmarks.twin.make import SOURCES, write_source
from benchmarks.twin.plan import TwinSettings

_HOLDS = "b = b'x' * int({} * 2**20); import time; time.sleep(0.5)"


def test_memory_of_all_processes_of_a_command_counts() -> None:
    alone = run_measured([sys.executable, "-c", _HOLDS.format(120)])
    child = (
        f"import subprocess, sys; {_HOLDS.format(60)}; subprocess.run([sys.executable, '-c', {_HOLDS.format(60)!r}])"
    )
    both = run_measured([sys.executable, "-c", child])
    assert 120 < alone.peak_mib < 160
    assert 120 < both.peak_mib < 180


def test_processor_time_of_a_child_counts() -> None:
    busy = "sum(range(10_000_000))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    assert run_measured([sys.executable, "-c", child]).cpu_s > run_measured([sys.executable, "-c", "0"]).cpu_s


def test_a_command_that_fails_ends_the_benchmark(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        run_measured([sys.executable, "-c", "import sys; print('no disk'); sys.exit(3)"])
    assert "no disk" in capfd.readouterr().err


def test_every_source_has_a_reader_and_a_published_size() -> None:
    assert list(SOURCES) == list(FULL) == list(READERS)


@pytest.mark.parametrize("name", list(SOURCES))
def test_all_rows_of_a_source_are_read_by_both_readers(name: str, tmp_path: Path) -> None:
    if name == "cosmos":
        pytest.importorskip("av")
    write_source(name, tmp_path, TwinSettings(rows=40, pictures=4, side=64))
    for how in ("ours", "plain"):
        assert read_rows_of(name, tmp_path / SOURCES[name].folder, how)["rows"] == 40


def test_a_conversion_gives_rates_and_the_full_set(tmp_path: Path) -> None:
    options = argparse.Namespace(folder=tmp_path, workers=0)
    settings = TwinSettings(pictures=4, side=64)
    rate, hours, size = measure_speed("refspatial", [20, 120], settings, options)
    assert [each["name"].rsplit("/", 1)[1] for each in (rate, hours, size)] == ["rows_per_s", "full_hours", "full_gib"]
    planted = convert_twin("refspatial", tmp_path / "one", TwinSettings(rows=120, pictures=4, side=64), 0).planted
    full_rows = FULL["refspatial"][0] * planted.rows / sum_questions(planted)
    assert hours["value"] == pytest.approx(full_rows / rate["value"] / 3600)
    assert not [path for path in tmp_path.iterdir() if path.name != "one"]


def test_what_was_measured_is_reported_when_a_source_fails_even_if_that_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> list[dict[str, Any]]:
        raise RuntimeError("out of disk")

    monkeypatch.setattr(convert, "measure_memory", fail)
    out = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["convert.py", "--folder", str(tmp_path / "new"), "--json", str(out)])
    with pytest.raises(RuntimeError, match="out of disk"):
        convert.main()
    assert json.loads(out.read_text(encoding="utf-8"))["rows"] == []
    assert (tmp_path / "new").is_dir()
