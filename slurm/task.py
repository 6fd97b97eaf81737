"""A task of a Slurm job, from the variables that srun sets, and the address of rank 0's machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from pokevla.errors import EnvironmentSetupError
from pokevla.jobs.task.job_task import JobTask

_NUMBERS = {"rank": "SLURM_PROCID", "world_size": "SLURM_NTASKS", "local_rank": "SLURM_LOCALID"}


def read_slurm_task(environment: Mapping[str, str] = os.environ) -> JobTask | None:
    """This process as a task of a Slurm job; None outside a job that was submitted through submitit."""
    if environment.get("SUBMITIT_EXECUTOR") != "slurm" or not {*_NUMBERS.values(), "SLURM_JOB_ID"} <= set(environment):
        return None
    numbers = {field: int(environment[name]) for field, name in _NUMBERS.items()}
    job_id = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment:
        job_id = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return JobTask(
        launcher="slurm",
        job_id=job_id,
        recorded_id=job_id,
        **numbers,
        local_world_size=numbers["world_size"] // int(environment.get("SLURM_JOB_NUM_NODES", 1)),
        restarts=int(environment.get("SLURM_RESTART_COUNT", 0)),
    )


def main_address(environment: Mapping[str, str] = os.environ) -> str:
    """Address of rank 0's machine: its host name, or if names do not resolve, the address of the node srun runs on.

    srun runs on the job's first node, which is that of rank 0.

    Raises:
        EnvironmentSetupError: the name does not resolve, and srun provides no address.
    """
    from submitit.slurm.slurm import SlurmJobEnvironment

    name = SlurmJobEnvironment().hostnames[0]
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror:
        address = environment.get("SLURM_LAUNCH_NODE_IPADDR", "")
        if not address:
            raise EnvironmentSetupError(
                f"The host name {name} does not resolve, and srun does not set SLURM_LAUNCH_NODE_IPADDR.",
                "Ask the administrator to add the nodes' names to DNS or /etc/hosts.",
            ) from None
        return address
    return name
