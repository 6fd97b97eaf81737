"""`RUN/slurm.json`: the jobs that were submitted for a run, oldest first. Written on the login node, read by all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pokevla.checkpoint.files import write_json_atomically
from pokevla.errors import DataError

RECORD = "slurm.json"
JOBS = "slurm"
"""Folder of job scripts and task logs inside a run directory; one sub-folder per job."""
LOCAL = "local-"
"""Prefix of the ids of jobs on submitit's local executor; a process id follows."""
_VERSION = 1


@dataclass(frozen=True)
class JobRecord:
    """One submitted job."""

    job_id: str  # Slurm's; of an array its first part; or `local-PID`
    name: str
    submitted: str  # UTC, ISO 8601
    profile: str  # name or file; "" without one
    partition: str  # "" is the cluster's default
    after: tuple[str, ...]  # job ids that must end well first
    after_names: tuple[str, ...]  # and their names
    nodes: int
    tasks_per_node: int
    time_limit_s: int
    signal_lead_s: int
    array_size: int  # 0: not an array


def read_jobs(run_dir: Path) -> list[JobRecord]:
    """The jobs of a run, oldest first; none if it was never submitted.

    Raises:
        DataError: `slurm.json` is damaged or of another version.
    """
    path = run_dir / RECORD
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
    write_json_atomically(run_dir / RECORD, {"schema_version": _VERSION, "jobs": jobs})


def task_log(run_dir: Path, job_id: str, rank: int = 0, stream: str = "err") -> Path:
    """Where a task of a job writes (submitit's names); it holds what came before the rank's own log was open."""
    plain = job_id.removeprefix(LOCAL)
    return run_dir / JOBS / plain / f"{plain}_{rank}_log.{stream}"
