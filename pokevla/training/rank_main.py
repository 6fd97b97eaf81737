"""One rank of a training run: `python -m pokevla.training.rank_main RUN_DIR`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pokevla.distributed.environment import read_rank
from pokevla.distributed.process import PARENT_VARIABLE, die_with_parent
from pokevla.errors import PokeVLAError


def run_rank(run_dir: Path, overrides: Sequence[str] = ()) -> None:
    """Train the run in this process, which is one of its ranks. Rank 0 keeps the overrides in the run's recipe."""
    import torch

    from pokevla.telemetry.logging import setup_logging
    from pokevla.training.loop import train
    from pokevla.training.resuming import changed_recipe, keep_changes, refuse_uneven_batch

    info = read_rank()
    setup_logging(run_dir, info.rank)
    recipe = changed_recipe(run_dir, overrides)
    refuse_uneven_batch(recipe, info.world_size)
    if overrides and info.is_main:
        keep_changes(run_dir, overrides)
    if recipe.resources.gpus_per_node == 0:
        torch.set_num_threads(recipe.resources.threads_per_rank)
    train(recipe, run_dir, info)


def main() -> None:
    """Entry point of a spawned rank. Its last line of output says what went wrong."""
    die_with_parent()
    try:
        run_rank(Path(sys.argv[1]))
    except PokeVLAError as error:
        print(str(error), file=sys.stderr, flush=True)
        leave(error.exit_code)
    except OSError as error:
        from pokevla.checkpoint.files import NO_ROOM, as_named_error

        if error.errno not in NO_ROOM:
            raise
        named = as_named_error(error, Path(error.filename or sys.argv[1]))
        print(str(named), file=sys.stderr, flush=True)
        leave(named.exit_code)


def leave(code: int) -> None:
    """End at once when a parent watches over the ranks: an orderly end would wait for collectives that never come."""
    if PARENT_VARIABLE in os.environ:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
