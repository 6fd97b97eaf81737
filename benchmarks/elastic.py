"""Compares a training on 2, 1, 3 and again 2 ranks with the same training on 2 ranks throughout.

    python benchmarks/elastic.py [--quick] [--json PATH] [--recipe RECIPE] [--work DIR]

Each change of ranks is a save, new processes, a conversion of the checkpoint and a resume, as in `pokevla resume RUN
--ranks N`. A row is the largest difference between the two loss curves, step by step. Without `--recipe` the job is a
pre-training of `tiny` on a mixture of two datasets, with LoRA, dropout and a frozen image encoder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from forked_ranks import run_ranks
from reporting import report, row
from toy_run import write_recipe

from pokevla.data.loader import TrainLoader, build_loader
from pokevla.distributed.collectives import mean_over_ranks
from pokevla.distributed.engine import join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo
from pokevla.recipe.kinds import training_of
from pokevla.recipe.load import load_recipe
from pokevla.telemetry.manifest import write_manifest
from pokevla.training.building import build_state, build_trainer
from pokevla.training.callbacks import StepResult
from pokevla.training.loop import Trainer
from pokevla.training.restoring import restore
from pokevla.training.saving import Saver
from pokevla.training.tasks import build_task

PHASES = (2, 1, 3, 2)
"""Number of ranks in each phase."""
LIMIT = 1e-6


class Stopped(Exception):
    """Raised when the phase has finished its steps."""


class Curve:
    """Callback: records the loss of every step and stops after step `stop`."""

    def __init__(self, stop: int) -> None:
        self.stop, self.losses, self.last = stop, {}, None

    def after_step(self, result: StepResult) -> None:
        """Record the mean loss over ranks."""
        self.losses[result.step] = float(mean_over_ranks(result.values["loss"].reshape(1)))
        self.last = result
        if result.step == self.stop:
            raise Stopped


def train_until(trainer: Trainer, loader: TrainLoader[Any], start: int, stop: int) -> Curve:
    """Train from after step `start` to step `stop`."""
    curve = Curve(stop)
    with loader, contextlib.suppress(Stopped):
        trainer.run(loader, start, [curve])
    return curve


@dataclass(frozen=True)
class Job:
    """One training per ZeRO stage, in `runs`/stage-S."""

    recipe: Path
    runs: Path
    stages: tuple[int, ...]
    steps: int

    def run_dir(self, stage: int) -> Path:
        """Run directory of the training with a ZeRO stage."""
        return self.runs / f"stage-{stage}"

    def overrides(self, stage: int, world_size: int) -> list[str]:
        """Overrides that the benchmark needs."""
        batch = "batch={global: 12, micro: 2}"  # 12 is divisible by 1, 2 and 3 ranks
        resources = f"resources={{cpu_ranks: {world_size}}}"
        return [f"zero.stage={stage}", resources, batch, f"steps={self.steps}", "precision=fp32"]


def phase(info: RankInfo, job: Job, stop: int) -> None:
    """Continue each training to step `stop`, save, and append the losses to `curve.jsonl` of the run."""
    device = join_ranks(info)
    for stage in job.stages:  # stage 3 last: it patches torch for the rest of the process
        run_dir = job.run_dir(stage)
        recipe = training_of(load_recipe(job.recipe, job.overrides(stage, info.world_size)).recipe)
        assert recipe is not None
        task = build_task(recipe, info)
        trainer = build_trainer(recipe, task, info, device)
        state = build_state(recipe, task, info, trainer.guards)
        start = restore(trainer.engine, state, run_dir, info, device)
        place: dict[str, Any] = {"rank": info.rank, "world_size": info.world_size, "start_position": start.position}
        place["num_vision"] = task.picture.tokens
        curve = train_until(trainer, build_loader(recipe, task.mixture, task.samples, **place), start.step, stop)
        assert curve.last is not None
        Saver(trainer.engine, run_dir, recipe.checkpoint, state.checkpoint_info).save(curve.last, wait=True)
        if info.is_main:
            with (run_dir / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps([step, loss]) + "\n" for step, loss in curve.losses.items())
    leave_ranks()


def read_curve(run_dir: Path) -> dict[int, float]:
    """Step -> loss."""
    return dict(json.loads(line) for line in (run_dir / "curve.jsonl").read_text(encoding="utf-8").splitlines())


def compare(recipe: Path, work: Path, stages: Sequence[int], steps_per_phase: int) -> list[dict[str, Any]]:
    """Run both trainings. Returns one row per ZeRO stage."""
    total = steps_per_phase * len(PHASES)
    alone, moved = (Job(recipe, work / name, tuple(sorted(stages)), total) for name in ("alone", "moved"))
    for job in (alone, moved):
        for stage in job.stages:
            write_manifest(job.run_dir(stage))
    run_ranks(2, partial(phase, job=alone, stop=total))
    for index, world_size in enumerate(PHASES, start=1):
        run_ranks(world_size, partial(phase, job=moved, stop=index * steps_per_phase))
    return [_row(read_curve(alone.run_dir(stage)), read_curve(moved.run_dir(stage)), stage) for stage in alone.stages]


def _row(expected: dict[int, float], seen: dict[int, float], stage: int) -> dict[str, Any]:
    assert list(expected) == list(seen), "the two runs did not do the same steps"
    first, last = next(iter(expected)), list(expected)[-1]
    return row(
        f"ZeRO {stage}, {' -> '.join(map(str, PHASES))} ranks, {last} steps",
        max(abs(expected[step] - seen[step]) for step in expected),
        "max |diff|",
        f"undisturbed: loss {expected[first]:.6f} -> {expected[last]:.6f}",
        seen[last] / expected[last],
        curve=seen,
        undisturbed=expected,
    )


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two steps on each number of ranks instead of six")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3], help="ZeRO stages")
    parser.add_argument("--recipe", type=Path, help="another (tiny) training recipe")
    parser.add_argument("--work", type=Path, help="folder to work in; it is kept")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        recipe = arguments.recipe or write_recipe(work, "elastic")
        rows = compare(recipe, work, arguments.stages, 2 if arguments.quick else 6)
    report(rows, arguments.json)
    worst = max(entry["value"] for entry in rows)
    print(f"largest difference {worst:.1e}, limit {LIMIT:.0e}: {'ok' if worst <= LIMIT else 'EXCEEDED'}")


if __name__ == "__main__":
    main()
