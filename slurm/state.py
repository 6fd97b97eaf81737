"""What Slurm says about a job: with accounting (`sacct`), and without.

The controller is asked first (`scontrol show job`): it alone knows why a job waits and how often it was restarted.
It forgets a job some minutes after its end (MinJobAge); then accounting is asked, where the cluster has it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import ClusterError
from slurm.commands import ask_slurm, last_words, parse_fields
from slurm.record import LOCAL, JobRecord, read_exit, read_jobs

ACTIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING",
                    "STAGE_OUT", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})  # fmt: skip
UNKNOWN = "UNKNOWN"
_FORGOTTEN = ("Invalid job id", "Couldn't find job", "couldn't get info")


@dataclass(frozen=True)
class JobState:
    """State of one job, or of an array as a whole."""

    job_id: str
    state: str  # Slurm's word, or UNKNOWN
    reason: str = ""  # why it waits or was cancelled, in Slurm's words; "" when there is none
    exit_code: int | None = None
    nodes: str = ""
    restarts: int | None = None  # how often it was requeued; None where only accounting knows the job
    source: str = ""  # who said so: scontrol, sacct, process; "" when nobody knows the job
    is_being_preempted: bool = False  # runs, in the grace time that its partition gives to preempted jobs
    comment: str = ""  # the job's comment field; `pokevla runs stop` marks a job there

    @property
    def is_active(self) -> bool:
        """Whether it runs, waits or may run again."""
        return self.state in ACTIVE

    @property
    def has_failed(self) -> bool:
        """Whether it ended, and not well. A job nobody remembers has not failed as far as we know."""
        return not self.is_active and self.state not in ("COMPLETED", UNKNOWN)

    def describe(self) -> str:
        """One phrase for a person: `RUNNING on n[1-2], restarted 2 times`."""
        text = self.state
        if self.reason:
            text += f" ({self.reason})"
        if self.state == "RUNNING" and self.nodes:
            text += f" on {self.nodes}"
        if self.has_failed and self.exit_code:
            text += f", exit code {self.exit_code}"
        if self.restarts:
            text += f", restarted {self.restarts} time{'s' if self.restarts > 1 else ''}"
        return text


def job_state(job_id: str) -> JobState:
    """State of a job; UNKNOWN when neither controller nor accounting knows it.

    Raises:
        ClusterError: Slurm is not there or does not answer.
    """
    if job_id.startswith(LOCAL):
        return _process_state(job_id)
    return _from_controller(job_id) or _from_accounting(job_id) or JobState(job_id, UNKNOWN)


def job_states(job_ids: Iterable[str]) -> dict[str, JobState]:
    """`job_state` of several jobs."""
    return {job_id: job_state(job_id) for job_id in dict.fromkeys(job_ids)}


def _from_controller(job_id: str) -> JobState | None:
    done = ask_slurm("scontrol", "--oneliner", "show", "job", job_id)
    if done.returncode != 0:
        said = last_words(done)
        if any(words in said for words in _FORGOTTEN):
            return None
        raise ClusterError(f"Slurm's controller does not tell about job {job_id}: {said}", "Ask: scontrol ping")
    rows = [parse_fields(line) for line in done.stdout.splitlines() if line.startswith("JobId=")]
    if not rows:
        return None
    leading = _leading([row["JobState"] for row in rows])
    row = rows[leading]
    reason = "" if row.get("Reason", "None") == "None" else row["Reason"]
    nodes = row.get("NodeList", "")
    return JobState(
        job_id,
        row["JobState"],
        reason=_with_counts(reason, [other["JobState"] for other in rows]),
        exit_code=_exit_code(row.get("ExitCode", "")),
        nodes="" if nodes == "(null)" else nodes,
        restarts=sum(int(other.get("Restarts", 0)) for other in rows),
        source="scontrol",
        is_being_preempted=_is_being_preempted(row),
        comment=row.get("Comment", ""),
    )


def _is_being_preempted(row: dict[str, str]) -> bool:
    """PreemptTime stays from former starts; ISO times compare as text."""
    preempted = row.get("PreemptTime", "None")
    return row["JobState"] == "RUNNING" and preempted != "None" and preempted >= row["StartTime"]


def _from_accounting(job_id: str) -> JobState | None:
    if shutil.which("sacct") is None:
        return None
    fields = "State,ExitCode,NodeList"
    done = ask_slurm("sacct", "--noheader", "--parsable2", "--allocations", "--format", fields, "--jobs", job_id)
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    if done.returncode != 0 or not rows:  # "Slurm accounting storage is disabled", or a job before its time
        return None
    states = [row[0].split()[0] for row in rows]  # "CANCELLED by 1000"
    leading = _leading(states)
    state, exit_code, nodes = states[leading], rows[leading][1], rows[leading][2]
    said = " ".join(rows[leading][0].split()[1:])
    return JobState(
        job_id,
        state,
        reason=_with_counts(said, states),
        exit_code=_exit_code(exit_code),
        nodes="" if nodes == "None assigned" else nodes,
        source="sacct",
    )


def _leading(states: list[str]) -> int:
    """Which task speaks for an array: one that runs, else one that waits, else one that failed, else the first."""

    def rank(index: int) -> int:
        state = states[index]
        if state in ACTIVE:
            return 0 if state != "PENDING" else 1
        return 3 if state == "COMPLETED" else 2

    return min(range(len(states)), key=rank)


def _with_counts(reason: str, states: list[str]) -> str:
    if len(states) == 1:
        return reason
    done = sum(state == "COMPLETED" for state in states)
    return ", ".join(part for part in (reason, f"{done} of {len(states)} known tasks done") if part)


def _exit_code(text: str) -> int | None:
    """Exit code of Slurm's `code:signal`; death by a signal as the shell's 128 + signal."""
    code, _, signal = text.partition(":")
    if not (code.isdigit() and signal.isdigit()):
        return None
    return int(code) or (128 + int(signal) if int(signal) else 0)


def _process_state(job_id: str) -> JobState:
    """A job of the local executor: running as long as its controller process lives."""
    pid = job_id.removeprefix(LOCAL)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return JobState(job_id, UNKNOWN)
    running = b"submitit" in command
    return JobState(job_id, "RUNNING" if running else UNKNOWN, nodes=os.uname().nodename, source="process")


# ------------------------------------------------------------------------------------------------ of a run


def active_job(run_dir: Path) -> tuple[JobRecord, JobState] | None:
    """The newest job of a run that runs or waits, or None.

    Raises:
        ClusterError: there are jobs on record and Slurm does not answer.
    """
    for job in reversed(read_jobs(run_dir)):
        state = job_state(job.job_id)
        if state.is_active:
            return job, state
    return None


def explain(run_dir: Path) -> str | None:
    """How the newest job of a run stands, and if it was cancelled because of another one, which; None without jobs.

    Raises:
        ClusterError: Slurm does not answer.
    """
    jobs = read_jobs(run_dir)
    if not jobs:
        return None
    job = jobs[-1]
    state = job_state(job.job_id)
    text = f"job {job.job_id} {state.describe()}"
    if state.state == "CANCELLED":
        for parent, name in zip(job.after, job.after_names, strict=True):
            before = job_state(parent)
            if before.has_failed:
                return f"{text}: it waited for job {parent} ({name}), which ended as {before.describe()}"
    if not state.is_active and state.state != "COMPLETED":
        ended = read_exit(run_dir, job.job_id)
        text += f": {ended[1]}" if ended is not None else ""
    return text
