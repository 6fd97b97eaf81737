"""`RUN/slurm.json`: the jobs submitted for a run, oldest first. Written on the login node."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path

from pokevla.errors import DataError
from pokevla.files.texts import write_json
from pokevla.runs.directory import SUBMITTED

JOBS = "slurm"
"""Folder of job scripts and task logs inside a run directory; one sub-folder per job."""
LOCAL = "local-"
"""Prefix of job ids of submitit's local executor; a process id follows."""
_VERSION = 1


@dataclass(frozen=True)
class JobRecord:
    """One submitted job."""

    job_id: str  # Slurm's, for an array without the task number; or `local-PID`
    name: str
    submitted: str  # UTC, ISO 8601
    profile: str  # name or file; "" without one
    partition: str  # "" is the cluster's default
    after: tuple[str, ...]  # ids of jobs that must succeed first
    after_names: tuple[str, ...]  # their names
    nodes: int
    tasks_per_node: int
    time_limit_s: int
    signal_lead_s: int
    array_size: int  # 0: not an array


def read_jobs(run_dir: Path) -> list[JobRecord]:
    """The jobs of a run, oldest first; none if it was never submitted.

    Raises:
        DataError: `slurm.json` is damaged or has another schema version.
    """
    path = run_dir / SUBMITTED
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != _VERSION:
            raise DataError(f"{path} has schema version {content['schema_version']}, this program reads {_VERSION}.")
        return [
            JobRecord(**{**job, "after": tuple(job["after"]), "after_names": tuple(job["after_names"])})
            for job in content["jobs"]
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}).", "Delete it: the run itself does not depend on it.") from error


def add_job(run_dir: Path, job: JobRecord) -> None:
    """Append one job."""
    jobs = [asdict(known) for known in [*read_jobs(run_dir), job]]
    write_json(run_dir / SUBMITTED, {"schema_version": _VERSION, "jobs": jobs}, sort_keys=True)


def log_folder(run_dir: Path, job_id: str) -> Path:
    """Folder with the script of a job and the output of its tasks."""
    return run_dir / JOBS / ("local" if job_id.startswith(LOCAL) else job_id)


def task_log(run_dir: Path, job_id: str, rank: int = 0) -> Path:
    """File with the stderr of a task, as submitit names it: tracebacks, and output before the rank's log was open."""
    return log_folder(run_dir, job_id) / f"{job_id.removeprefix(LOCAL)}_{rank}_log.err"


def _exit_note(run_dir: Path, job_id: str, rank: int) -> Path:
    return log_folder(run_dir, job_id) / f"{job_id.removeprefix(LOCAL)}_{rank}_exit.json"


def record_exit(run_dir: Path, job_id: str, rank: int, code: int, message: str) -> None:
    """Record why a task failed: Slurm keeps only its exit code."""
    path = _exit_note(run_dir, job_id, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"code": code, "message": message}) + "\n", encoding="utf-8")


def remove_exit(run_dir: Path, job_id: str, rank: int) -> None:
    """Delete the record of why a task failed, because it is starting again."""
    _exit_note(run_dir, job_id, rank).unlink(missing_ok=True)


def read_exit(run_dir: Path, job_id: str) -> tuple[int, str] | None:
    """Exit code and message of the first task of a job that ended with a named error; None if there is none.

    Ranks with exit code 1, which may only have lost their connection to the others, come last.
    """
    notes = []
    folder = log_folder(run_dir, job_id)
    folders = [folder, *sorted(folder.parent.glob(f"{escape(folder.name)}_*"))]  # of an array's tasks: 12_0, 12_1, ...
    pattern = f"{job_id.removeprefix(LOCAL)}_*_exit.json"
    for path in [path for one in folders for path in sorted(one.glob(pattern))]:
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # truncated by a kill
            continue
        notes.append((int(note["code"]), str(note["message"])))
    return min(notes, key=lambda note: note[0] == 1, default=None)
