"""The parts of `benchmarks/cache_storm.py`, `cache_gain.py` and `data_wait.py` that decide what they report."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks.cache_gain import encoding_bytes, flops_rows, memory_rows, step_rows
from benchmarks.live_bytes import peak_bytes

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def data_wait(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import data_wait

    return data_wait


def test_the_storm_kills_as_often_as_it_is_told_and_compares_every_file(tmp_path: Path) -> None:
    result = tmp_path / "storm.json"
    words = [sys.executable, str(ROOT / "benchmarks" / "cache_storm.py"), "--kills", "2", "--samples", "300"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*words, "--json", str(result)], env=environment, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row["value"] for row in json.loads(result.read_text())["rows"]}
    assert rows["kills"] == 2
    assert rows["starts"] >= 4
    assert (rows["files"], rows["differences"]) == (2 + 2 * 6, 0), "manifest, marker, and two files of each shard"


def test_the_storm_sees_a_changed_byte(tmp_path: Path) -> None:
    from benchmarks.cache_storm import files

    for name, content in (("one", b"x"), ("other", b"y")):
        (tmp_path / name / "f" / "shards").mkdir(parents=True)
        (tmp_path / name / "f" / "shards" / "a.tar").write_bytes(content)
    assert files(tmp_path / "one") != files(tmp_path / "other")
    assert set(files(tmp_path / "one")) == {"shards/a.tar"}


def test_tensors_count_as_long_as_they_live() -> None:
    def two_at_a_time() -> None:
        value = torch.zeros(250, device="meta")  # 1000 bytes
        for _ in range(5):
            value = value + 1  # the old one lives until the new one is there
        value.view(10, 25).transpose(0, 1)  # no memory of their own

    def all_kept() -> list[torch.Tensor]:
        return [torch.zeros(250, device="meta") for _ in range(5)]

    assert peak_bytes(two_at_a_time) == 2000
    assert peak_bytes(all_kept) == 5000


def test_encoding_takes_more_than_its_images_and_its_largest_tensor() -> None:
    images = 8 * 2 * 3 * 4 * 128**2

    assert images < encoding_bytes("sam", "mini") < 100 * images


def test_the_gain_by_operations_is_that_of_the_plan() -> None:
    rows = {row["name"]: row for row in flops_rows()}

    assert rows["flops_pocket/sam_vit_b"]["ratio"] == pytest.approx(1 + 1.944 / 2.958, abs=0.01)
    assert rows["flops_pocket/sam_vit_h_vggt"]["ratio"] == pytest.approx(1 + 18.39 / 2.958, abs=0.02)
    assert {row["name"]: round(row["value"], 1) for row in memory_rows(with_activations=False)} == {
        "memory_pocket/sam_vit_b": 0.3,
        "memory_pocket/sam_vit_h": 2.4,
        "memory_pocket/sam_vit_b_vggt": 3.7,
        "memory_pocket/sam_vit_h_vggt": 5.8,
    }


def test_steps_with_a_cache_cost_less_and_lose_the_same() -> None:
    threads = torch.get_num_threads()
    try:
        step, loss = step_rows(samples=2, rounds=3)
    finally:
        torch.set_num_threads(threads)

    assert step["name"] == "step_mini/live"
    assert step["ratio"] > 1
    assert 0 < loss["value"] < 0.02


def test_a_slow_disk_delivers_what_it_is_told(tmp_path: Path, data_wait: ModuleType) -> None:
    path = tmp_path / "file"
    path.write_bytes(random.Random(0).randbytes(60_000))
    disk = data_wait.SlowDisk(100_000.0, os.preadv)
    descriptor = os.open(path, os.O_RDONLY)
    buffer = bytearray(60_000)
    begun = time.monotonic()
    try:
        counts = [
            disk.preadv(descriptor, [memoryview(buffer)[start : start + 10_000]], start)
            for start in range(0, 60_000, 10_000)
        ]
    finally:
        os.close(descriptor)

    assert counts == [10_000] * 6
    assert bytes(buffer) == path.read_bytes()
    assert time.monotonic() - begun >= 0.6 - data_wait.BURST_S
    assert disk.total_bytes == 60_000
