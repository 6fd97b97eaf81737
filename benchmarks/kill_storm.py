"""Kill a training again and again, and see whether it comes out the same.

    python benchmarks/kill_storm.py [--kills 30] [--quick] [--seed N] [--json PATH] [--work DIR]

A run of two ranks with ZeRO 2 (`tiny`, LoRA, dropout) is started as a user starts it, and SIGKILLed at random moments:
half of the kills wait for a save to begin, the others fall anywhere, start-up included. The victim is drawn too: all
processes, one rank, or the parent. `pokevla resume` goes on each time. In the end its exported weights and its loss
curve are compared with those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from reporting import report, row
from toy_run import command_environment, write_recipe

from pokevla.checkpoint.catalogue import list_checkpoints
from pokevla.telemetry.jsonl import read_jsonl

POLL_S = 0.002
LIFE_LIMIT_S = 600.0
"""A life without the awaited moment ends the benchmark: something hangs."""
STEPS_PER_KILL = 8


@dataclass
class Storm:
    """A run that is killed, and what was seen of it."""

    run_dir: Path
    log: Path
    draw: random.Random
    kills: int = 0
    inside_a_save: int = 0
    steps_redone: int = 0
    checkpoints_lost: int = 0
    victims: dict[str, int] = field(default_factory=dict)

    def live(self, arguments: list[str], *, kill: bool) -> bool:
        """Run one command; kill it at a random moment if asked. Tells whether it got to the end."""
        newest, known = self.newest(), len(self.events())
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pokevla.cli.main", *arguments],
                env=command_environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            struck = kill and self.wait_for_moment(process, known)
            if struck:
                self.strike(process)
            code = process.wait(LIFE_LIMIT_S)
        self.judge(newest, self.events()[known:])
        if code != 0 and not struck:
            raise RuntimeError(f"`pokevla {' '.join(arguments)}` ended with exit code {code}; see {self.log}")
        return code == 0

    def wait_for_moment(self, process: subprocess.Popen[bytes], known: int) -> bool:
        """Wait until the process is to be killed; False if it ends before."""
        inside = self.draw.random() < 0.5
        if not inside and self.draw.random() < 0.2:
            return self.outlives(process, self.draw.uniform(0, 10.0))  # while it starts
        if not self.wait_until(process, lambda: len(self.events()) > known, 0.05):
            return False
        if inside:
            found = self.wait_until(process, self.is_saving, POLL_S)
            return found and self.outlives(process, self.draw.uniform(0, 0.03))
        reached = self.logged()
        found = self.wait_until(process, lambda: self.logged() > reached, 0.05)
        return found and self.outlives(process, self.draw.uniform(0, 2.0))

    def wait_until(self, process: subprocess.Popen[bytes], what: Callable[[], bool], poll_s: float) -> bool:
        """Wait for something the process does; False if it ends before."""
        deadline = time.monotonic() + LIFE_LIMIT_S
        while not what():
            if process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(f"the run makes no progress; see {self.log}")
            time.sleep(poll_s)
        return True

    def outlives(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait a while; False if the process ends."""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def strike(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL the drawn victim. The others must die of it by themselves."""
        ranks = psutil.Process(process.pid).children()
        name = self.draw.choice(["all", "parent", "one rank"])
        victims = {"all": [*ranks, process], "parent": [process], "one rank": ranks and [self.draw.choice(ranks)]}[name]
        self.inside_a_save += self.is_saving()
        for victim in victims or [process]:
            os.kill(victim.pid, signal.SIGKILL)
        process.wait(LIFE_LIMIT_S)
        deadline = time.monotonic() + LIFE_LIMIT_S
        while not all(is_dead(rank) for rank in ranks):
            if time.monotonic() > deadline:
                raise RuntimeError("a rank has outlived its parent")
            time.sleep(0.05)
        self.kills += 1
        self.victims[name] = self.victims.get(name, 0) + 1

    def judge(self, newest: int, events: list[dict[str, Any]]) -> None:
        """Compare where a life began with the checkpoint that was newest when the life before ended."""
        begun = [event for event in events if event["event"] in ("resumed", "started")]
        self.checkpoints_lost += sum(event["step"] != newest for event in begun)
        self.checkpoints_lost += sum(event["event"] == "damaged" for event in events)
        if begun:  # otherwise it died while it started, and what it found is still there
            self.steps_redone += max(0, self.logged() - self.newest())

    def newest(self) -> int:
        """Step of the newest complete checkpoint, 0 if there is none."""
        checkpoints = list_checkpoints(self.run_dir)
        return checkpoints[-1][0] if checkpoints else 0

    def events(self) -> list[dict[str, Any]]:
        """What the run has written down."""
        path = self.run_dir / "events.jsonl"
        return read_jsonl(path) if path.is_file() else []

    def logged(self) -> int:
        """The last step in metrics.jsonl."""
        return max((line["step"] for line in losses(self.run_dir)), default=0)

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written right now."""
        return any((self.run_dir / "checkpoints").glob(".tmp-step-*"))


def is_dead(process: psutil.Process) -> bool:
    """Whether a process is gone, or only waits for whoever inherited it to take note."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def losses(run_dir: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with a training loss."""
    path = run_dir / "metrics.jsonl"
    return [line for line in read_jsonl(path) if "loss" in line] if path.is_file() else []


def same_curve(one: Path, other: Path) -> bool:
    """Whether two runs have logged the same losses, each step once."""
    first, second = ([(line["step"], line["loss"]) for line in losses(run_dir)] for run_dir in (one, other))
    return first == second


def storm(work: Path, kills: int, seed: int) -> list[dict[str, Any]]:
    """Run both trainings; the rows of the report."""
    steps = f"steps={STEPS_PER_KILL * kills}"
    calm = Storm(work / "runs" / "calm", work / "calm.log", random.Random(seed))
    calm.live(["train", str(write_recipe(work, "calm")), steps], kill=False)
    wild = Storm(work / "runs" / "wild", work / "wild.log", random.Random(seed))
    recipe = write_recipe(work, "wild")
    done = False
    while not done:
        arguments = ["resume", str(wild.run_dir)] if wild.run_dir.exists() else ["train", str(recipe), steps]
        done = wild.live(arguments, kill=wild.kills < kills)
        seen = f"step {wild.logged()}, checkpoint {wild.newest()}"
        print(f"{wild.kills} of {kills} kills: {seen}", file=sys.stderr, flush=True)
    identical = exported(calm.run_dir) == exported(wild.run_dir)
    victims = ", ".join(f"{name} {count}" for name, count in sorted(wild.victims.items()))
    total = STEPS_PER_KILL * kills
    return [
        row("kills", wild.kills, "kills", victims),
        row("of them inside a save", wild.inside_a_save, "kills"),
        row("steps redone", wild.steps_redone, "steps", f"steps of the run: {total}", wild.steps_redone / total),
        row("checkpoints lost", wild.checkpoints_lost, "lost"),
        row("final weights identical", identical, yes_or_no(identical), "undisturbed run"),
        row("loss curve identical", same := same_curve(calm.run_dir, wild.run_dir), yes_or_no(same), "undisturbed run"),
    ]


def exported(run_dir: Path) -> bytes:
    """The weights a run has ended with."""
    return (run_dir / "export" / "model.safetensors").read_bytes()


def yes_or_no(answer: bool) -> str:
    """For the column of units."""
    return "yes" if answer else "NO"


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="3 kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and victims")
    parser.add_argument("--work", type=Path, help="folder to work in; it is kept")
    parser.add_argument("--json", type=Path, help="where the result is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = storm(arguments.work or Path(temporary), 3 if arguments.quick else arguments.kills, arguments.seed)
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
