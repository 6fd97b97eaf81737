"""Kill a training many times and compare its result with an uninterrupted run.

A run of two ranks (`tiny`, LoRA, dropout) is killed with SIGKILL at random moments. Every other kill waits until a save
starts; the others happen at any time, including start-up. A kill hits all ranks or one. Then the run is resumed as by
`pokevla resume`, except that its ranks are forked from a process that has imported everything. At the end its exported
weights and its loss curve are compared with those of an uninterrupted run.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from forked_ranks import end_ranks, start_ranks
from storm.outcome import Outcome
from toy_run import write_recipe

from pokevla.distributed.environment import RankInfo
from pokevla.recipe.kinds import training_of
from pokevla.recipe.load import load_recipe
from pokevla.runs.checkpoints import list_checkpoints, list_temporary
from pokevla.runs.creation import create_run
from pokevla.runs.directory import EXPORT, EXPORT_WEIGHTS, read_run_recipe
from pokevla.telemetry.jsonl import EVENTS, read_jsonl
from pokevla.telemetry.logging import setup_logging
from pokevla.telemetry.writers import METRICS
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import StopFlag
from pokevla.training.rank_main import train

POLL_S = 0.002
LIFE_LIMIT_S = 1800.0
"""Maximum wait for the moment of a kill. After it the benchmark fails, because something hangs."""
STEPS_PER_KILL = 8
WORLD_SIZE = 2


def live(info: RankInfo, run_dir: Path) -> None:
    """Run one rank to the end of the run."""
    setup_logging(run_dir, info.rank)
    recipe = read_run_recipe(run_dir)
    pulse = Pulse(recipe.guards.start_timeout_s, recipe.guards.step_timeout_s)
    train(recipe, run_dir, info, StopFlag(), pulse)  # these ranks are only ever killed, never asked to stop


@dataclass
class Storm:
    """A run that is killed repeatedly, with counts of the outcomes."""

    run_dir: Path
    draw: random.Random
    kills: int = 0
    inside_a_save: int = 0
    steps_redone: int = 0
    checkpoints_lost: int = 0
    victims: dict[str, int] = field(default_factory=dict)

    def live(self, *, kill: bool) -> bool:
        """Start the ranks; with `kill`, kill them at a random moment. Returns whether the run finished."""
        newest, known = self.newest(), len(self.events())
        log = self.run_dir.with_suffix(".log")
        ranks = start_ranks(WORLD_SIZE, partial(live, run_dir=self.run_dir), log)
        try:
            struck = kill and self.wait_for_moment(ranks, known)
            if struck:
                self.strike(ranks)
            else:
                self.wait_until(ranks, lambda: False, 0.05)
            codes = [process.exitcode for process in ranks]
        finally:
            end_ranks(ranks)
        self.judge(newest, self.events()[known:])
        if any(codes) and not struck:
            raise RuntimeError(f"a rank failed by itself; see {log}")
        return codes == [0] * WORLD_SIZE

    def wait_for_moment(self, ranks: list[BaseProcess], known: int) -> bool:
        """Wait for the moment of the kill. Returns False if the ranks end first."""
        inside = self.kills % 2 == 1
        if not inside and self.draw.random() < 0.2:
            return self.outlive(ranks, self.draw.uniform(0, 3.0))  # while they start
        if not self.wait_until(ranks, lambda: len(self.events()) > known, 0.02):
            return False
        if inside:
            reached = self.wait_until(ranks, self.is_saving, POLL_S)
            return reached and self.outlive(ranks, self.draw.uniform(0, 0.03))
        last_step = self.logged()
        reached = self.wait_until(ranks, lambda: self.logged() > last_step, 0.02)
        return reached and self.outlive(ranks, self.draw.uniform(0, 1.0))

    def wait_until(self, ranks: list[BaseProcess], condition: Callable[[], bool], poll_s: float) -> bool:
        """Wait for a condition. Returns False if a rank ends first."""
        deadline = time.monotonic() + LIFE_LIMIT_S
        while not condition():
            if not all(process.is_alive() for process in ranks):
                for process in ranks:  # at the end of a run the ranks exit one after another
                    process.join(10.0)
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.run_dir} makes no progress")
            time.sleep(poll_s)
        return True

    def outlive(self, ranks: list[BaseProcess], seconds: float) -> bool:
        """Wait for `seconds`. Returns False if a rank ends first."""
        until = time.monotonic() + seconds
        return self.wait_until(ranks, lambda: time.monotonic() > until, POLL_S)

    def strike(self, ranks: list[BaseProcess]) -> None:
        """Send SIGKILL to all ranks at once, or to one and shortly afterwards to the other, as the launcher does."""
        name = self.draw.choice(["all ranks", "one rank"])
        self.inside_a_save += self.is_saving()
        if name == "one rank":
            victim = self.draw.choice(ranks)
            victim.kill()
            victim.join()
            time.sleep(self.draw.uniform(0, 0.2))
        for process in ranks:
            process.kill()
        self.kills += 1
        self.victims[name] = self.victims.get(name, 0) + 1

    def judge(self, newest: int, events: list[dict[str, Any]]) -> None:
        """Compare the step from which the run resumed with the newest checkpoint before the restart."""
        starts = [event for event in events if event["event"] in ("resumed", "started")]
        self.checkpoints_lost += sum(event["step"] != newest for event in starts)
        self.checkpoints_lost += sum(event["event"] == "damaged" for event in events)
        if starts:  # otherwise it was killed during start-up and has not resumed yet
            self.steps_redone += max(0, self.logged() - self.newest())

    def newest(self) -> int:
        """Step of the newest complete checkpoint, 0 if there is none."""
        checkpoints = list_checkpoints(self.run_dir)
        return checkpoints[-1][0] if checkpoints else 0

    def events(self) -> list[dict[str, Any]]:
        """Events of the run."""
        path = self.run_dir / EVENTS
        return read_jsonl(path) if path.is_file() else []

    def logged(self) -> int:
        """The last logged step in metrics.jsonl."""
        return max((line["step"] for line in losses(self.run_dir)), default=0)

    def is_saving(self) -> bool:
        """Whether a checkpoint is currently being written."""
        return bool(list_temporary(self.run_dir))


def losses(run_dir: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with a training loss."""
    path = run_dir / METRICS
    return [line for line in read_jsonl(path) if "loss" in line] if path.is_file() else []


def same_curve(one: Path, other: Path) -> bool:
    """Whether two runs have logged the same losses, and each step exactly once."""
    first, second = ([(line["step"], line["loss"]) for line in losses(run_dir)] for run_dir in (one, other))
    return first == second


def make_run(work: Path, name: str, steps: int, overrides: Sequence[str] = ()) -> Path:
    """Create a run directory for the toy recipe."""
    loaded = load_recipe(write_recipe(work, name), [f"steps={steps}", *overrides])
    recipe = training_of(loaded.recipe)
    assert recipe is not None
    return create_run(loaded, recipe)


def train_undisturbed(work: Path, steps: int, overrides: Sequence[str] = ()) -> Path:
    """Train without kills; returns the run directory, `work`/runs/calm."""
    calm = Storm(make_run(work, "calm", steps, overrides), random.Random(0))
    calm.live(kill=False)
    return calm.run_dir


def storm_training(work: Path, kills: int, seed: int, overrides: Sequence[str] = ()) -> Outcome:
    """Train undisturbed (`work`/runs/calm) and with `kills` kills (`work`/runs/wild), and compare the two."""
    steps = STEPS_PER_KILL * kills
    calm = train_undisturbed(work, steps, overrides)
    wild = Storm(make_run(work, "wild", steps, overrides), random.Random(seed))
    done = False
    while not done:
        done = wild.live(kill=wild.kills < kills)
        seen = f"step {wild.logged()}, checkpoint {wild.newest()}"
        print(f"{wild.kills} of {kills} kills: {seen}", file=sys.stderr, flush=True)
    differing = [] if exported(calm) == exported(wild.run_dir) else ["final weights"]
    differing += [] if same_curve(calm, wild.run_dir) else ["loss curve"]
    victims = ", ".join(f"{count} of {name}" for name, count in sorted(wild.victims.items()))
    notes = [victims, f"{wild.steps_redone} of {steps} steps repeated"]
    return Outcome(wild.kills, wild.inside_a_save, wild.checkpoints_lost, tuple(differing), ", ".join(notes))


def exported(run_dir: Path) -> bytes:
    """Final weights of a run."""
    return (run_dir / EXPORT / EXPORT_WEIGHTS).read_bytes()
