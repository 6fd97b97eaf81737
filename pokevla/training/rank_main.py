"""One rank of a training run: `python -m pokevla.training.rank_main RUN_DIR`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pokevla.distributed.environment import read_rank
from pokevla.distributed.process import PARENT_VARIABLE, die_with_parent
from pokevla.errors import HangError, PokeVLAError, Requeued
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import stop_signals


def run_rank(run_dir: Path, overrides: Sequence[str] = (), on_hang: Callable[[HangError], None] | None = None) -> None:
    """Train the run in this process, which is one of its ranks. Rank 0 keeps the overrides in the run's recipe.

    From here until the return SIGUSR2, SIGTERM and SIGINT make all ranks save after the step under way and raise
    Requeued, with its `reason`; the former handlers are back then. A rank that hangs ends its process with HangError's
    exit code; before that it calls `on_hang` in a thread of its own.

    Raises:
        Requeued: the job was asked to stop. PokeVLAError: another named error.
    """
    with stop_signals() as stop:  # before torch: a signal during its import must not be deadly
        import torch

        from pokevla.distributed.engine import leave_ranks
        from pokevla.runs.changes import changed_recipe, keep_changes, refuse_uneven_batch
        from pokevla.telemetry.logging import setup_logging
        from pokevla.training.health.watchdog import Watchdog
        from pokevla.training.loop import train

        info = read_rank()
        setup_logging(run_dir, info.rank)
        recipe = changed_recipe(run_dir, overrides)
        refuse_uneven_batch(recipe, info.world_size)
        if overrides and info.is_main:
            keep_changes(run_dir, overrides)
        if recipe.resources.gpus_per_node == 0:
            torch.set_num_threads(recipe.resources.threads_per_rank)
        pulse = Pulse(recipe.guards.start_timeout_s, recipe.guards.step_timeout_s)
        with Watchdog(run_dir, info, pulse, on_hang):
            try:
                train(recipe, run_dir, info, stop, pulse)
            except Requeued:
                leave_ranks()  # in order, since all ranks are here
                raise


def main() -> None:
    """Entry point of a spawned rank. Its last line of output says what went wrong."""
    die_with_parent()
    try:
        run_rank(Path(sys.argv[1]))
    except PokeVLAError as error:
        print(str(error), file=sys.stderr, flush=True)
        leave(error.exit_code)
    except OSError as error:
        from pokevla.errors import NO_ROOM
        from pokevla.runs.checkpoints import save_error

        if error.errno not in NO_ROOM:
            raise
        named = save_error(error, Path(error.filename or sys.argv[1]))
        print(str(named), file=sys.stderr, flush=True)
        leave(named.exit_code)


def leave(code: int) -> None:
    """End at once when a parent watches over the ranks: an orderly end would wait for collectives that never come."""
    if PARENT_VARIABLE in os.environ:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
