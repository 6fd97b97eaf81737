"""Is this cluster fit for runs that are preempted and resume? Looked at, and tried out with one small job."""

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
from slurm.cluster import partitions
from slurm.commands import ask_slurm, last_words, run_slurm
from slurm.state import slurm_state

_POLL_S = 0.5
_CONFIG = ("SLURM_VERSION", "KillWait", "SlurmdTimeout", "JobRequeue", "PreemptType", "PreemptMode")


@dataclass(frozen=True)
class Found:
    """One thing that is as it should be."""

    name: str
    text: str


@dataclass(frozen=True)
class Trouble(Found):
    """One thing that is not."""

    remedy: str = ""


def checkup(profile: Profile, profile_name: str, wait_s: float) -> Iterator[Found]:
    """Look at the cluster, then let a small job run, be requeued and run again. Stops at what makes the rest useless.

    Raises:
        ClusterError: Slurm does not answer.
    """
    missing = [name for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo") if not shutil.which(name)]
    if missing:
        yield Trouble("commands", f"no {', '.join(missing)} here", "Run this on a login node, or with --sandbox.")
        return
    yield Found("commands", "sbatch, srun, squeue, scontrol, scancel, sinfo")
    yield from _configuration()
    yield Found("accounting", _accounting())
    for partition in partitions():
        yield Found(f"partition {partition.name}", partition.describe())
    yield Found("profile", shown(profile_name))
    yield from _trial(profile, wait_s)


def _configuration() -> Iterator[Found]:
    lines = run_slurm("scontrol", "show", "config").splitlines()
    config = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    said = [f"{name} {config[name]}" for name in _CONFIG if name in config]
    yield Found("controller", ", ".join(said))


def _accounting() -> str:
    if shutil.which("sacct") is None:
        return "none: finished jobs are known for some minutes only (MinJobAge)"
    done = ask_slurm("sacct", "--noheader", "--allocations", "--starttime", "now")
    return "sacct answers" if done.returncode == 0 else f"none ({last_words(done)}): squeue and scontrol have to do"


def _trial(profile: Profile, wait_s: float) -> Iterator[Found]:
    """A job of one processor that ends by itself only after it was started again."""
    # A home directory is on every node; /tmp is not.
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


def _follow(job_id: str, folder: Path, wait_s: float) -> Iterator[Found]:
    started = folder / "started"
    state = _await(job_id, lambda state: started.is_file() or not state.is_active, wait_s)
    if not started.is_file():
        where = f"job {job_id} is {state.describe()}"
        if state.is_active:
            yield Trouble("trial job", f"{where} after {wait_s:.0f} s", "Wait longer (--wait), or see: squeue --start")
        else:
            yield Trouble("trial job", f"{where}, and wrote nothing to {folder.parent}",
                          "Nodes may not see that folder: run this from a shared one.")  # fmt: skip
        return
    yield Found("trial job", f"ran on {started.read_text().split()[0]}")
    begun = time.monotonic()
    try:
        run_slurm("scontrol", "requeue", job_id)
    except ClusterError as error:
        yield Trouble("requeue", str(error), "Without it a job ends at its time limit: submit it again by hand")
        return
    state = _await(job_id, lambda state: not state.is_active, wait_s)
    if len(started.read_text().split()) > 1 and state.state == "COMPLETED":
        yield Found("requeue", f"the job ran again and ended {time.monotonic() - begun:.0f} s later")
    else:
        yield Trouble("requeue", f"job {job_id} is {state.describe()} {wait_s:.0f} s later",
                      "Wait longer (--wait): Slurm holds a requeued job back for up to two minutes")  # fmt: skip


def _await(job_id: str, holds: Callable[[JobState], bool], wait_s: float) -> JobState:
    deadline = time.monotonic() + wait_s
    while True:
        state = slurm_state(job_id)
        if holds(state) or time.monotonic() > deadline:
            return state
        time.sleep(_POLL_S)
