"""Processes that a sandbox's nodes have started: step daemons and the tasks of jobs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

_END_S = 10.0


def end_processes(folder: Path) -> None:
    """Kill all processes of the jobs of the sandbox in `folder`, and wait until they have ended."""
    leftovers = job_processes(folder, None)
    for process in leftovers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(leftovers, timeout=_END_S)


def job_processes(folder: Path, node: str | None) -> list[psutil.Process]:
    """Processes that slurmd started, on one node or on all."""
    conf = str(folder / "slurm.conf")
    by_pid: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            variables = process.environ()
            if process.pid == os.getpid() or variables.get("SLURM_CONF") != conf:
                continue
            belongs = "SLURM_JOB_ID" in variables if node is None else variables.get("SLURMD_NODENAME") == node
            if belongs:
                by_pid[process.pid] = process
    for process in _step_daemons(folder, node):
        by_pid[process.pid] = process
    return list(by_pid.values())


def _step_daemons(folder: Path, node: str | None) -> list[psutil.Process]:
    """slurmstepd processes, identified by their socket `FOLDER/spool.NODE/NODE_JOB.STEP`."""
    prefix = f"{folder}/spool.{node}/" if node is not None else f"{folder}/spool."
    pids = {
        connection.pid
        for connection in psutil.net_connections(kind="unix")
        if isinstance(connection.laddr, str) and connection.laddr.startswith(prefix) and connection.pid
    }
    daemons = []
    for pid in pids - {os.getpid()}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.name().startswith("slurmstepd"):
                daemons.append(process)
    return daemons
