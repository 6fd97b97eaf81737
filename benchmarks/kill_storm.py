"""Kill trainings and commands many times; nothing may be lost, and the results must be those of undisturbed ones.

    python benchmarks/kill_storm.py [--kills 100] [--quick] [--only NAME] [--seed N] [--json PATH] [--work DIR]

Trainings: `--kills` kills in all, spread over ZeRO 0 to 3, fp32 and bf16, background saves on and off
(`storm/training.py`). Commands: a fifth of that for each of `data demos`, `data convert`, `cache build`, `eval` and
`ckpt export`, started as a user starts them (`storm/command.py`). Every other kill comes while something is being
written; half of them hit one process, half all of them. The exit code is 1 if anything was lost or differs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reporting import report
from storm.command_table import VICTIMS, storm_commands
from storm.outcome import Outcome

QUICK_TRAININGS = ("train ZeRO 3, bf16, background saves",)
QUICK_COMMANDS = ("data convert", "ckpt export")


def trainings() -> dict[str, tuple[str, ...]]:
    """Settings of all trainings by their names."""
    return {
        f"train ZeRO {stage}, {precision}, {'background' if background else 'blocking'} saves": (
            f"zero.stage={stage}",
            f"precision={precision}",
            f"checkpoint.background={str(background).lower()}",
        )
        for stage, precision, background in itertools.product(range(4), ("fp32", "bf16"), (True, False))
    }


def storm_trainings(work: Path, kills: int, seed: int, names: tuple[str, ...]) -> Iterator[tuple[str, Outcome]]:
    """Spread `kills` over the trainings. Yields the name of each and its outcome."""
    from storm.training import storm_training

    settings = trainings()
    for number, name in enumerate(names):
        share = kills // len(names) + (number < kills % len(names))
        if share:
            folder = work / f"training-{number:02d}" if len(names) > 1 else work
            yield name, storm_training(folder, share, seed + number, settings[name])


def storm(work: Path, kills: int, command_kills: int, seed: int, names: list[str]) -> list[dict[str, Any]]:
    """Run everything that is named; returns the rows of the report."""
    chosen_trainings = tuple(name for name in trainings() if name in names)
    chosen_commands = tuple(name for name in VICTIMS if name in names)
    outcomes = itertools.chain(
        storm_commands(work / "commands", command_kills, seed, chosen_commands),
        storm_trainings(work, kills, seed, chosen_trainings) if chosen_trainings else (),
    )
    rows = []
    for name, outcome in outcomes:
        rows.append(outcome.to_row(name))
        print(f"{name}: {rows[-1]['reference']}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure, print a table, write JSON if asked; exit with 1 if anything was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100, help="of trainings; each command is killed a fifth as often")
    parser.add_argument("--quick", action="store_true", help="a few kills of one training and two commands")
    every_name = [*trainings(), *VICTIMS]
    parser.add_argument("--only", action="append", metavar="NAME", choices=every_name, help="may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and victims")
    parser.add_argument("--work", type=Path, help="folder to work in; it is kept")
    parser.add_argument("--json", type=Path, help="where the result is written")
    arguments = parser.parse_args()
    kills = 2 if arguments.quick else arguments.kills
    names = [*QUICK_TRAININGS, *QUICK_COMMANDS] if arguments.quick else every_name
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        rows = storm(work, kills, max(kills // 5, 2), arguments.seed, arguments.only or names)
    report(rows, arguments.json)
    bad = [row for row in rows if row["lost"] or row["differing"]]
    total = sum(row["value"] for row in rows)
    minutes = (time.monotonic() - started_at) / 60
    print(f"{total} kills in {minutes:.0f} min; {len(bad)} of {len(rows)} lost or changed something")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
