"""Where a task stands in its job, and how the ranks of the job find each other."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from pokevla.errors import EnvironmentSetupError
from slurm.record import LOCAL

PORTS = (15000, 32000)
"""Below Linux's range of ports for outgoing connections (from 32768), which anybody may hold by chance."""


@dataclass(frozen=True)
class Place:
    """One task of a running job."""

    is_slurm: bool  # otherwise submitit's local executor
    job_id: str  # of an array task `12_3`
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    restarts: int  # how often Slurm has started this job again

    @property
    def is_main(self) -> bool:
        """Whether this task speaks for the job."""
        return self.rank == 0

    @property
    def recorded_id(self) -> str:
        """The job's id as `slurm.json` and the lock of a run know it."""
        return self.job_id if self.is_slurm else f"{LOCAL}{self.job_id}"


_SLURM = {"rank": "SLURM_PROCID", "world_size": "SLURM_NTASKS", "local_rank": "SLURM_LOCALID"}
_LOCAL = {
    "rank": "SUBMITIT_LOCAL_GLOBALID",
    "world_size": "SUBMITIT_LOCAL_NTASKS",
    "local_rank": "SUBMITIT_LOCAL_LOCALID",
}


def read_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read this task's place from what srun, or submitit's local executor, has set.

    Raises:
        EnvironmentSetupError: this is neither.
    """
    is_slurm = environment.get("SUBMITIT_EXECUTOR") == "slurm"
    names = _SLURM if is_slurm else _LOCAL
    try:
        numbers = {field: int(environment[name]) for field, name in names.items()}
        job_id = environment["SLURM_JOB_ID" if is_slurm else "SUBMITIT_LOCAL_JOB_ID"]
    except KeyError as error:
        raise EnvironmentSetupError(
            f"This is no task of a submitted job: {error.args[0]} is not set.", "Start it with: pokevla submit RECIPE"
        ) from error
    if is_slurm and "SLURM_ARRAY_JOB_ID" in environment:
        job_id = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", 1)) if is_slurm else 1
    return Place(
        is_slurm=is_slurm,
        job_id=job_id,
        **numbers,
        local_world_size=numbers["world_size"] // nodes,
        restarts=int(environment.get("SLURM_RESTART_COUNT", 0)),
    )


def export_rendezvous(place: Place, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    The port follows from job and restart: the same for all ranks, another one after a requeue, since a rank that
    outlived its node's death may still hold the old one.
    """
    variables = {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
        "MASTER_ADDR": main_address(place, environment),
        "MASTER_PORT": str(random.Random(f"{place.job_id}/{place.restarts}").randrange(*PORTS)),
    }
    environment.update(variables)


def main_address(place: Place, environment: Mapping[str, str] = os.environ) -> str:
    """Address of the machine of rank 0: its host name, or where names do not resolve, the address srun came from.

    srun runs on the job's first node, which is rank 0's.
    """
    if not place.is_slurm:
        return "127.0.0.1"
    from submitit.slurm.slurm import SlurmJobEnvironment

    name = SlurmJobEnvironment().hostnames[0]
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror:
        address = environment.get("SLURM_LAUNCH_NODE_IPADDR", "")
        if not address:
            raise EnvironmentSetupError(
                f"The host name {name} does not resolve, and srun gives no SLURM_LAUNCH_NODE_IPADDR.",
                "Have the nodes' names put into DNS or /etc/hosts.",
            ) from None
        return address
    return name
