"""Measures the sequential comparison of two policies: false findings, power, and the trials that it saves.

    python benchmarks/sequential_test.py [--comparisons 10000] [--json PATH]

Each row simulates comparisons of two policies on the same trials. `better` is the share of comparisons that find one
of them better (for a true difference of 0 these are false), `none` the share that find no difference (false where the
true difference is as large as `--difference`), and `trials` the mean number of trials of each policy. The reference is
McNemar's exact test of all trials. In the rows `mixed tasks` policy A is better at half of the tasks and B at the other
half; trials are in the order of `mixed_order`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from pokevla.evaluation.statistics.paired import mcnemar_exact
from pokevla.evaluation.statistics.sequential import SequentialTest, mixed_order

DIFFERENCES = (0.0, 0.02, 0.05, 0.1, 0.2)
AGREEMENTS = (0.95, 0.9, 0.8, 0.6)
A_BETTER, B_BETTER, NO_DIFFERENCE = 1, 2, 3
TASKS = 10


def draw(rng: np.random.Generator, comparisons: int, trials: int, difference: float, agreement: float) -> np.ndarray:
    """Outcomes (comparisons, trials) int8: 1 if only A succeeds, -1 if only B does, 0 if they agree."""
    only_a = (1 - agreement + difference) / 2
    dice = rng.random((comparisons, trials), dtype=np.float32)
    return (dice < only_a).astype(np.int8) - ((dice >= only_a) & (dice < 1 - agreement)).astype(np.int8)


def draw_mixed(rng: np.random.Generator, comparisons: int, trials: int, agreement: float) -> np.ndarray:
    """The same for TASKS tasks: at each, all disagreements are successes of one policy, of A at every other task."""
    tasks = np.arange(trials) * TASKS // trials
    sign = np.where(tasks % 2, -1, 1).astype(np.int8)
    differs = rng.random((comparisons, trials), dtype=np.float32) < 1 - agreement
    paths = differs * sign
    for number in range(comparisons):
        paths[number] = paths[number, mixed_order(tasks.tolist(), number)]
    return paths


def fixed_power(paths: np.ndarray, alpha: float) -> float:
    """Share of comparisons that McNemar's exact test of all trials finds different."""
    counts, times = np.unique(np.stack([(paths > 0).sum(1), (paths < 0).sum(1)]), axis=1, return_counts=True)
    found = [mcnemar_exact(int(a), int(b)) <= alpha for a, b in counts.T]
    return float(np.average(found, weights=times))


def measure(name: str, test: SequentialTest, paths: np.ndarray, difference: float, agreement: float) -> dict[str, Any]:
    """One row of the report."""
    lengths, verdicts, _ = test.judge_paths(paths, ended=True)
    return {
        "name": name,
        "difference": difference,
        "agreement": agreement,
        "better": float(np.isin(verdicts, (A_BETTER, B_BETTER)).mean()),
        "wrong": float((verdicts == B_BETTER).mean()),
        "none": float((verdicts == NO_DIFFERENCE).mean()),
        "trials": float(lengths.mean()),
        "saved": float(1 - lengths.mean() / test.trials),
        "fixed": fixed_power(paths, test.alpha),
    }


def run(test: SequentialTest, comparisons: int, seed: int) -> list[dict[str, Any]]:
    """All rows."""
    rows = []
    for agreement in AGREEMENTS:
        for difference in DIFFERENCES:
            if difference <= 1 - agreement + 1e-9:
                paths = draw(np.random.default_rng(seed), comparisons, test.trials, difference, agreement)
                rows.append(measure("same everywhere", test, paths, difference, agreement))
        paths = draw_mixed(np.random.default_rng(seed), comparisons, test.trials, agreement)
        rows.append(measure("mixed tasks", test, paths, 0.0, agreement))
    return rows


def main() -> None:
    """Measure, print a table, write JSON if asked. Exit code 1 if a rate of false findings is above alpha."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=10_000, help="simulated comparisons per row")
    parser.add_argument("--difference", type=float, default=0.05, help="trials.until.difference")
    parser.add_argument("--alpha", type=float, default=0.05, help="trials.until.alpha")
    parser.add_argument("--max", type=int, default=500, help="trials.until.max")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated outcomes")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    test = SequentialTest(arguments.difference, arguments.alpha, arguments.max)
    start = time.perf_counter()
    rows = run(test, arguments.comparisons, arguments.seed)
    seconds = time.perf_counter() - start
    print(f"{arguments.comparisons} comparisons per row, at most {test.trials} trials, {seconds:.0f} s")
    print(f"{'':<17}{'agree':>6}{'differ':>7}{'better':>8}{'none':>8}{'trials':>8}{'saved':>7}   McNemar of all")
    for row in rows:
        print(
            f"{row['name']:<17}{row['agreement']:6.0%}{row['difference']:7.0%}{row['better']:8.1%}{row['none']:8.1%}"
            f"{row['trials']:8.0f}{row['saved']:7.0%}   {row['fixed']:.1%}"
        )
    worst_better = max(row["better"] for row in rows if row["difference"] == 0)
    worst_none = max((row["none"] for row in rows if row["difference"] >= test.difference), default=0.0)
    print(f"largest rate of false findings: better {worst_better:.2%}, no difference {worst_none:.2%}")
    if arguments.json:
        report = {
            "settings": {
                "difference": test.difference,
                "alpha": test.alpha,
                "max": test.trials,
                "seed": arguments.seed,
            },
            "comparisons": arguments.comparisons,
            "false_better": worst_better,
            "false_none": worst_none,
            "rows": rows,
            "versions": {"numpy": np.__version__, "scipy": scipy.__version__},
            "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "system": platform.platform()},
        }
        arguments.json.write_text(json.dumps(report, indent=2), encoding="utf-8")
    raise SystemExit(int(max(worst_better, worst_none) > test.alpha))


if __name__ == "__main__":
    main()
