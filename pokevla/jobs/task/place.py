"""Where a task stands in its job, and how the ranks of the job find each other."""

from __future__ import annotations

import os
import random
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

PORTS = (15000, 32000)
"""Below Linux's range of ports for outgoing connections (from 32768), which anybody may hold by chance."""


@dataclass(frozen=True)
class Place:
    """One task of a running job. A launcher reads it from the environment that it has made."""

    launcher: str  # name in `pokevla.parts.LAUNCHERS`
    job_id: str  # as the launcher calls it; of a Slurm array task `12_3`
    recorded_id: str  # as `slurm.json` and the lock of a run know it
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    restarts: int | None = None  # how often the job was started again; None where the launcher does not tell

    @property
    def is_main(self) -> bool:
        """Whether this task speaks for the job."""
        return self.rank == 0


def export_rendezvous(
    place: Place, run_dir: Path, main_address: str, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    The port follows from run, job and restart: the same for all ranks, another one after a requeue, since a rank that
    outlived its node's death may still hold the old one.
    """
    variables = {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
        "MASTER_ADDR": main_address,
        "MASTER_PORT": str(random.Random(f"{run_dir}/{place.job_id}/{place.restarts or 0}").randrange(*PORTS)),
    }
    environment.update(variables)
