"""One rank of a training run: `python -m pokevla.training.rank_main RUN_DIR`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pokevla.distributed.environment import RankInfo, read_rank, rendezvous_timeout_s
from pokevla.distributed.gpus import HIDE
from pokevla.distributed.process import PARENT_VARIABLE, die_with_parent
from pokevla.errors import HangError, PokeVLAError, Requeued
from pokevla.files.streams import replace_unprintable
from pokevla.processes import collector_paused
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import StopFlag, stop_signals

if TYPE_CHECKING:
    from pokevla.recipe.schema import TrainRecipe
    from pokevla.telemetry.jsonl import EventLog
    from pokevla.telemetry.writers import MetricWriter


def run_rank(run_dir: Path, overrides: Sequence[str] = (), on_hang: Callable[[HangError], None] | None = None) -> None:
    """Train the run in this process, which is one of its ranks. Rank 0 writes the overrides to the run's recipe.

    Until this function returns, SIGUSR2, SIGTERM and SIGINT make all ranks save after the current step and raise
    Requeued with the `reason`; then the previous handlers are restored. A rank that hangs first calls `on_hang` in the
    watchdog's thread, then ends its process with the exit code of HangError.

    Raises:
        Requeued: the job was asked to stop. PokeVLAError: another named error.
    """
    with stop_signals() as stop:  # before torch: a signal during its import must not kill the rank
        from pokevla.runs.changes import changed_recipe, keep_changes

        recipe = changed_recipe(run_dir, overrides)
        if recipe.resources.gpus_per_node == 0:
            os.environ.update(HIDE)  # before torch looks for GPUs: there may be fewer than ranks

        with collector_paused():
            import torch

            from pokevla.distributed.engine import leave_ranks
            from pokevla.recipe.derive import derive_batch
            from pokevla.runs.opening import opening_lines
            from pokevla.telemetry.logging import setup_logging
            from pokevla.training.health.watchdog import Watchdog

        info = read_rank()
        log = setup_logging(run_dir, info.rank)
        derive_batch(recipe.batch, info.world_size, begun=True)
        if overrides and info.is_main:
            keep_changes(run_dir, overrides)
        if recipe.resources.gpus_per_node == 0:
            torch.set_num_threads(recipe.resources.threads_per_rank)
        if info.is_main:
            for line in opening_lines(run_dir, recipe, info.world_size):
                log.info("%s", line)
        pulse = Pulse(recipe.guards.start_timeout_s, recipe.guards.step_timeout_s)
        with Watchdog(run_dir, info, pulse, on_hang):
            try:
                train(recipe, run_dir, info, stop, pulse)
            except Requeued:
                leave_ranks()  # an orderly shutdown works here: all ranks have reached this point
                raise


def train(recipe: TrainRecipe, run_dir: Path, info: RankInfo, stop: StopFlag, pulse: Pulse) -> None:
    """Train a run to its last step, from its newest complete checkpoint or from step 0. Called by every rank.

    Raises:
        Requeued: `stop` was set on one of the ranks, and all have saved.
        PokeVLAError: a named error. Existing checkpoints remain usable.
    """
    with collector_paused():
        from pokevla.data.loading.process_loader import DataProcess
        from pokevla.distributed.collectives import barrier, set_collective_timeout
        from pokevla.distributed.engine import join_ranks, leave_ranks
        from pokevla.telemetry.jsonl import EVENTS, EventLog
        from pokevla.telemetry.writers import MetricWriter
        from pokevla.training.building import build_callbacks, build_state, build_trainer
        from pokevla.training.callbacks import stop_if_requested
        from pokevla.training.health.guards import build_guards
        from pokevla.training.measuring import describe_run
        from pokevla.training.restoring import restore
        from pokevla.training.tasks import build_task, build_task_loader, save_statistics

    with ExitStack() as stack:
        process = None
        if recipe.data.loader == "process":  # before CUDA and process groups, which do not survive a fork
            process = stack.enter_context(DataProcess(recipe.data.prefetch_batches))
        pulse.enter("rendezvous")
        timeout_s = rendezvous_timeout_s(recipe.guards.rendezvous_timeout_s)
        device = join_ranks(info, timeout_s, needs_gpu=recipe.resources.gpus_per_node > 0)
        pulse.govern(set_collective_timeout)
        pulse.enter("building the model")
        task = build_task(recipe, info)
        trainer = build_trainer(recipe, task, info, device, build_guards(recipe.guards, device, stop, pulse))
        state = build_state(recipe, task, info, trainer.guards)
        pulse.govern(set_collective_timeout)  # here, because DeepSpeed has now created its process groups
        pulse.enter("restoring")
        start = restore(trainer.engine, state, run_dir, info, device)
        pulse.step = start.step
        pulse.enter("loop")
        loader = stack.enter_context(
            build_task_loader(recipe, task, info, start.position, process, pin=device.type == "cuda")
        )
        trainer.meter.loader = loader.meter
        if info.is_main:
            save_statistics(task.mixture, run_dir)
        writer = stack.enter_context(closing(MetricWriter(run_dir, info.rank, start.step, recipe.log.sinks)))
        describe_run(writer, recipe, run_dir, start.step)
        events = stack.enter_context(closing(EventLog(run_dir / EVENTS))) if info.is_main else None
        stop_if_requested(trainer.guards, device, start.step, start.position, run_dir, events)
        trainer.run(loader, start.step, build_callbacks(recipe, task, trainer, state, run_dir, writer, events))
        trainer.guards.skips.refuse_bad_end(trainer.steps, recipe.log.every_steps)
        with pulse.phase("export", patient=True):
            if events is not None:
                export_finished(run_dir, trainer.steps, writer, events)
            barrier()
    leave_ranks()


def export_finished(run_dir: Path, steps: int, writer: MetricWriter, events: EventLog) -> None:
    """Export the model of the last step and note that the run has finished. Called by the main rank."""
    from pokevla.runs.directory import EXPORT
    from pokevla.weights.export import export_run

    export_run(run_dir, steps, run_dir / EXPORT)
    writer.finish()
    events.add("finished", step=steps)


def main() -> None:
    """Entry point of a spawned rank. On failure, the last line of its output is the error."""
    replace_unprintable()
    die_with_parent()
    try:
        run_rank(Path(sys.argv[1]))
    except PokeVLAError as error:
        print_last(str(error))
        exit_with(error.exit_code)
    except OSError as error:
        from pokevla.errors import NO_ROOM
        from pokevla.runs.checkpoints import save_error

        if error.errno not in NO_ROOM:
            raise
        named = save_error(error, Path(error.filename or sys.argv[1]))
        print_last(str(named))
        exit_with(named.exit_code)


def print_last(text: str) -> None:
    """Print the error that ends this rank. Its output may be a file on a full disk: then the exit code has to do."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def exit_with(code: int) -> None:
    """Exit immediately if a parent process monitors the ranks. A normal exit would block on collectives."""
    if PARENT_VARIABLE in os.environ:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
