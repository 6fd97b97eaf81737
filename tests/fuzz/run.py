"""Fuzzes every parser of PokeVLA with mutated inputs.

    python tests/fuzz/run.py --minutes 20 [--seed N] [--only TARGET ...] [--out FOLDER]

An input may give a value or a named error. Anything else is a finding: another exception, a crash, more than 5 s of
processor time, more than 1 GiB of memory. Findings are saved in their smallest form, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.search import Finding, Search, Tally
from tests.fuzz.targets import TARGETS

SLICE_S = 5.0
"""Time for one parser before the next one has its turn."""


def fuzz(names: list[str], seconds: float, seed: int, max_inputs: float = math.inf) -> dict[str, Tally]:
    """Fuzz the parsers in turns for `seconds` in all, or until each has had `max_inputs`; every parser has at least one
    turn. The inputs of a parser follow from seed and number, so a limit that is reached makes the result repeatable.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="pokevla-fuzz-") as folder:
        searches = [Search(TARGETS[name], Path(folder) / name, seed * 1_000_000) for name in names]
        turn_s = min(SLICE_S, seconds / len(searches))
        try:
            for search in searches:
                search.check_seeds()
            while True:
                for search in searches:
                    stop = time.monotonic() + turn_s
                    if search.tally.count < max_inputs:
                        search.run(
                            lambda stop=stop, tally=search.tally: time.monotonic() >= stop or tally.count >= max_inputs
                        )
                if time.monotonic() >= end or all(search.tally.count >= max_inputs for search in searches):
                    return {search.target.name: search.tally for search in searches}
        finally:
            for search in searches:
                search.close()


def save(finding: Finding, folder: Path) -> Path:
    """Write a finding's input, and beside it how it was found and what happened."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.target}-{hashlib.sha256(finding.content).hexdigest()[:10]}.bin"
    path.write_bytes(finding.content)
    text = f"{finding.target}, seed {finding.seed}: {finding.outcome.what}\n\n{finding.outcome.details}\n"
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def report(tallies: dict[str, Tally], out: Path) -> int:
    """Print inputs per parser and save findings. Returns the number of findings."""
    print(f"{'parser':<22}{'inputs':>10}{'values':>10}{'errors':>10}{'findings':>10}")
    for name, tally in tallies.items():
        print(f"{name:<22}{tally.count:>10}{tally.values:>10}{tally.named:>10}{len(tally.findings):>10}")
    findings = [finding for tally in tallies.values() for finding in tally.findings]
    total = sum(tally.count for tally in tallies.values())
    print(f"{total} inputs for {len(tallies)} parsers, {len(findings)} findings")
    for finding in findings:
        print(f"{finding.target}: {finding.outcome.what}: {save(finding, out)}")
    return len(findings)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="time for all parsers together")
    parser.add_argument("--seed", type=int, default=0, help="another seed tries other inputs")
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="folder for findings")
    arguments = parser.parse_args()
    tallies = fuzz(arguments.only or list(TARGETS), 60 * arguments.minutes, arguments.seed)
    return 1 if report(tallies, arguments.out) else 0


if __name__ == "__main__":
    sys.exit(main())
