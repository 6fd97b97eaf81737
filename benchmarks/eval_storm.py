"""Kills and freezes an evaluation at random until it is complete, and compares it with one left in peace.

    python benchmarks/eval_storm.py [--kills 20] [--hangs 5] [--seed 0] [--json PATH]

The evaluation is the scripted expert in libero_object, as a user starts it. Each disturbance hits either a worker
process (SIGKILL), a worker that is to seem hung (SIGSTOP), or the command itself (SIGKILL), after which it is started
again. In the end every record (outcome, steps, queries) and every figure of the summary must equal those of the
undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from reporting import report, row

RECIPE = """\
kind: eval
name: {name}
output: {output}
trials: {{suite: libero_object, tasks: [0, 1, 2, 3, 4, 5, 6, 7], init_states: [0, {states}]}}
policies: [{{name: expert, kind: expert}}]
workers: 2
worker_timeout_s: 120
step_timeout_s: 2
"""
LONGEST_S = 3600.0


def main() -> int:
    """Run both evaluations, disturb one of them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="processes to kill")
    parser.add_argument("--hangs", type=int, default=5, help="workers to freeze")
    parser.add_argument("--states", type=int, default=6, help="initial states of each of the eight tasks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        calm = start(folder, "calm", arguments.states)
        if calm.wait(LONGEST_S) != 0:
            raise SystemExit("the undisturbed evaluation failed")
        planned = [*["hang"] * arguments.hangs, *["kill"] * arguments.kills]
        rng.shuffle(planned)
        done, starts, seconds = disturb(folder, planned, rng, arguments.states)
        problems = differences(folder / "calm", folder / "stormy")
    for problem in problems:
        print(f"DIFFERENT: {problem}")
    rows = [row(f"disturbed/{name}", count, "times") for name, count in sorted(done.items())]
    rows += [row("starts", starts, "times"), row("seconds", seconds, "s"), row("differences", len(problems), "")]
    report(rows, arguments.json)
    return 1 if problems or sum(done.values()) < len(planned) else 0


def start(folder: Path, name: str, states: int) -> subprocess.Popen[bytes]:
    """Start `pokevla eval` in a session of its own."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(name=name, output=folder, states=states), encoding="utf-8")
    with (folder / f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", "pokevla.cli.main", "eval", str(recipe)]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def disturb(folder: Path, planned: list[str], rng: random.Random, states: int) -> tuple[dict[str, int], int, float]:
    """Run the evaluation to its end through all planned disturbances: how often what was hit, starts, seconds."""
    done = {"worker killed": 0, "worker frozen": 0, "command killed": 0}
    starts, began = 1, time.monotonic()
    process = start(folder, "stormy", states)
    while time.monotonic() - began < LONGEST_S:
        time.sleep(rng.uniform(2.0, 8.0) if planned else 1.0)
        if process.poll() is not None:
            if process.returncode == 0:
                break
            starts, process = starts + 1, start(folder, "stormy", states)
            continue
        if not planned:
            continue
        workers = workers_of(process.pid)
        whole = planned[-1] == "kill" and rng.random() < 0.3
        if not workers and not whole:
            continue
        kind = planned.pop()
        if whole:
            for victim in [psutil.Process(process.pid), *workers]:
                send(victim, signal.SIGKILL)
            done["command killed"] += 1
        else:
            send(rng.choice(workers), signal.SIGSTOP if kind == "hang" else signal.SIGKILL)
            done["worker frozen" if kind == "hang" else "worker killed"] += 1
    else:
        raise SystemExit(f"not complete after {LONGEST_S:g} s; see {folder / 'stormy.log'}")
    return done, starts, time.monotonic() - began


def workers_of(pid: int) -> list[psutil.Process]:
    """The environment processes of a command."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def differences(calm: Path, stormy: Path) -> list[str]:
    """What is not equal in two evaluations, but for seconds and attempts."""
    one, other = records(calm), records(stormy)
    problems = [
        f"{key}: {one.get(key)} and {other.get(key)}" for key in sorted(one | other) if one.get(key) != other.get(key)
    ]
    return problems + ([] if table(calm) == table(stormy) else ["the tables"])


def records(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What came out of each trial."""
    lines = (folder / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    if len({key(entry) for entry in entries}) < len(entries):
        raise SystemExit(f"{folder}: a trial has two records")
    return {key(entry): (entry["outcome"], entry["steps"], entry["queries"]) for entry in entries}


def key(entry: dict[str, Any]) -> str:
    """Name of a trial."""
    return f"{entry['policy']} {entry['suite']} {entry['task_index']} {entry['init_state_index']}"


def table(folder: Path) -> Any:
    """The summary without what depends on the clock."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for figures in (summary["policies"], *summary["suites"].values()):
        for policy in figures.values():
            policy.pop("mean_seconds")
    return summary


if __name__ == "__main__":
    raise SystemExit(main())
