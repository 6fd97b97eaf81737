"""Runs all tests: on all cores those that may run beside others, and beside them those that need a Slurm, one by one;
then those that must have the machine for themselves.

    python scripts/run_tests.py [--part parallel|slurm|alone] [PYTEST ARGUMENT...]

Every part runs, even if another one fails. What the Slurm part prints comes when the parallel one has ended. The last
line sums up all parts as `N passed, N failed`; errors count as failures. pytest's own `-m` narrows every part.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO
from xml.etree import ElementTree

PARTS = {"parallel": "not (alone or slurm)", "slurm": "slurm", "alone": "alone and not slurm"}
"""Marks of the tests of each part. `alone`: they measure how long other processes take. `slurm`: they start a cluster
on this machine, and mostly wait for it."""
BESIDE = ("slurm",)
"""Parts that run beside the parallel one."""
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


@dataclass
class Running:
    """A part that has been started."""

    part: str
    process: subprocess.Popen[bytes]
    report: Path
    output: IO[bytes] | None
    """What it prints, if that is kept back."""

    def result(self) -> Outcome:
        """Wait for the end, and print what was kept back."""
        exit_code = self.process.wait()
        self.show()
        outcome = read_report(self.report, exit_code)
        if exit_code not in (0, NO_TESTS) and not outcome.failed:
            outcome.failed.append(f"{self.part} part: pytest ended with exit code {exit_code}")
        return outcome

    def show(self) -> None:
        """Print what was kept back, once."""
        if self.output is not None:
            self.output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(self.output.read())
            sys.stdout.flush()
            self.output = None


def start_part(part: str, marks: str, arguments: list[str], folder: Path, *, keep_back: bool) -> Running:
    """Start one part with pytest. Its output goes to ours, or is kept back until its result is asked for."""
    selection = f"({PARTS[part]}) and ({marks})" if marks else PARTS[part]
    options = [*DISTRIBUTED, *arguments] if part == "parallel" else [*arguments, "--numprocesses=0"]
    report = folder / f"{part}.xml"
    command = [sys.executable, "-m", "pytest", *options, "-m", selection, f"--junit-xml={report}"]
    output = (folder / f"{part}.log").open("w+b") if keep_back else None
    return Running(part, subprocess.Popen(command, stdout=output, stderr=output), report, output)


def run_parts(parts: list[str], marks: str, arguments: list[str]) -> list[Outcome]:
    """Run parts: those of `BESIDE` beside the parallel one, the others after it."""
    with tempfile.TemporaryDirectory() as name:
        is_beside = "parallel" in parts
        beside = [
            start_part(part, marks, arguments, Path(name), keep_back=True)
            for part in parts
            if is_beside and part in BESIDE
        ]
        outcomes = []
        try:
            for part in parts:
                running = next((each for each in beside if each.part == part), None)
                running = running or start_part(part, marks, arguments, Path(name), keep_back=False)
                outcomes.append(running.result())
        except (KeyboardInterrupt, SystemExit):  # pytest has received the signal as well, and stops what it has started
            for running in beside:
                running.process.wait()
                running.show()
            raise
    return outcomes


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


def end(number: int, _frame: FrameType | None) -> None:
    """Handler of SIGTERM, which ends a run that takes too long: what was kept back is still shown."""
    sys.exit(128 + number)


def main() -> int:
    """Run the parts, print the summary; pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--part", choices=PARTS, help="run this part only")
    parser.add_argument("-m", dest="marks", default="", help="marks, as for pytest")
    known, arguments = parser.parse_known_args()
    signal.signal(signal.SIGTERM, end)
    outcomes = run_parts([known.part] if known.part else list(PARTS), known.marks, arguments)
    failed = [name for outcome in outcomes for name in outcome.failed]
    print(*("", *(f"failed: {name}" for name in failed)), sep="\n")  # pytest may have ended in the middle of a line
    print(f"{sum(outcome.passed for outcome in outcomes)} passed, {len(failed)} failed", flush=True)
    codes = [outcome.exit_code for outcome in outcomes]
    bad = [code for code in codes if code not in (0, NO_TESTS)]
    return bad[0] if bad else min(codes)


if __name__ == "__main__":
    sys.exit(main())
