"""All sources of question sets, from damaged files to a mixture with its report: killed, and with other processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pokevla.data.dataset import CHECKS_NAME
from pokevla.data.mixing.summary import REPORT_NAME, SUMMARY_NAME

LONGEST_S = 900


def test_the_mixture_of_all_sources_does_not_depend_on_kills_and_processes(tmp_path: Path, repository: Path) -> None:
    work, found = tmp_path / "work", tmp_path / "curation.json"
    command = [sys.executable, "benchmarks/curation.py", "--rows", "12", "--kills", "2"]
    done = subprocess.run(
        [*command, "--work", str(work), "--json", str(found)],
        cwd=repository, capture_output=True, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    again, killed = json.loads(found.read_text())["rows"]
    assert (again["name"], again["value"]) == ("build/again", 0)
    assert (killed["name"], killed["value"]) == ("build/killed", 0)
    assert again["files"] > 12
    assert killed["kills"] > 0

    mixture = work / "calm/mixed/vlm"
    page = (mixture / REPORT_NAME).read_text()
    summary = json.loads((mixture / SUMMARY_NAME).read_text())
    assert len(summary["inputs"]) == 10
    assert all(each["selected"] > 0 for each in summary["categories"])
    for name, planted in json.loads((work / "twin/twin.json").read_text())["sources"].items():
        checks = json.loads((work / "calm/sources" / name / CHECKS_NAME).read_text())
        assert (checks["codes"], checks["records"]) == (planted["left_out"], planted["records"]), name
        for code in planted["left_out"]:
            assert code in page
