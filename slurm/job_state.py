"""State of a Slurm job, with or without accounting.

The controller is asked first (`scontrol show job`): only it knows why a job waits and how often it was restarted. It
forgets a job some minutes after its end (MinJobAge); then accounting is asked (`sacct`), if the cluster has it.
"""

from __future__ import annotations

import shutil

from pokevla.errors import ClusterError
from pokevla.jobs.state import ACTIVE, UNKNOWN, JobState
from slurm.commands import ask_slurm, last_error_line, parse_fields

_FORGOTTEN = ("Invalid job id", "Couldn't find job", "couldn't get info")


def slurm_state(job_id: str) -> JobState:
    """State of a job; UNKNOWN if neither controller nor accounting knows it.

    Raises:
        ClusterError: Slurm is not available or does not answer.
    """
    return _from_controller(job_id) or _from_accounting(job_id) or JobState(job_id, UNKNOWN)


def _from_controller(job_id: str) -> JobState | None:
    done = ask_slurm("scontrol", "--oneliner", "show", "job", job_id)
    if done.returncode != 0:
        message = last_error_line(done)
        if any(words in message for words in _FORGOTTEN):
            return None
        raise ClusterError(f"Slurm's controller does not report job {job_id}: {message}", "Check with: scontrol ping")
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
    """PreemptTime may be that of an earlier start, so it must not precede StartTime. ISO times compare as text."""
    preempted = row.get("PreemptTime", "None")
    return row["JobState"] == "RUNNING" and preempted != "None" and preempted >= row["StartTime"]


def _from_accounting(job_id: str) -> JobState | None:
    if shutil.which("sacct") is None:
        return None
    fields = "State,ExitCode,NodeList"
    done = ask_slurm("sacct", "--noheader", "--parsable2", "--allocations", "--format", fields, "--jobs", job_id)
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    if done.returncode != 0 or not rows:  # "Slurm accounting storage is disabled", or a job older than the accounting
        return None
    states = [row[0].split()[0] for row in rows]  # "CANCELLED by 1000"
    leading = _leading(states)
    state, exit_code, nodes = states[leading], rows[leading][1], rows[leading][2]
    reason = " ".join(rows[leading][0].split()[1:])
    return JobState(
        job_id,
        state,
        reason=_with_counts(reason, states),
        exit_code=_exit_code(exit_code),
        nodes="" if nodes == "None assigned" else nodes,
        source="sacct",
    )


def _leading(states: list[str]) -> int:
    """Index of the task that represents an array: a running one, else a queued, else a failed one, else the first."""

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
    """Exit code of Slurm's `code:signal`; a death by signal is 128 + signal, as in the shell."""
    code, _, signal = text.partition(":")
    if not (code.isdigit() and signal.isdigit()):
        return None
    return int(code) or (128 + int(signal) if int(signal) else 0)
