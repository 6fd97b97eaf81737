"""Checks whether this cluster can run, preempt and requeue jobs: reads its configuration and runs a small test job."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import ClusterError
from pokevla.jobs.profile import Profile, shown
from pokevla.jobs.state import JobState
from slurm.cluster import configuration, partitions
from slurm.commands import ask_slurm, last_error_line, run_slurm
from slurm.job_state import slurm_state

_POLL_S = 0.5
_CONFIG = ("SLURM_VERSION", "KillWait", "SlurmdTimeout", "JobRequeue", "PreemptType", "PreemptMode",
           "MaxArraySize")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A check that passed."""

    name: str
    text: str


@dataclass(frozen=True)
class Trouble(Result):
    """A check that failed."""

    remedy: str = ""


def checkup(profile: Profile, profile_name: str, wait_s: float) -> Iterator[Result]:
    """Check the cluster, then run and requeue a small test job. Stops where further checks make no sense.

    `wait_s`: seconds to wait for the test job in each state.

    Raises:
        ClusterError: Slurm does not answer.
    """
    missing = [name for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo") if not shutil.which(name)]
    if missing:
        yield Trouble("commands", f"no {', '.join(missing)} on this machine",
                      "Run this on a login node, or with --sandbox.")  # fmt: skip
        return
    yield Result("commands", "sbatch, srun, squeue, scontrol, scancel, sinfo")
    yield from _configuration()
    yield Result("accounting", _accounting())
    for partition in partitions():
        yield Result(f"partition {partition.name}", partition.describe())
    yield Result("profile", shown(profile_name))
    yield from _trial(profile, wait_s)


def _configuration() -> Iterator[Result]:
    config = configuration()
    settings = [f"{name} {config[name]}" for name in _CONFIG if name in config]
    yield Result("controller", ", ".join(settings))


def _accounting() -> str:
    if shutil.which("sacct") is None:
        return "none: Slurm forgets finished jobs after some minutes (MinJobAge)"
    done = ask_slurm("sacct", "--noheader", "--allocations", "--starttime", "now")
    return (
        "sacct answers"
        if done.returncode == 0
        else f"none ({last_error_line(done)}): only squeue and scontrol are used"
    )


def _trial(profile: Profile, wait_s: float) -> Iterator[Result]:
    """Run a job on one processor that ends by itself only after a restart."""
    # Every node sees the home directory, but not /tmp.
    with tempfile.TemporaryDirectory(prefix=".pokevla-trial-", dir=_shared_folder(profile)) as name:
        folder = Path(name)
        job_id = run_slurm("sbatch", "--parsable", text=_script(profile, folder)).strip().split(";")[0]
        try:
            yield from _follow(job_id, folder, wait_s)
        finally:
            ask_slurm("scancel", job_id)
            _await(job_id, lambda state: not state.is_active, wait_s)


def _shared_folder(profile: Profile) -> Path:
    from pokevla.jobs.preflight import node_local

    return Path.cwd() if node_local(Path.cwd(), profile.shared) is None else Path.home()


def _script(profile: Profile, folder: Path) -> str:
    flags = {
        "job-name": "pokevla-trial",
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "ntasks": 1,
        "time": 5,
        "output": str(folder / "out"),
        "open-mode": "append",
    }
    lines = ["#!/bin/bash", *(f"#SBATCH --{flag}={value}" for flag, value in flags.items() if value is not None)]
    started = shlex.quote(str(folder / "started"))
    return "\n".join(
        [*lines, "#SBATCH --requeue", *profile.setup, f"hostname >> {started}",
         'test "${SLURM_RESTART_COUNT:-0}" -gt 0 || sleep 300', ""]
    )  # fmt: skip


def _follow(job_id: str, folder: Path, wait_s: float) -> Iterator[Result]:
    started = folder / "started"
    state = _await(job_id, lambda state: started.is_file() or not state.is_active, wait_s)
    if not started.is_file():
        where = f"job {job_id} is {state.describe()}"
        if state.is_active:
            yield Trouble("test job", f"{where} after {wait_s:.0f} s", "Wait longer (--wait), or see: squeue --start")
        else:
            yield Trouble("test job", f"{where}, and wrote nothing to {folder.parent}",
                          "Nodes may not see that folder: run this in a shared one.")  # fmt: skip
        return
    yield Result("test job", f"ran on {started.read_text(encoding='utf-8').split()[0]}")
    begun = time.monotonic()
    try:
        run_slurm("scontrol", "requeue", job_id)
    except ClusterError as error:
        yield Trouble("requeue", str(error), "Without requeue a job ends at its time limit: submit it again by hand")
        return
    state = _await(job_id, lambda state: not state.is_active, wait_s)
    if len(started.read_text(encoding="utf-8").split()) > 1 and state.state == "COMPLETED":
        yield Result("requeue", f"the job ran again and ended {time.monotonic() - begun:.0f} s later")
    else:
        yield Trouble("requeue", f"job {job_id} is {state.describe()} {wait_s:.0f} s later",
                      "Wait longer (--wait): Slurm delays a requeued job for up to two minutes")  # fmt: skip


def _await(job_id: str, holds: Callable[[JobState], bool], wait_s: float) -> JobState:
    deadline = time.monotonic() + wait_s
    while True:
        state = slurm_state(job_id)
        if holds(state) or time.monotonic() > deadline:
            return state
        time.sleep(_POLL_S)
