"""Starts the ranks of a training and monitors them. This process does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pokevla.distributed.environment import (
    RENDEZVOUS_TIMEOUT_S,
    inside_a_rank,
    read_rank,
    rendezvous_place,
    rendezvous_timeout_s,
)
from pokevla.distributed.process import spawn_ranks
from pokevla.errors import Requeued, UsageError
from pokevla.files.holders import this_process
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.planning.plan import planned_steps
from pokevla.runs.changes import changed_recipe, keep_changes, refuse_changed_data
from pokevla.runs.creation import await_rank_0, refuse_rank_elsewhere, run_lock
from pokevla.runs.ending import end_noted
from pokevla.runs.opening import opening_lines
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.jsonl import EVENTS
from pokevla.telemetry.logging import LOGS
from pokevla.training.health.rank_monitor import RankMonitor
from pokevla.training.health.signals import requeued
from pokevla.training.progress import ProgressView

RANK_MODULE = "pokevla.training.rank_main"


def run_training(run_dir: Path, overrides: Sequence[str] = ()) -> None:
    """Train a run from its newest checkpoint to its last step. Starts the ranks of the recipe, or runs as one rank if a
    launcher has started this process as one.

    `overrides` change settings of the run from now on (`pokevla.runs.changes`).

    Raises:
        UsageError: the run is already being trained.
        RecipeError: an override is not allowed for a started run.
        DataError: a dataset has changed since the run started.
        Requeued: a signal asked the run to stop, and it has saved.
        TrainingError: a rank died. It carries the exit code of that rank's error.
    """
    if inside_a_rank():
        _train_as_rank(run_dir, overrides)
        return
    recipe = changed_recipe(run_dir, overrides)
    refuse_changed_data(run_dir, recipe)
    world_size = recipe.resources.world_size
    derive_batch(recipe.batch, world_size, begun=True)
    if recipe.resources.nodes > 1:
        raise UsageError(
            f"The recipe needs {recipe.resources.nodes} machines; this command starts ranks on one.",
            "Start it on all of them through Slurm or torchrun, which set RANK.",
        )
    refuse_rank_elsewhere(run_dir)
    steps = planned_steps(recipe)
    with run_lock(run_dir) as descriptor, end_noted(run_dir), ProgressView(run_dir, steps) as view:
        if overrides:
            keep_changes(run_dir, overrides)
        for line in opening_lines(run_dir, recipe, world_size):
            view.print_line(line)
        monitor = RankMonitor(run_dir, recipe.guards.start_timeout_s, view.print_line)

        def on_poll() -> None:
            view.update()
            monitor.check()

        try:
            spawn_ranks(
                ("-m", RANK_MODULE, str(run_dir)),
                world_size=world_size,
                threads=recipe.resources.threads_per_rank,
                log_dir=run_dir / LOGS,
                keep_open=(descriptor,),
                on_poll=on_poll,
                on_signal=view.print_line,
                grace_s=recipe.guards.stop_grace_s,
            )
        except Requeued as error:
            events = JsonlFollower(run_dir / EVENTS).read_all()  # skips damaged lines
            stopped = [row for row in events if row.get("event") == "stopped"]
            if not stopped:  # the event found no room on a full disk
                raise
            raise requeued(stopped[-1]["reason"], stopped[-1]["step"], run_dir) from error


def _train_as_rank(run_dir: Path, overrides: Sequence[str]) -> None:
    """Train as one rank of several that torchrun or a person has started. Rank 0 holds the lock of the run."""
    from pokevla.training.rank_main import run_rank

    place = rendezvous_place()
    with ExitStack() as stack:
        if read_rank().is_main:
            refuse_rank_elsewhere(run_dir)
            stack.enter_context(run_lock(run_dir, holder=this_process(rendezvous=place)))
            stack.enter_context(end_noted(run_dir))
        else:
            await_rank_0(run_dir, place, rendezvous_timeout_s(RENDEZVOUS_TIMEOUT_S))
        refuse_changed_data(run_dir, changed_recipe(run_dir, overrides))
        run_rank(run_dir, overrides)
