"""Runs jobs on this machine, one after another, through submitit's local executor: `pokevla submit --local`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pokevla.errors import PokeVLAError, TrainingError, UsageError
from pokevla.jobs.code_copy import CODE
from pokevla.jobs.launcher import Check
from pokevla.jobs.plain_path import make_plain_path
from pokevla.jobs.plan import JobPlan, Submitted
from pokevla.jobs.profile import Profile
from pokevla.jobs.record import JOBS, LOCAL, JobRecord, add_job, read_exit, task_log
from pokevla.jobs.state import UNKNOWN, JobState
from pokevla.jobs.task.job_task import JobTask
from pokevla.jobs.task.restarts import Restart

RUN_AGAIN_CODE = 144
"""Exit code on which submitit's local executor restarts the tasks (submitit/local/local.py)."""
_POLL_S = 0.2
_NUMBERS = {
    "rank": "SUBMITIT_LOCAL_GLOBALID",
    "world_size": "SUBMITIT_LOCAL_NTASKS",
    "local_rank": "SUBMITIT_LOCAL_LOCALID",
}


class LocalLauncher:
    """Tasks as processes of this machine (`pokevla.jobs.launcher.Launcher`)."""

    prefix = LOCAL
    is_cluster = False

    def is_available(self) -> bool:
        return True

    def checks(self, plan: JobPlan, profile: Profile) -> Iterable[Check]:
        return ()

    def script(self, plan: JobPlan, profile: Profile, after: Sequence[str]) -> str:
        return f"{plan.tasks_per_node} process(es) of this machine"

    def verdict(self, plan: JobPlan, profile: Profile) -> str:
        return "runs at once"

    def submit(
        self, plans: Sequence[JobPlan], profile: Profile, profile_name: str, on_submit: Callable[[Submitted], None]
    ) -> None:
        run_locally(plans, profile, profile_name, on_submit)

    def state(self, job_id: str) -> JobState:
        """Running as long as its controller process lives."""
        return _process_state(job_id)

    def stop(self, job: JobRecord, state: JobState) -> str:
        """Send SIGTERM to the controller, which forwards it to the tasks."""
        pid = job.job_id.removeprefix(LOCAL)
        os.kill(int(pid), signal.SIGTERM)
        return f"process {pid} was asked to save and end"

    def read_task(self, environment: Mapping[str, str]) -> JobTask | None:
        if not {*_NUMBERS.values(), "SUBMITIT_LOCAL_JOB_ID"} <= set(environment):
            return None
        numbers = {field: int(environment[name]) for field, name in _NUMBERS.items()}
        job_id = environment["SUBMITIT_LOCAL_JOB_ID"]
        return JobTask("local", job_id, f"{LOCAL}{job_id}", **numbers, local_world_size=numbers["world_size"])

    def main_address(self, task: JobTask) -> str:
        return "127.0.0.1"

    def restart_after_signal(self, task: JobTask, reason: str) -> Restart | None:
        return Restart("timeout", "Saved") if reason == "timeout" else None

    def restart_after_kill(self, task: JobTask) -> Restart | None:
        return None

    def run_again(self, task: JobTask) -> int:
        return RUN_AGAIN_CODE


def run_locally(
    plans: Sequence[JobPlan], profile: Profile, profile_name: str, on_submit: Callable[[Submitted], None]
) -> None:
    """Run a chain of jobs one after another and wait for each; the first failure ends the chain.

    Of the profile only the environment applies: partition, setup and the like need a cluster. A job array runs as one
    job.

    Raises:
        UsageError: a job needs several machines.
        PokeVLAError: a job failed; has its message and exit code.
    """
    from submitit import LocalExecutor

    from pokevla.jobs.preparation import environment, job_record, prepare
    from pokevla.jobs.task.job import Job

    for plan in plans:
        if plan.nodes > 1:
            raise UsageError(
                f"{plan.recipe.name} needs {plan.nodes} machines; --local has one.", "Add resources.nodes=1."
            )
    before: list[Submitted] = []
    for plan in plans:
        prepare(plan)
        folder = make_plain_path(plan.folder)
        executor = LocalExecutor(folder / JOBS / "local")
        executor.update_parameters(
            timeout_min=plan.time_limit_s / 60,
            signal_delay_s=plan.signal_lead_s,
            tasks_per_node=plan.tasks_per_node,
            gpus_per_node=plan.gpus_per_node,
        )
        with _variables(environment(plan, profile) | {"PYTHONPATH": _python_path(folder)}):
            job = executor.submit(Job(str(plan.folder)))
        started = Submitted(plan, f"{LOCAL}{job.job_id}")
        add_job(plan.folder, job_record(started, profile, profile_name, before[-1:]))
        before.append(started)
        on_submit(started)
        while not job.done():
            time.sleep(_POLL_S)
        if any(job.task(rank).exception() is not None for rank in range(plan.tasks_per_node)):
            raise _failure(started)


def _failure(job: Submitted) -> PokeVLAError:
    ended = read_exit(job.plan.folder, job.job_id)
    log = task_log(job.plan.folder, job.job_id)
    if ended is None:
        return TrainingError(f"{job.plan.recipe.name} failed.", f"See {log}")
    error = TrainingError(f"{job.plan.recipe.name} failed: {ended[1]}", f"Log: {log}")
    error.exit_code = ended[0]
    return error


def _python_path(folder: Path) -> str:
    return os.pathsep.join(part for part in (str(folder / CODE), os.environ.get("PYTHONPATH")) if part)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _process_state(job_id: str) -> JobState:
    """State of a job of the local executor: running as long as its controller process lives."""
    pid = job_id.removeprefix(LOCAL)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return JobState(job_id, UNKNOWN)
    running = b"submitit" in command
    return JobState(job_id, "RUNNING" if running else UNKNOWN, nodes=os.uname().nodename, source="process")


LOCAL_LAUNCHER = LocalLauncher()
