"""`benchmarks/sequential_test.py` reports what it simulates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_report_has_false_findings_power_and_saved_trials(tmp_path: Path, tiny_run_env: dict[str, str]) -> None:
    command = [sys.executable, "benchmarks/sequential_test.py", "--comparisons", "60", "--max", "120", "--alpha", "0.2"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "report.json")], cwd=ROOT, env=tiny_run_env, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode == int(max(report["false_better"], report["false_none"]) > 0.2), done.stderr
    assert "McNemar of all" in done.stdout
    clear = next(row for row in report["rows"] if (row["agreement"], row["difference"]) == (0.8, 0.2))
    assert clear["better"] > 0.9
    assert clear["saved"] > 0.5
    assert clear["saved"] == 1 - clear["trials"] / 120
    assert any(row["name"] == "mixed tasks" for row in report["rows"])
