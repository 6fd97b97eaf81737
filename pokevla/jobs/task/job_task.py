"""A task's rank in its job, and the variables through which the ranks find each other."""

from __future__ import annotations

import os
import random
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

PORTS = (15000, 32000)
"""Below Linux's range of ports for outgoing connections (from 32768), which may be in use at any time."""


@dataclass(frozen=True)
class JobTask:
    """One task of a running job, as its launcher reads it from the environment."""

    launcher: str  # name in `pokevla.parts.LAUNCHERS`
    job_id: str  # the launcher's; `12_3` for a task of a Slurm array
    recorded_id: str  # id in `slurm.json` and in the lock of the run
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    restarts: int | None = None  # of the job so far; None if the launcher does not count them

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which acts for the whole job."""
        return self.rank == 0


def export_rendezvous(
    task: JobTask, run_dir: Path, main_address: str, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    The port is a function of run, job and restart: the same for all ranks, and another one after a requeue, because a
    rank on a node that Slurm considers dead may still hold the old one.
    """
    variables = {
        "RANK": str(task.rank),
        "WORLD_SIZE": str(task.world_size),
        "LOCAL_RANK": str(task.local_rank),
        "LOCAL_WORLD_SIZE": str(task.local_world_size),
        "MASTER_ADDR": main_address,
        "MASTER_PORT": str(random.Random(f"{run_dir}/{task.job_id}/{task.restarts or 0}").randrange(*PORTS)),
    }
    environment.update(variables)
