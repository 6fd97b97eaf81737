"""Forks ranks from a process that has already imported torch and DeepSpeed: starting them takes one second, not ten."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

# Heavy modules, imported once, before any fork.
import pokevla.training.building
import pokevla.weights.export  # noqa: F401
from pokevla.distributed.engine import import_deepspeed
from pokevla.distributed.environment import RankInfo, choose_port
from pokevla.distributed.process import PARENT_VARIABLE, die_with_parent

POLL_S = 0.05
Work = Callable[[RankInfo], None]
# One thread before the fork, because a thread pool does not survive it.
torch.set_num_threads(1)
import_deepspeed()


def start_ranks(world_size: int, work: Work, log: Path | None = None) -> list[BaseProcess]:
    """Fork `world_size` ranks that form a process group and call `work(rank)`. Their output is appended to `log`."""
    port = choose_port()
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, world_size, port, work, log)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    return list(ranks)


def end_ranks(ranks: list[BaseProcess]) -> None:
    """Kill the remaining ranks and wait for all of them."""
    for process in ranks:
        process.kill()
        process.join()


def run_ranks(world_size: int, work: Work) -> None:
    """Start `world_size` ranks and wait for all of them. Raises RuntimeError if one fails."""
    ranks = start_ranks(world_size, work)
    try:
        while any(process.is_alive() for process in ranks) and not any(process.exitcode for process in ranks):
            time.sleep(POLL_S)
        if any(process.exitcode for process in ranks):
            raise RuntimeError(f"A rank of {world_size} failed.")
    finally:
        end_ranks(ranks)


def _rank(rank: int, world_size: int, port: int, work: Work, log: Path | None) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        PARENT_VARIABLE: str(os.getppid()),
    }
    die_with_parent()
    if log is not None:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    done = False
    try:
        work(RankInfo(rank, world_size, rank))
        done = True
    finally:
        if not done:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # a normal exit would block on the other ranks
