"""The GPU check goes on after parts that fail or hang, and says which they were. Its parts run on a CPU as well."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def check_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_check

    return gpu_check


def arguments(tmp_path: Path, **changes: object) -> argparse.Namespace:
    values = {"device": "cuda", "quick": True, "json": tmp_path / "result.json", "time_limit": 60.0}
    return argparse.Namespace(**(values | changes))


def test_a_part_that_hangs_is_killed_and_one_that_dies_is_named(
    check_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = {
        "hangs": "import time; print('waiting', flush=True); time.sleep(60)",
        "dies": "import sys; print('out of memory', flush=True); sys.exit(1)",
        "works": 'import sys; open(sys.argv[1], \'w\').write(\'{"status": "passed", "figures": {"ms": 1.5}}\')',
    }
    monkeypatch.setattr(check_module, "PARTS", {name: check_module.Part("", 2.0) for name in scripts})
    monkeypatch.setattr(
        check_module, "part_command",
        lambda name, work, _: [sys.executable, "-c", scripts[name], str(work / f"{name}.json")],
    )  # fmt: skip
    result = check_module.check(list(scripts), tmp_path, arguments(tmp_path))
    parts = result["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "hangs": "too slow", "dies": "failed", "works": "passed",
    }  # fmt: skip
    assert "killed after 2 s; last line: waiting" in parts["hangs"]["reason"]
    assert "out of memory" in parts["dies"]["reason"]
    assert (result["passed"], result["failed"]) == (False, ["hangs", "dies"])
    assert json.loads((tmp_path / "result.json").read_text())["parts"].keys() == parts.keys()


def test_parts_for_which_no_time_is_left_count_as_failed(check_module: ModuleType, tmp_path: Path) -> None:
    result = check_module.check(["attention"], tmp_path, arguments(tmp_path, time_limit=0.0))
    assert result["parts"]["attention"] == {"status": "left out", "reason": "no time left"}
    assert result["failed"] == ["attention"]


def test_a_device_is_known_by_its_name(check_module: ModuleType) -> None:
    from gpu_parts.parts import nominal_peak

    assert nominal_peak("NVIDIA H200") == 989.0
    assert nominal_peak("NVIDIA A100-SXM4-80GB") == 312.0
    assert nominal_peak("Tesla T4") is None


def test_the_limits_of_the_parts_that_matter_most_fit_the_whole(check_module: ModuleType) -> None:
    limits = [part.limit_s for part in check_module.PARTS.values()]
    assert check_module.TIME_LIMIT_S == 480
    assert sum(limits[:6]) <= check_module.TIME_LIMIT_S


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    parts = "machine,train_tiny,full_size,attention,acting,copies,full_size_compiled"  # mini takes another 20 s
    done = subprocess.run(
        ["bash", "scripts/gpu_check.sh", "--device", "cpu", "--quick", "--only", parts, "--json", str(result)],
        cwd=ROOT, capture_output=True, text=True, timeout=800, check=False,
        env=os.environ | {"GPU_CHECK_PYTHON": sys.executable},  # `python` on PATH may be another one
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(result.read_text())
    assert (content["passed"], content["failed"]) == (True, [])
    status = {name: part["status"] for name, part in content["parts"].items()}
    assert status == {**dict.fromkeys(parts.split(","), "passed"), "full_size_compiled": "left out"}
    figures = {name: part.get("figures", {}) for name, part in content["parts"].items()}
    assert len(figures["train_tiny"]["losses_bf16"]) == 4
    assert figures["train_tiny"]["first"] < 0.03
    assert figures["full_size"]["tflops"] > 0
    assert figures["attention"]["math/flash"] > 0
    assert 0 < figures["acting"]["largest_difference"] < 0.1


def test_a_python_without_our_packages_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: without site-packages
    other.chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/gpu_check.sh", "--device", "cpu", "--json", str(tmp_path / "result.json")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"GPU_CHECK_PYTHON": str(other)},
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{other} lacks torch or psutil" in done.stderr
    assert not (tmp_path / "result.json").exists()
