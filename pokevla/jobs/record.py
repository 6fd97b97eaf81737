"""`RUN/slurm.json`: the jobs submitted for a run, oldest first. Written on the login node."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path

from typing_extensions import TypedDict

from pokevla.errors import DataError
from pokevla.files.records import as_type
from pokevla.files.texts import read_json, read_json_object, write_json
from pokevla.runs.directory import SUBMITTED

JOBS = "slurm"
"""Folder of job scripts and task logs inside a run directory; one sub-folder per job."""
LOCAL = "local-"
"""Prefix of job ids of submitit's local executor; a process id follows."""
_VERSION = 1
_DELETE = "Delete it: the run itself does not depend on it."


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


class _Jobs(TypedDict):
    jobs: list[JobRecord]


def read_jobs(run_dir: Path) -> list[JobRecord]:
    """The jobs of a run, oldest first; none if it was never submitted.

    Raises:
        DataError: `slurm.json` is damaged or has another schema version.
    """
    path = run_dir / SUBMITTED
    if not path.exists():
        return []
    content = read_json_object(path, remedy=_DELETE)
    if content.get("schema_version") != _VERSION:
        version = content.get("schema_version")
        raise DataError(f"{path} has schema version {version}, this program reads {_VERSION}.", _DELETE)
    return as_type(content, _Jobs, path, remedy=_DELETE)["jobs"]


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


class _ExitNote(TypedDict):
    code: int
    message: str


def _exit_note(run_dir: Path, job_id: str, rank: int) -> Path:
    return log_folder(run_dir, job_id) / f"{job_id.removeprefix(LOCAL)}_{rank}_exit.json"


def record_exit(run_dir: Path, job_id: str, rank: int, code: int, message: str) -> None:
    """Record why a task failed: Slurm keeps only its exit code."""
    path = _exit_note(run_dir, job_id, rank)
    write_json(path, {"code": code, "message": message}, indent=None)


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
        with contextlib.suppress(DataError):  # truncated by a kill
            note = as_type(read_json(path), _ExitNote, path)
            notes.append((note["code"], note["message"]))
    return min(notes, key=lambda note: note[0] == 1, default=None)
