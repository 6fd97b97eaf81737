"""Ranks forked from a process that has imported torch and DeepSpeed: a process group costs a second, not ten."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable

import torch

import pokevla.training.loop  # noqa: F401  heavy: imported once, before any fork
from pokevla.distributed.engine import import_deepspeed, join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo, choose_port
from pokevla.distributed.process import PARENT_VARIABLE, die_with_parent

POLL_S = 0.05
# One thread before the fork: a pool of threads would not be there in the child.
torch.set_num_threads(1)
import_deepspeed()


def run_ranks(world_size: int, work: Callable[[RankInfo, torch.device], None]) -> None:
    """Call `work(rank, device)` in `world_size` forked ranks that have joined; RuntimeError if one of them fails."""
    port = choose_port()
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, world_size, port, work)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    try:
        while any(process.is_alive() for process in ranks):
            if any(process.exitcode for process in ranks):
                raise RuntimeError(f"A rank of {world_size} failed.")
            time.sleep(POLL_S)
        if any(process.exitcode for process in ranks):
            raise RuntimeError(f"A rank of {world_size} failed.")
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _rank(rank: int, world_size: int, port: int, work: Callable[[RankInfo, torch.device], None]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        PARENT_VARIABLE: str(os.getppid()),
    }
    die_with_parent()
    done = False
    try:
        info = RankInfo(rank, world_size, rank)
        work(info, join_ranks(info))
        leave_ranks()
        done = True
    finally:
        if not done:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # an orderly end would wait for the other ranks
