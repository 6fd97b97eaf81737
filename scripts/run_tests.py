"""Runs all tests: first those that may run beside others, on all cores; then the rest, one by one.

    python scripts/run_tests.py [--part parallel|serial] [PYTEST ARGUMENT...]

The serial part runs even if the parallel part fails. The last line sums up both as `N passed, N failed`; errors count
as failures. pytest's own `-m` narrows both parts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

SERIAL = "alone or slurm"
"""Marks of the tests that measure how long other processes take, or start a cluster on this machine."""
# loadfile: module fixtures are built once; tests/conftest.py keeps some folders together too. In file order, so that
# the slow tests of tests/end_to_end and tests/integration come first.
DISTRIBUTED = ("--numprocesses=logical", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")
NO_TESTS = 5
"""pytest's exit code when nothing was selected."""


@dataclass
class Outcome:
    """Result of one part."""

    exit_code: int
    passed: int = 0
    failed: list[str] = field(default_factory=list)


def run_part(part: str, marks: str, arguments: list[str]) -> Outcome:
    """Run one part with pytest, whose output goes to ours."""
    selection = SERIAL if part == "serial" else f"not ({SERIAL})"
    if marks:
        selection = f"({selection}) and ({marks})"
    options = [*arguments, "--numprocesses=0"] if part == "serial" else [*DISTRIBUTED, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", *options, "-m", selection, f"--junit-xml={report}"]
        process = subprocess.Popen(command)
        try:
            exit_code = process.wait()
        except KeyboardInterrupt:  # pytest has received it as well, and stops what its fixtures have started
            process.wait()
            raise
        outcome = read_report(report, exit_code)
    if exit_code not in (0, NO_TESTS) and not outcome.failed:
        outcome.failed.append(f"{part} part: pytest ended with exit code {exit_code}")
    return outcome


def read_report(report: Path, exit_code: int) -> Outcome:
    """Count the results in a JUnit report; none are known if pytest has not written one."""
    outcome = Outcome(exit_code)
    if report.is_file():
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                outcome.failed.append(f"{case.get('classname')}::{case.get('name')}")
            elif case.find("skipped") is None:
                outcome.passed += 1
    return outcome


def main() -> int:
    """Run the parts, print the summary; pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--part", choices=("parallel", "serial"), help="run this part only")
    parser.add_argument("-m", dest="marks", default="", help="marks, as for pytest")
    known, arguments = parser.parse_known_args()
    parts = [known.part] if known.part else ["parallel", "serial"]
    outcomes = [run_part(part, known.marks, arguments) for part in parts]
    failed = [name for outcome in outcomes for name in outcome.failed]
    print(*("", *(f"failed: {name}" for name in failed)), sep="\n")  # pytest may have ended in the middle of a line
    print(f"{sum(outcome.passed for outcome in outcomes)} passed, {len(failed)} failed", flush=True)
    codes = [outcome.exit_code for outcome in outcomes]
    bad = [code for code in codes if code not in (0, NO_TESTS)]
    return bad[0] if bad else min(codes)


if __name__ == "__main__":
    sys.exit(main())
